"""Which workers are gone. Beats make the leader trust; only proof makes it give a worker up.

Proof is: nobody listens on the worker's control subject, twice, while our own connection stood; or its presence has
expired while the bucket itself is older than that. Everything is compared anew every round, so no signal can be missed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import msgspec

from mesh.core.inputs import WorkerVanished
from mesh.core.state import State
from mesh_sdk.errors import InvalidName
from mesh_sdk.protocol.beats import WorkerBeat
from mesh_sdk.protocol.codec import decode_worker_beat
from mesh_sdk.protocol.subjects import Subjects, check_token
from mesh_sdk.transport.bus import Bus, Subscription
from mesh_sdk.transport.errors import NoResponders, TransportError

log = logging.getLogger(__name__)

ROUND_S = 0.25
QUIET_S = 1.0
PROBE_TIMEOUT_S = 0.5
STRANGE_S = 1.0
"""A worker that beats is about to register; one that beats for longer and is not known was given up."""
STRANGERS_MAX = 10_000
_STALL_S = 0.5


class _Heard:
    """What was last heard of a worker."""

    __slots__ = ("at", "beat", "incarnation", "probing")

    def __init__(self, incarnation: str, at: float) -> None:
        self.incarnation = incarnation
        self.at = at
        self.beat: WorkerBeat | None = None
        self.probing = False


class Liveness:
    """Watches the workers for one term.

    Args:
        bus, subjects, state: of the scheduler.
        presence_ttl_s: how long a presence key lives.
        tell: hands an input to the loop.
    """

    def __init__(self, bus: Bus, subjects: Subjects, state: State, presence_ttl_s: float, tell: Callable[[WorkerVanished], None]) -> None:
        self._bus = bus
        self._subjects = subjects
        self._state = state
        self._ttl_s = presence_ttl_s
        self._tell = tell
        self._loop = asyncio.get_running_loop()
        self._heard: dict[str, _Heard] = {}
        self._strangers: dict[tuple[str, str], float] = {}
        """Incarnations that beat and are not known, and since when."""
        self._steady_since = self._loop.time()
        """Since when our own connection and loop have been up."""
        self._last_round = self._loop.time()
        self._subscription: Subscription | None = None
        self._stop_listening: Callable[[], None] = _nothing_to_stop
        self._probes: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Watch, for ever."""
        self._stop_listening = self._bus.on_connection(self._connection)
        self._subscription = await self._bus.subscribe(self._subjects.all_worker_beats, self._hear)
        while True:
            self._round()
            await asyncio.sleep(ROUND_S)

    async def close(self) -> None:
        """Watch no more."""
        for probe in self._probes:
            probe.cancel()
        self._stop_listening()
        if self._subscription is not None:
            await self._subscription.close()

    def _connection(self, up: bool) -> None:
        self._steady_since = self._loop.time()

    def running(self, worker: str) -> int | None:
        """How many slots the worker itself says are in use; None when it was not heard."""
        heard = self._heard.get(worker)
        return heard.beat.running if heard is not None and heard.beat is not None else None

    def lag_ms(self, worker: str) -> int:
        """How late the worker's loop is, by its own last word."""
        heard = self._heard.get(worker)
        return heard.beat.lag_ms if heard is not None and heard.beat is not None else 0

    def _hear(self, subject: str, reply: str, data: bytes) -> None:
        try:
            beat = decode_worker_beat(data)
        except msgspec.MsgspecError:
            return
        worker = self._state.workers.get(beat.worker)
        if worker is None or worker.incarnation != beat.incarnation:
            if worker is None or worker.incarnation < beat.incarnation:
                self._strange(beat)
            return
        heard = self._entry(beat.worker, beat.incarnation)
        heard.at = self._loop.time()
        heard.beat = beat

    def _strange(self, beat: WorkerBeat) -> None:
        """An incarnation that was given up (or never made known) still lives: once that is sure, it is told to start over."""
        try:
            check_token("worker id", beat.worker)
            check_token("incarnation", beat.incarnation)
        except InvalidName:  # nobody can be told: a server ends the connection over a subject that is none
            return
        now = self._loop.time()
        since = self._strangers.setdefault((beat.worker, beat.incarnation), now)
        if now - max(since, self._steady_since) > STRANGE_S:
            ask = {"ask": "register", "incarnation": beat.incarnation}
            self._bus.publish(self._subjects.control(beat.worker), msgspec.json.encode(ask))

    def _entry(self, worker: str, incarnation: str) -> _Heard:
        heard = self._heard.get(worker)
        if heard is None or heard.incarnation != incarnation:
            heard = self._heard[worker] = _Heard(incarnation, self._loop.time())
        return heard

    def _round(self) -> None:
        now = self._loop.time()
        if now - self._last_round > ROUND_S + _STALL_S or not self._bus.connected:
            self._steady_since = now
        self._last_round = now
        for id in list(self._heard):
            if id not in self._state.workers:
                del self._heard[id]
        if len(self._strangers) > STRANGERS_MAX:
            self._strangers.clear()
        for worker in self._state.workers.values():
            heard = self._entry(worker.id, worker.incarnation)
            quiet = now - max(heard.at, self._steady_since)
            if quiet >= QUIET_S and not heard.probing:
                heard.probing = True
                task = self._loop.create_task(self._probe(worker.id, heard))
                self._probes.add(task)
                task.add_done_callback(self._probes.discard)

    async def _probe(self, worker: str, heard: _Heard) -> None:
        """Ask the quiet worker itself; give it up when nobody listens, or when its presence is gone."""
        try:
            steady = self._steady_since
            reason = ""
            if await self._nobody_listens(worker, heard.incarnation):
                await asyncio.sleep(PROBE_TIMEOUT_S)
                if await self._nobody_listens(worker, heard.incarnation):
                    reason = "nobody answers for it"
            elif self._loop.time() - max(heard.at, self._steady_since) > self._ttl_s and await self._presence_expired(worker):
                reason = f"silent for more than {self._ttl_s:g} s"
            if reason and steady == self._steady_since and heard.at < self._loop.time() - QUIET_S:
                log.warning("worker %s is given up: %s", worker, reason)
                self._tell(WorkerVanished(worker, heard.incarnation, reason))
        finally:
            heard.probing = False

    async def _nobody_listens(self, worker: str, incarnation: str) -> bool:
        """Nobody, or only another incarnation: whatever is registered, it is not that one."""
        try:
            answer = await self._bus.request(self._subjects.control(worker), b"{}", PROBE_TIMEOUT_S)
            told = msgspec.json.decode(answer, type=dict[str, Any]).get("incarnation", incarnation)
        except NoResponders:
            return True
        except (TransportError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return False
        return bool(told != incarnation)

    async def _presence_expired(self, worker: str) -> bool:
        """The key is gone from a bucket that is itself old enough to have held it."""
        try:
            return await self._bus.bucket(self._subjects.workers_bucket).get(worker) is None
        except TransportError:
            return False


def _nothing_to_stop() -> None:
    """Before `run` there is no listener."""
