"""Snapshots in the object store: the state at exactly one journal sequence. Two are kept; one that can't be read is skipped.

They are compressed: an image of many runs is a tenth of its size then, and a bucket must hold three of them for a moment.
"""

from __future__ import annotations

import gc
import logging
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec
from msgspec import Raw, Struct

from mesh.core.image import encode_image, image
from mesh.core.loading import load
from mesh.core.state import State
from mesh_sdk.protocol.subjects import Subjects
from mesh_sdk.transport.bus import Bus
from mesh_sdk.transport.errors import NO_RESPONDERS, Damaged, StreamFull, StreamMissing

log = logging.getLogger(__name__)

KEPT = 2
_DIGITS = 16
_LEVEL = 1
"""Of the compression: the fastest; higher ones take several times as long for a few percent."""
_PLAIN = b"["
"""What a snapshot begins with that is not compressed."""


class SnapshotFile(Struct, array_like=True):
    """What a snapshot object holds."""

    sequence: int
    positions: dict[str, list[int]]
    image: Raw


class Snapshot:
    """A snapshot, loaded."""

    def __init__(self, sequence: int, positions: dict[str, list[int]], state: State) -> None:
        self.sequence = sequence
        self.positions = positions
        self.state = state


class Snapshots:
    """The snapshots of one namespace."""

    def __init__(self, bus: Bus, subjects: Subjects) -> None:
        self._objects = bus.objects(subjects.snapshots_bucket)

    async def sequences(self) -> list[int]:
        """Journal sequences that there are snapshots of, oldest first."""
        try:
            names = await self._objects.names()
        except StreamMissing as error:
            if error.code == NO_RESPONDERS:  # nobody says whether there are any: to begin without one would be to read all anew
                raise
            return []
        return sorted(int(name) for name in names if name.isdigit())

    async def newest(self, finished_max: int) -> Snapshot | None:
        """The newest that can be read."""
        for sequence in reversed(await self.sequences()):
            snapshot = await self.read(sequence, finished_max)
            if snapshot is not None:
                return snapshot
        return None

    async def read(self, sequence: int, finished_max: int) -> Snapshot | None:
        """The snapshot of a sequence; None when it is gone or can't be read."""
        try:
            data = await self._objects.get(_name(sequence))
            if data is None:
                return None
            with _no_collector():
                return _load(data, finished_max)
        except (msgspec.MsgspecError, zlib.error, Damaged, KeyError) as error:
            log.error("snapshot %d can't be read, an older one is tried: %s", sequence, error)
            return None

    async def write(self, sequence: int, positions: dict[str, list[int]], state: State) -> int:
        """Write a snapshot; its size in bytes.

        Raises:
            StreamFull: the bucket can't hold it beside the newest one.
        """
        with _no_collector():
            data = zlib.compress(msgspec.json.encode(SnapshotFile(sequence, positions, Raw(encode_image(image(state))))), _LEVEL)
        try:
            await self._objects.put(_name(sequence), data)
        except StreamFull as error:
            log.warning("no room for a third snapshot, the older of the two goes first: %s", error)
            await self._drop_all_but(1)
            await self._objects.put(_name(sequence), data)
        return len(data)

    async def drop_old(self) -> int:
        """Keep the newest two; the sequence of the older of them, up to which the journal can go; 0 when there are less."""
        sequences = await self._drop_all_but(KEPT)
        return sequences[-KEPT] if len(sequences) >= KEPT else 0

    async def _drop_all_but(self, count: int) -> list[int]:
        """Keep the newest ones; all sequences as they were."""
        sequences = await self.sequences()
        for sequence in sequences[:-count]:
            await self._objects.delete(_name(sequence))
        if sequences:
            await self._drop_unfinished(sequences[-1])
        return sequences

    async def _drop_unfinished(self, newest: int) -> None:
        """Parts of snapshots whose makers were killed: nobody knows of them, and they would fill the bucket in time.

        Older ones than the newest only: one that is still being written is of a later sequence, or not needed any more.
        """
        for name in await self._objects.unfinished():
            if name.isdigit() and int(name) < newest:
                log.info("snapshot %s was never finished: what there is of it is dropped", name)
                await self._objects.delete(name)


def _load(data: bytes, finished_max: int) -> Snapshot:
    file = msgspec.json.decode(data if data.startswith(_PLAIN) else zlib.decompress(data), type=SnapshotFile)
    return Snapshot(file.sequence, file.positions, load(bytes(file.image), finished_max))


@contextmanager
def _no_collector() -> Iterator[None]:
    """Everything that is made here stays: the garbage collector would only look through it, again and again."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def _name(sequence: int) -> str:
    return f"{sequence:0{_DIGITS}d}"
