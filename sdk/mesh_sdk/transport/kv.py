"""Key-value buckets with raw headers: per-key TTL, expected revisions, and expiry seen by everybody.

A bucket is the stream `KV_<bucket>` with the last value of each subject `$KV.<bucket>.<key>`. Rule: a key is there
unless its last message is a marker (`KV-Operation` of a delete, `Nats-Marker-Reason` of an expiry); a marker still has a
revision, and whoever creates the key writes on top of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from mesh_sdk.transport import streams
from mesh_sdk.transport.bus import Delivery, StreamSettings
from mesh_sdk.transport.errors import TimedOut, WrongSequence
from mesh_sdk.transport.headers import ttl_header
from mesh_sdk.transport.reader import OrderedReader

if TYPE_CHECKING:
    from mesh_sdk.transport.wire import Wire

_TIMEOUT_S = 5.0
_DELETE = b"KV-Operation: DEL\r\n" + ttl_header(60)
"""A marker, for every watcher to see; without an end of its own it would stay for ever, one for each key there ever was."""


def bucket_stream(bucket: str, *, max_bytes: int, memory: bool = False, replicas: int = 1, description: str = "") -> StreamSettings:
    """The stream that a bucket lives in, for `ensure_stream`."""
    return StreamSettings(
        name=f"KV_{bucket}",
        subjects=(f"$KV.{bucket}.>",),
        max_bytes=max_bytes,
        memory=memory,
        replicas=replicas,
        max_per_subject=1,
        ttl=True,
        rollup=True,
        direct=True,
        description=description,
    )


def is_marker(headers: Mapping[str, str] | None) -> bool:
    """Whether a message says that its key is gone."""
    return headers is not None and ("KV-Operation" in headers or "Nats-Marker-Reason" in headers)


class Bucket:
    """A `bus.KeyValue`."""

    def __init__(self, wire: Wire, name: str) -> None:
        self._wire = wire
        self._stream = f"KV_{name}"
        self._prefix = f"$KV.{name}."

    async def put(self, key: str, value: bytes, *, ttl_s: float = 0) -> int:
        """Set a key, whatever it was; returns its revision."""
        return await self._store(key, value, None, ttl_s)

    async def create(self, key: str, value: bytes, *, ttl_s: float = 0) -> int:
        """Set a key that is not there; returns its revision.

        Raises:
            WrongSequence: it is there.
        """
        try:
            return await self._store(key, value, 0, ttl_s)
        except WrongSequence:
            last = await streams.message(self._wire, self._stream, {"last_by_subj": self._prefix + key})
            if last is not None and not is_marker(last.headers):
                raise
        return await self._store(key, value, last.sequence if last is not None else 0, ttl_s)

    async def update(self, key: str, value: bytes, revision: int, *, ttl_s: float = 0) -> int:
        """Set a key whose last revision is `revision` (compare and set); returns the new one.

        Raises:
            WrongSequence: it is another.
        """
        return await self._store(key, value, revision, ttl_s)

    async def get(self, key: str) -> tuple[bytes, int] | None:
        """A key's value and revision, read through the stream's leader; None when it is not there."""
        last = await streams.message(self._wire, self._stream, {"last_by_subj": self._prefix + key})
        if last is None or is_marker(last.headers):
            return None
        return last.data, last.sequence

    async def delete(self, key: str, *, revision: int = 0) -> None:
        """Delete a key, if its last revision is `revision` where one is given.

        Raises:
            WrongSequence: it is another.
        """
        headers = _DELETE
        if revision:
            headers += b"Nats-Expected-Last-Subject-Sequence: %d\r\n" % revision
        await self._wire.store(self._prefix + key, b"", headers, _TIMEOUT_S)

    async def entries(self) -> dict[str, tuple[bytes, int]]:
        """Every key with its value and revision."""
        found: dict[str, tuple[bytes, int]] = {}

        def see(key: str, value: bytes | None, revision: int) -> None:
            if value is None:
                found.pop(key, None)
            else:
                found[key] = (value, revision)

        watch = await self.watch(see)
        await watch.close()
        return found

    async def watch(self, on_change: Callable[[str, bytes | None, int], None]) -> Watch:
        """Have `on_change(key, value, revision)` called for every key there is, then for every change.

        The value is None when the key was deleted or has expired. After a reconnect every key is told again, and those
        that have gone meanwhile as gone (with revision 0).

        Returns:
            The watch, once every key that was there has been told.

        Raises:
            TimedOut: when the bucket could not be read.
        """
        watch = Watch(self._wire, self._stream, self._prefix, on_change)
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                await watch.start()
        except TimeoutError:
            await watch.close()
            raise TimedOut(f"bucket {self._stream} could not be read within {_TIMEOUT_S:g} s") from None
        return watch

    def _store(self, key: str, value: bytes, expect: int | None, ttl_s: float) -> asyncio.Future[int]:
        headers = b""
        if expect is not None:
            headers = b"Nats-Expected-Last-Subject-Sequence: %d\r\n" % expect
        if ttl_s:
            headers += ttl_header(ttl_s)
        return self._wire.store(self._prefix + key, value, headers, _TIMEOUT_S)


class Watch:
    """Follows a bucket; ends with `close`."""

    def __init__(self, wire: Wire, stream: str, prefix: str, on_change: Callable[[str, bytes | None, int], None]) -> None:
        self._cut = len(prefix)
        self._on_change = on_change
        self._told: set[str] = set()
        self._again: set[str] | None = None
        """While the bucket is told again: the keys told so far."""
        self._whole = asyncio.Event()
        self._reader = OrderedReader(
            wire, stream, prefix + ">", self._take, last_per_subject=True, on_restart=self._restarted, on_caught_up=self._caught_up
        )

    async def start(self) -> None:
        """Return once every key that was there has been told."""
        await self._reader.start()
        await self._whole.wait()

    async def close(self) -> None:
        """Tell nothing more."""
        await self._reader.close()

    def _restarted(self) -> None:
        self._again = set()

    def _take(self, delivery: Delivery) -> None:
        key = delivery.subject[self._cut :]
        if is_marker(delivery.headers):
            if self._again is not None:
                self._again.discard(key)
            if key in self._told:
                self._told.discard(key)
                self._on_change(key, None, delivery.sequence)
            return
        self._told.add(key)
        if self._again is not None:
            self._again.add(key)
        self._on_change(key, delivery.data, delivery.sequence)

    def _caught_up(self) -> None:
        again, self._again = self._again, None
        if again is not None:
            for key in sorted(self._told - again):
                self._told.discard(key)
                self._on_change(key, None, 0)
        self._whole.set()
