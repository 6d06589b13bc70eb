"""The worker's heartbeats, from a thread with a connection of its own, so that they tell of a main loop that is blocked.

While it is, this thread also keeps the worker's messages of the shared lane from being given to others: see `hold`.

Rule: the presence key is the worker's licence to start steps. It counts from the moment a write was *sent*, and it is
over a margin before the key expires: whoever sees the key gone may take the worker's steps away.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from contextlib import suppress

from mesh_sdk.errors import MeshError
from mesh_sdk.protocol.beats import WorkerBeat
from mesh_sdk.protocol.codec import encode
from mesh_sdk.protocol.subjects import Subjects
from mesh_sdk.transport.bus import IN_PROGRESS, Bus, Connect
from mesh_sdk.transport.errors import TransportError
from mesh_sdk.worker.clock import Clock
from mesh_sdk.worker.hold import Holds

log = logging.getLogger(__name__)

BEAT_S = 0.5
KEY_BEATS = 3
"""The key is written with every third beat."""
WRITE_TIMEOUT_S = 1.0
MARGIN_S = 1.0
RECONNECT_S = 0.5
CLOSE_S = 3.0
LOOK_S = 0.25
"""How often messages of a blocked loop are kept: twice at least before any of them would be given to somebody else."""


class Presence:
    """Says that the worker lives.

    Args:
        connect: opens a connection.
        subjects: of the namespace.
        worker: the worker's id.
        beat: the worker's view of itself; called on this thread, it must only read.
        holds: the worker's messages of the shared lane.
        ttl_s: how long the key lives without being written.
        clock: the machine's.

    Attributes:
        confirmed_until: seconds since boot up to which the worker may start steps; 0.0 before the first write.
        beat_ms: milliseconds since 1970 of the last beat that went out.
    """

    def __init__(
        self,
        connect: Connect,
        subjects: Subjects,
        worker: str,
        beat: Callable[[], WorkerBeat],
        holds: Holds,
        *,
        ttl_s: float,
        clock: Clock,
    ) -> None:
        self.confirmed_until = 0.0
        self.beat_ms = 0
        self._connect = connect
        self._subject = subjects.worker_beat(worker)
        self._bucket = subjects.workers_bucket
        self._worker = worker
        self._beat = beat
        self._holds = holds
        self._ttl_s = ttl_s
        self._clock = clock
        self._thread = threading.Thread(target=self._run, name="mesh-presence", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._stopped = threading.Event()
        self._main_loop = asyncio.get_running_loop()
        self._first = asyncio.Event()

    def start(self) -> None:
        """Begin to beat."""
        self._thread.start()

    @property
    def confirmed(self) -> bool:
        """Whether the worker may start steps now."""
        return self._clock.boot() < self.confirmed_until

    async def wait_confirmed(self) -> None:
        """Return when the worker may start steps, as far as its presence is concerned."""
        while not self.confirmed:
            self._first.clear()
            await self._first.wait()

    async def stop(self) -> None:
        """Take the key away and end the thread; waits for it, but not for an unreachable server."""
        self._stopped.set()
        loop, stop = self._loop, self._stop
        if loop is not None and stop is not None:
            with suppress(RuntimeError):  # the thread's loop has ended by itself
                loop.call_soon_threadsafe(stop.set)
        await asyncio.get_running_loop().run_in_executor(None, self._thread.join, CLOSE_S)

    def _run(self) -> None:
        try:
            asyncio.run(self._main())
        except Exception:  # without presence the worker would stand still with no word about why
            log.exception("the heartbeat of worker %s has ended", self._worker)

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        if self._stopped.is_set():
            return
        bus = await self._open()
        if bus is None:
            return
        keep = asyncio.create_task(self._keep_in_progress(bus))
        try:
            await self._beat_until_stopped(bus)
        finally:
            keep.cancel()
            await bus.close()

    async def _open(self) -> Bus | None:
        while not self._stopped.is_set():
            try:
                return await self._connect()
            except (MeshError, TransportError) as error:
                log.warning("the heartbeat of worker %s has no connection yet: %s", self._worker, error)
                await self._pause(RECONNECT_S)
        return None

    async def _beat_until_stopped(self, bus: Bus) -> None:
        count = 0
        write: asyncio.Task[None] | None = None
        while not self._stopped.is_set():
            value = encode(self._beat())
            if bus.publish(self._subject, value):
                self.beat_ms = self._clock.wall_ms()
            if (count % KEY_BEATS == 0 or not self.confirmed) and (write is None or write.done()):
                write = asyncio.create_task(self._write(bus, value))
            count += 1
            await self._pause(BEAT_S)
        if write is not None:
            write.cancel()
        with suppress(TransportError, TimeoutError):  # it expires by itself
            async with asyncio.timeout(WRITE_TIMEOUT_S):
                await bus.bucket(self._bucket).delete(self._worker)

    async def _keep_in_progress(self, bus: Bus) -> None:
        while not self._stopped.is_set():
            if self.confirmed:  # else the worker's steps may be others' by now
                for reply in self._holds.in_progress():
                    bus.publish(reply, IN_PROGRESS)
            await self._pause(LOOK_S)

    async def _write(self, bus: Bus, value: bytes) -> None:
        sent = self._clock.boot()
        try:
            async with asyncio.timeout(WRITE_TIMEOUT_S):
                await bus.bucket(self._bucket).put(self._worker, value, ttl_s=self._ttl_s)
        except (TransportError, TimeoutError) as error:
            log.debug("presence of worker %s was not written: %r", self._worker, error)
        else:
            self.confirmed_until = sent + self._ttl_s - MARGIN_S
            with suppress(RuntimeError):  # the worker's loop has ended
                self._main_loop.call_soon_threadsafe(self._first.set)

    async def _pause(self, seconds: float) -> None:
        assert self._stop is not None
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stop.wait()
