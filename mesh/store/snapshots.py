"""Snapshots in the object store: the state at exactly one journal sequence. Two are kept; one that can't be read is skipped."""

from __future__ import annotations

import logging

import msgspec
from msgspec import Raw, Struct

from mesh.core.image import encode_image, image, load
from mesh.core.state import State
from mesh_sdk.protocol.subjects import Subjects
from mesh_sdk.transport.bus import Bus
from mesh_sdk.transport.errors import Damaged, StreamMissing

log = logging.getLogger(__name__)

KEPT = 2
_DIGITS = 16


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
        except StreamMissing:
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
            file = msgspec.json.decode(data, type=SnapshotFile)
            return Snapshot(file.sequence, file.positions, load(bytes(file.image), finished_max))
        except (msgspec.MsgspecError, Damaged, KeyError) as error:
            log.error("snapshot %d can't be read, an older one is tried: %s", sequence, error)
            return None

    async def write(self, sequence: int, positions: dict[str, list[int]], state: State) -> int:
        """Write a snapshot; its size in bytes."""
        data = msgspec.json.encode(SnapshotFile(sequence, positions, Raw(encode_image(image(state)))))
        await self._objects.put(_name(sequence), data)
        return len(data)

    async def drop_old(self) -> int:
        """Keep the newest two; the sequence of the older of them, up to which the journal can go; 0 when there are less."""
        sequences = await self.sequences()
        for sequence in sequences[:-KEPT]:
            await self._objects.delete(_name(sequence))
        return sequences[-KEPT] if len(sequences) >= KEPT else 0


def _name(sequence: int) -> str:
    return f"{sequence:0{_DIGITS}d}"
