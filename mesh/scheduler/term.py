"""One term of leadership: what is built for it, in which order it starts, what ends it.

Takeover, in order: fence the journal (done by whoever calls this), anchor the clock, fence the lanes, read every input
on from its position; when the reports stored so far are decided, send what was recorded and neither answered nor sent.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

from mesh.core.core import Core
from mesh.core.effects import withdrawals
from mesh.core.inputs import CancelsPassed, HoldingAsked, LanesLost, Undeliverable
from mesh.core.records import Fact, LanesReset
from mesh.scheduler.api import Api
from mesh.scheduler.cel import evaluator
from mesh.scheduler.clock import CoreClock
from mesh.scheduler.counting import Counting
from mesh.scheduler.follower import Follower
from mesh.scheduler.free import Freeing
from mesh.scheduler.inbox import Inbox
from mesh.scheduler.journal import Journal
from mesh.scheduler.lanes import Lanes
from mesh.scheduler.leadership import BEAT_S, Leadership
from mesh.scheduler.liveness import Liveness
from mesh.scheduler.lookout import LanesAway, LanesGone
from mesh.scheduler.loop import STALL_S, Loop, Poison, Probe
from mesh.scheduler.outbox import Outbox
from mesh.scheduler.takeover import Takeover
from mesh.scheduler.unread import Unread
from mesh.scheduler.views import Views
from mesh.store.topology import Topology
from mesh_sdk.protocol.subjects import Subjects
from mesh_sdk.transport.bus import Bus
from mesh_sdk.transport.errors import Disconnected, StreamFull, TimedOut, TransportError

log = logging.getLogger(__name__)

LEASE_RENEW_S = 1.0
HOUSEKEEPING_S = 1.0
_AGAIN_S = 0.1
_FLUSH_S = 0.25
_MAKE_TIMEOUT_S = 2.0
_DELETE_TIMEOUT_S = 0.05
_FORGET_TIMEOUT_S = 0.3


class LeaseLost(Exception):
    """Another scheduler has taken the lease."""


class Term:
    """Everything that exists while this scheduler leads.

    Args:
        bus, subjects, topology: of the scheduler.
        follower: its state becomes the leader's.
        leadership: beats and lease.
        number: the journal sequence of this term's TermStarted.
        started_ms: the server's time of it, heard at `heard_at` of the loop's clock.
        url: for the helper that makes snapshots.
        live_runs_max: past it starts wait on disk.
        counting: the metrics.
        probe: for tests.
        poison: inputs that have broken terms of this process.
    """

    def __init__(
        self, bus: Bus, subjects: Subjects, topology: Topology, follower: Follower, leadership: Leadership, number: int, started_ms: int,
        heard_at: float, *, url: str, live_runs_max: int, counting: Counting, probe: Probe | None = None,
        poison: Poison | None = None,
    ) -> None:  # fmt: skip
        self._bus = bus
        self._subjects = subjects
        self._topology = topology
        self._leadership = leadership
        self.number = number
        self.state = state = follower.state
        self.counting = counting
        clock = CoreClock(asyncio.get_running_loop().time)
        clock.anchor(max(started_ms, state.now), heard_at)
        self._clock = clock
        self.core = Core(state, _tokens(), evaluator())
        self.lanes = Lanes(bus, subjects, number)
        self.lanes.on_written = self._written
        self.lanes.on_undeliverable = lambda token, size, limit: self.loop.tell(Undeliverable(token, size, limit))
        self.inbox = Inbox(subjects, lambda source: self.loop.arrived(source))
        self.inbox.place(follower.positions)
        self.outbox = Outbox(bus, subjects, state, self.lanes, number)
        journal = Journal(bus, subjects, f"{leadership.holder}-{number}", number)
        self.loop = Loop(self.core, journal, self.inbox, self.outbox, clock, number, live_runs_max, probe, poison)
        self._probe = probe
        self.loop.on_journaled = self._journaled
        state.changed_workers.update(state.workers)  # a new leader mirrors all of them
        self.liveness = Liveness(bus, subjects, state, topology.presence_ttl_s, self.loop.tell)
        self.views = Views(self.core, self.liveness.running, clock.now_ms)
        self.api = Api(bus, subjects, state, self.views, self.loop.ask, Unread(bus, subjects, self.inbox))
        self.freeing = Freeing(bus, subjects, self.loop, self.lanes, url, state.finished.limit, follower.snapshot_sequence)
        self._takeover = Takeover(
            bus, subjects, state, self.inbox, self.outbox, self.lanes, number, lambda: journal.sequence, list(follower.rejected)
        )
        for flow in state.flows.values():
            counting.metrics.registered(flow.name)
        self._lanes_reset = asyncio.Event()
        self._forgotten = asyncio.Event()
        self._lanes_lost = False
        self._lanes_away = False
        self._stopped = False
        self._missing: set[str] = set()
        self._tasks: set[asyncio.Task[Any]] = set()

    # ---- its life ----------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Lead until `stop`.

        Raises:
            Deposed, LeaseLost: another scheduler leads.
            Exception: the term is over for a reason of its own; its state is void.
        """
        try:
            self._spawn(self._beat())
            if not await self._open():
                return
            parts = (
                self.loop.run,
                self._write_lanes,
                self.outbox.run,
                self.liveness.run,
                self._renew,
                self._housekeep,
                self._watch_lanes,
                self._remember,
                self._resume,
            )
            for part in parts:
                self._spawn(part())
            await self.api.start()
            loop_task = next(task for task in self._tasks if task.get_name() == "run:Loop")
            while not loop_task.done():
                done, _ = await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    self._tasks.discard(task)
                    task.result()  # whatever ended a part ends the term
            await self.lanes.flush(_FLUSH_S)
        finally:
            await self._close()

    async def _open(self) -> bool:
        """Have lanes and inputs; False when it is to stop before it has them."""
        await self._take_lanes()
        try:
            if not self._stopped:
                await self.inbox.open(self._bus)
        except Disconnected:
            if not self._stopped:  # which closes the reader that is being opened
                raise
        return not self._stopped

    def _spawn(self, part: Coroutine[Any, Any, None]) -> None:
        name = getattr(part, "__qualname__", "").split(".")
        self._tasks.add(asyncio.get_running_loop().create_task(part, name=f"run:{name[0]}" if name[-1] == "run" else name[-1]))

    async def stop(self) -> None:
        """Decide no more, journal and send what was decided, tell the others to take over."""
        self._stopped = True
        await self.inbox.close()
        self.loop.stop()

    async def _close(self) -> None:
        await self.lanes.settle(_FLUSH_S)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.loop.close()
        self.lanes.stop_listening()
        await self.liveness.close()
        try:
            await self.api.close()
            await self.inbox.close()
        except TransportError as error:
            log.info("a part of the term could not say good-bye: %s", error)

    # ---- lanes ----------------------------------------------------------------------------------------------------------------

    async def _take_lanes(self) -> None:
        """Fence the lanes; where there are none, make them, once the journal says so."""
        while not self._stopped:
            try:
                if await self.lanes.lookout.find() and (older := await self.lanes.fenced()):
                    unfinished = self.state.lanes_until > 0  # a loss: nobody knows how far the leader before has come with it
                    self._lanes_lost = await self._have_lost_consumers(older) or unfinished  # to be journaled first
                elif self.state.attempts or self.state.lanes_until:
                    self._lanes_lost = True  # to be journaled first
                else:
                    await self._make_lanes()
                return
            except (LanesAway, StreamFull) as error:
                log.error("the lanes can't be fenced, they are given up, and what they hold is given out anew: %s", error)
                self._lanes_lost = True  # to be journaled before they are emptied
                self._lanes_away = isinstance(error, LanesAway)
                return
            except (LanesGone, TransportError) as error:
                log.warning("the lanes could not be fenced, tried again: %s", error)
                await asyncio.sleep(_AGAIN_S)

    async def _fence_lanes(self, after: int) -> set[str]:
        await self.lanes.take_fence(after)
        return await self.outbox.consumers.take_over(self.state.pools, self.lanes.fence)

    async def _have_lost_consumers(self, after: int) -> bool:
        """Fence the lanes. Whether a pool that was given steps has no consumer: who has seen them can't be told any more."""
        lost = [pool for pool in sorted(await self._fence_lanes(after)) if self.state.pools[pool].out]
        if lost:
            log.error("the lanes of pools %s have lost their consumers: the lanes are made anew", ", ".join(lost))
        return bool(lost)

    async def _make_lanes(self) -> None:
        """Have empty lanes, fenced."""
        await self._bus.ensure_stream(self._topology.lanes(), timeout=_MAKE_TIMEOUT_S)
        await self._fence_lanes(await self.lanes.void(self.loop.journal.sequence))
        self._forgotten.set()

    async def _remake_lanes(self) -> None:
        """Have the loss journaled, make the lanes again, and ask the workers what they hold."""
        self._lanes_reset.clear()
        self.loop.tell(LanesLost())
        await self._lanes_reset.wait()
        while True:
            try:
                if self._lanes_away:
                    await self._delete_lanes()
                await self._make_lanes()
                break
            except (LanesGone, TransportError) as error:
                log.warning("the lanes could not be made again, tried again: %s", error)
                self._lanes_away = isinstance(error, LanesAway | TimedOut)
                await asyncio.sleep(_AGAIN_S)
        self._lanes_away = False
        log.warning("the lanes were lost and made again")
        self.state.changed_workers.update(self.state.workers)
        self._takeover.send(withdrawals(self.state))
        self._ask_holding()

    def _ask_holding(self) -> None:
        """Have every worker say which attempts it holds, now that the lanes are those that were fenced."""
        question = self.loop.journal.sequence
        self.loop.tell(HoldingAsked(question))
        self._bus.publish(self._subjects.control_all, b'{"ask":"holding","question":%d}' % question)

    async def _delete_lanes(self) -> None:
        """Have the other servers forget the lanes that one of them holds, which is away: it can't answer, they can say that they have none.

        A leader that was paused right before this may delete its successor's lanes: the successor makes them again.

        Raises:
            TimedOut: there is nobody yet who could forget them.
        """
        with suppress(TimedOut):
            await self._bus.delete_stream(self._subjects.lanes_stream, timeout=_DELETE_TIMEOUT_S)
        await self._bus.stream_state(self._subjects.lanes_stream, timeout=_FORGET_TIMEOUT_S)

    async def _remember(self) -> None:
        """Have the buckets in memory there, too: what took the lanes may have taken them.

        After the lanes, which don't wait for that: a server that loses its memory later loses them, too, and they are made again.
        """
        while True:
            await self._forgotten.wait()
            self._forgotten.clear()
            try:
                await self._topology.ensure_remembered(self._bus)
            except TransportError as error:
                log.info("the buckets in memory can't be looked at now: %s", error)
                self._forgotten.set()
                await asyncio.sleep(_AGAIN_S)

    async def _write_lanes(self) -> None:
        while True:
            if self._lanes_lost:
                await self._remake_lanes()
                self._lanes_lost = False
            try:
                await self.lanes.run()
            except LanesGone as gone:
                self._lanes_lost = True
                self._lanes_away = isinstance(gone, LanesAway)

    async def _resume(self) -> None:
        await self._takeover.run(lambda: self._lanes_lost)

    def _written(self, count: int) -> None:
        self.counting.lane_messages(count)
        self._tell_probe("effects")

    def _tell_probe(self, phase: str) -> None:
        if self._probe is not None:
            self._probe(phase, [])

    def _journaled(self, records: list[Fact]) -> None:
        self.counting.journaled(records, self.state)
        for record in records:
            if type(record) is LanesReset:
                self._lanes_reset.set()

    # ---- time -------------------------------------------------------------------------------------------------------------------

    async def _beat(self) -> None:
        while True:
            self._leadership.beat(self.number, self.loop.journal.sequence)
            if self.state.changed_workers:
                self.loop.ask(self.outbox.mirror)
            await self._pause(BEAT_S)

    async def _pause(self, seconds: float) -> None:
        """Sleep; whoever has slept for much longer (a stopped process) finds out whether it still leads before it says anything."""
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        await asyncio.sleep(seconds)
        if loop.time() - until > STALL_S:
            await self.loop.journal.verify_after(STALL_S)

    async def _renew(self) -> None:
        while True:
            await self._pause(LEASE_RENEW_S)
            if not await self._leadership.renew():
                raise LeaseLost("another scheduler has taken the lease")

    async def _housekeep(self) -> None:
        while True:
            await self._pause(HOUSEKEEPING_S)
            if self.state.awaited and self.inbox.all_starts_read():
                self.loop.tell(CancelsPassed(self._clock.now_ms() - 10_000))
            await self.freeing.round()
            self._tell_probe("free")

    async def _watch_lanes(self) -> None:
        """Beside the rest: while a cluster elects, whatever else is asked of it takes its time."""
        while True:
            await self._pause(_AGAIN_S if self.lanes.lookout.silent else HOUSEKEEPING_S)
            await self._look_at_lanes()

    async def _look_at_lanes(self) -> None:
        """Their server may have died while nothing was to be written to them, and somebody may have deleted a consumer.

        That is a leader that was paused while it did, or an operator. Its lane would reach nobody.
        """
        try:
            if not self._lanes_lost and not await self.lanes.lookout.find():
                self.lanes.doubt()
            missing: set[str] = set() if self._lanes_lost else await self.outbox.consumers.missing()
        except LanesAway as error:
            self.lanes.give_up(error)
            return
        except TransportError as error:
            log.info("the lanes can't be looked at now: %s", error)
            return
        twice, self._missing = missing & self._missing, missing
        if twice and not self._lanes_lost:
            log.error("the lanes of pools %s have lost their consumers: the lanes are made anew", ", ".join(sorted(twice)))
            self.lanes.give_up(LanesGone("their consumers are gone"))


def _tokens() -> Callable[[], str]:
    """Random attempt tokens, cut from blocks of the system's randomness."""
    block: list[str] = []

    def token() -> str:
        if not block:
            text = os.urandom(4096).hex()
            block.extend(text[i : i + 16] for i in range(0, len(text), 16))
        return block.pop()

    return token
