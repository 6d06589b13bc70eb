"""An object store: blobs by name, in chunks, with a manifest written last.

Stream `OBJ_<bucket>`: chunks under `$O.<bucket>.C.<name>.<version>.<number>`, the manifest under `$O.<bucket>.M.<name>`
(both names as hex, whatever they hold). Rule: an object is what its manifest says; chunks without one are nobody's, and
a reader verifies size and digest.
"""

from __future__ import annotations

import asyncio
import secrets
from hashlib import blake2b
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from mesh_sdk.transport import streams
from mesh_sdk.transport.bus import StreamSettings
from mesh_sdk.transport.errors import Damaged, Refused

if TYPE_CHECKING:
    from mesh_sdk.transport.wire import Wire

_CHUNK_BYTES_MAX = 128 * 1024
_IN_FLIGHT = 16
_TIMEOUT_S = 10.0
_TRIES = 3


class _Manifest(Struct):
    name: str
    version: str
    size: int
    chunks: int
    digest: str


def object_stream(bucket: str, *, max_bytes: int, replicas: int = 1, description: str = "") -> StreamSettings:
    """The stream that an object store lives in, for `ensure_stream`."""
    return StreamSettings(
        name=f"OBJ_{bucket}",
        subjects=(f"$O.{bucket}.>",),
        max_bytes=max_bytes,
        replicas=replicas,
        max_per_subject=1,
        direct=True,
        rollup=True,
        description=description,
    )


class ObjectStore:
    """A `bus.Objects`."""

    def __init__(self, wire: Wire, name: str) -> None:
        self._wire = wire
        self._stream = f"OBJ_{name}"
        self._prefix = f"$O.{name}"

    async def put(self, name: str, data: bytes) -> None:
        """Store an object; another of the same name stays readable until this one is whole, then goes.

        Raises:
            StreamFull, TimedOut, Disconnected…: as `Bus.append`; the old object stands.
        """
        old = await self._manifest(name)
        version = secrets.token_hex(8)
        chunks = self._chunks(name, version)
        parts = [data[at : at + _CHUNK_BYTES_MAX] for at in range(0, len(data), _CHUNK_BYTES_MAX)]
        manifest = _Manifest(name, version, len(data), len(parts), _digest(data))
        try:
            for at in range(0, len(parts), _IN_FLIGHT):
                group = parts[at : at + _IN_FLIGHT]
                sent = [self._wire.store(f"{chunks}.{at + n}", part, b"", _TIMEOUT_S) for n, part in enumerate(group)]
                await asyncio.gather(*sent)
        except BaseException:
            self._forget(f"{chunks}.*")
            raise
        try:
            await self._wire.store(self._place(name), msgspec.json.encode(manifest), b"", _TIMEOUT_S)
        except Refused:  # for sure: after any other error the manifest may stand, and then they are its chunks
            self._forget(f"{chunks}.*")
            raise
        if old is not None:
            await streams.purge(self._wire, self._stream, subject=self._chunks(name, old.version) + ".*")

    async def get(self, name: str) -> bytes | None:
        """An object's bytes; None when there is none of this name.

        Raises:
            Damaged: when they are not the ones that were put.
        """
        data = b""
        for _ in range(_TRIES):
            manifest = await self._manifest(name)
            if manifest is None:
                return None
            chunks = self._chunks(name, manifest.version)
            parts = await streams.read(self._wire, self._stream, chunks + ".*")
            data = b"".join(part.data for part in sorted(parts, key=lambda part: int(part.subject.rsplit(".", 1)[1])))
            if len(data) == manifest.size and _digest(data) == manifest.digest:
                return data
            # replaced while it was read: its chunks are gone, and the manifest is another by now
        raise Damaged(f"object {name!r} in {self._stream}: its chunks ({len(data)} bytes) are not what its manifest says; put it again")

    async def delete(self, name: str) -> None:
        """Delete an object; one that is not there is as good as deleted."""
        await streams.purge(self._wire, self._stream, subject=self._place(name))
        await streams.purge(self._wire, self._stream, subject=self._chunks(name, "*") + ".*")

    async def names(self) -> list[str]:
        """The names of all objects, sorted."""
        manifests = await streams.read(self._wire, self._stream, f"{self._prefix}.M.*")
        return sorted(msgspec.json.decode(found.data, type=_Manifest).name for found in manifests)

    async def unfinished(self) -> list[str]:
        """Names under which there are chunks and no manifest."""
        subjects = await streams.subjects(self._wire, self._stream, f"{self._prefix}.>")
        places = [subject.removeprefix(f"{self._prefix}.").split(".") for subject in subjects]
        whole = {place[1] for place in places if place[0] == "M"}
        return sorted(bytes.fromhex(name).decode() for name in {place[1] for place in places if place[0] == "C"} - whole)

    async def _manifest(self, name: str) -> _Manifest | None:
        found = await streams.message(self._wire, self._stream, {"last_by_subj": self._place(name)})
        return None if found is None else msgspec.json.decode(found.data, type=_Manifest)

    def _place(self, name: str) -> str:
        return f"{self._prefix}.M.{name.encode().hex()}"

    def _chunks(self, name: str, version: str) -> str:
        return f"{self._prefix}.C.{name.encode().hex()}.{version}"

    def _forget(self, subject: str) -> None:
        self._wire.publish(f"{streams.API}STREAM.PURGE.{self._stream}", msgspec.json.encode({"filter": subject}))


def _digest(data: bytes) -> str:
    return blake2b(data, digest_size=32).hexdigest()
