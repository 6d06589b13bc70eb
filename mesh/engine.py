"""The scheduler, put together: every part, and the order in which they start and stop. The file to read first.

connect → streams → follow the journal → (when the leader is silent) lead a term → follow again … → stop.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import secrets
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack, suppress
from typing import Any

from mesh.core.core import Core
from mesh.core.inputs import SELF, TermBegan
from mesh.core.reach import state_of
from mesh.core.records import JOURNAL_VERSION, JournalFrame
from mesh.core.state import State
from mesh.scheduler import waits
from mesh.scheduler.counting import Counting
from mesh.scheduler.follower import Follower, Unfollowable
from mesh.scheduler.journal import Deposed, Journal, encode_frame
from mesh.scheduler.leadership import Leadership
from mesh.scheduler.loop import Poison, Probe
from mesh.scheduler.patience import Patience, Stopped
from mesh.scheduler.readiness import Readiness
from mesh.scheduler.standby import Standby
from mesh.scheduler.term import LeaseLost, Term
from mesh.scheduler.trim import HelperFailed, full, trim
from mesh.store.replicas import suited, wished
from mesh.store.topology import Topology
from mesh_sdk.errors import ConfigurationError
from mesh_sdk.observe.health import HealthServer, LoopBeat
from mesh_sdk.observe.metrics import SchedulerMetrics
from mesh_sdk.protocol.subjects import Subjects
from mesh_sdk.transport.backoff import Backoff
from mesh_sdk.transport.bus import Bus
from mesh_sdk.transport.connection import connect
from mesh_sdk.transport.errors import TransportError

log = logging.getLogger(__name__)

LIVE_RUNS_MAX = 20_000
FINISHED_RUNS_MAX = 10_000
CATCH_UP_S = 5.0
STOP_S = 5.0
"""How long the last frame and its effects may take; with the server away they would take for ever."""
_STOP_FRESH_S = 1.0
"""The same before the first frame."""
_RESIGN_S = 1.0
_AGAIN_S = 0.2
_AGAIN_S_MAX = 5.0
_BEAT_S = 0.25


class Engine:
    """One scheduler process: follows the journal, and leads when it should.

    Args:
        url: NATS servers, separated by commas.
        namespace: whose work it schedules.
        metrics_port: where `/metrics /healthz /readyz` are served; None for nowhere.
        replicas: copies of what must not be lost; None for MESH_REPLICAS, else 3 on a cluster of three or more servers, else 1.
        live_runs_max: past it, starts wait on disk; None for MESH_LIVE_RUNS_MAX, else 20,000.
        finished_runs_max: finished runs that are remembered.
        probe: told at each phase of each frame; for tests.
    """

    def __init__(
        self, url: str, namespace: str = "default", *, metrics_port: int | None = None, replicas: int | None = None,
        live_runs_max: int | None = None, finished_runs_max: int = FINISHED_RUNS_MAX, probe: Probe | None = None,
    ) -> None:  # fmt: skip
        self.id = secrets.token_hex(4)
        self._url = url
        self._subjects = Subjects(namespace)
        self._metrics_port = metrics_port
        self._replicas = replicas or wished()
        self._live_runs_max = live_runs_max or _live_runs_wished()
        self._finished_runs_max = finished_runs_max
        self._probe = probe
        self._poison: Poison = set()
        self._term: Term | None = None
        self._readiness = Readiness(lambda line: None)
        self._again = Backoff(_AGAIN_S, _AGAIN_S_MAX)
        """Between two tries to follow a journal that can't be followed."""
        self.metrics = SchedulerMetrics(self.id)

    async def run(self, on_ready: Callable[[str], None], stop: asyncio.Event) -> None:
        """Schedule until `stop` is set; then hand over and return.

        Args:
            on_ready: called once, with a line, when the streams exist and this scheduler leads, or has caught up and follows.
            stop: set it to stop.

        Raises:
            ConnectionFailed: no server is there at the start; one whose JetStream does not answer yet is waited for, and later the
                connection comes back by itself.
            ServerUnsuitable: at the start.
        """
        self._readiness = Readiness(lambda line: on_ready(f"{self.id} {line}"))
        beat = LoopBeat(asyncio.get_running_loop().time)
        beating = asyncio.create_task(_beat(beat))
        health = self._serve(beat)
        try:
            with Patience(self._url, stop, self._readiness) as patience, suppress(Stopped):
                bus = await patience.unless_stopped(self._connect(patience))
                try:
                    await self._schedule(bus, patience)
                finally:
                    await bus.close()
        finally:
            beating.cancel()
            if health is not None:
                health.stop()

    async def _connect(self, patience: Patience) -> Bus:
        """A server that is there may wait for the others of its cluster: so does this scheduler."""
        return await connect(self._url.split(","), name=f"mesh-scheduler-{self.id}", on_waiting=patience.say)

    async def _schedule(self, bus: Bus, patience: Patience) -> None:
        """Open what is needed, then follow and lead until it is to stop."""
        follower = Follower(bus, self._subjects, self._finished_runs_max)
        leadership = Leadership(bus, self._subjects, self.id)
        leadership.on_leader = self._heard
        self._watch(bus, follower, leadership)
        standby = Standby(bus, self._subjects, self.id, follower, lambda: self._term is not None)
        async with AsyncExitStack() as parts:
            topology = await patience.unless_stopped(self._open(bus, patience, follower))
            for what in (lambda: parts.enter_async_context(standby), leadership.start):
                await patience.unless_stopped(patience.until_done("the server", what))
            try:
                await self._alternate(bus, topology, follower, leadership, patience)
            except Stopped:
                await _in_time(leadership.give_back())
                raise
            finally:
                await follower.stop()

    async def _open(self, bus: Bus, patience: Patience, follower: Follower) -> Topology:
        """Have the streams, and follow the journal."""

        async def ensure() -> Topology:
            replicas, presence_ttl_s = await suited(bus, self._subjects, self._replicas)
            topology = Topology(self._subjects, replicas, presence_ttl_s=presence_ttl_s)
            await topology.ensure(bus)
            return topology

        topology = await patience.until_done("JetStream", ensure)
        await patience.until_done("the journal", follower.start)
        return topology

    def _heard(self, holder: str, term: int) -> None:
        self.metrics.leader_changed()
        log.info("scheduler %s leads in term %d", holder, term)
        self._readiness.say(f"follows {holder}")

    async def _alternate(self, bus: Bus, topology: Topology, follower: Follower, leadership: Leadership, patience: Patience) -> None:
        """Follow, lead, follow again."""
        while not patience.stopping.done():
            if not self._readiness.doubtful:
                await patience.unless_stopped(self._vacancy(leadership, follower))
            term = await patience.unless_stopped(self._try(bus, topology, follower, leadership, patience))
            if term is None:
                continue
            self._term = term
            self._readiness.say(f"leads term {term.number}")
            self._readiness.sure()
            await self._lead(term, leadership, patience.stopping)
            self._term = term = None
            if not patience.stopping.done():
                await patience.unless_stopped(self._follow_again(follower))

    async def _vacancy(self, leadership: Leadership, follower: Follower) -> None:
        """Return when this scheduler should try to lead, or can't follow any more."""
        waits = [asyncio.create_task(leadership.vacancy()), asyncio.create_task(follower.failure())]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    async def _follow_again(self, follower: Follower) -> None:
        """Follow with a state of its own, and free the one before.

        That is a ring of runs and steps, which only the collector frees, and as it is set it might not look for hours. It takes
        its time now: nobody waits for a scheduler that does not lead.
        """
        backoff = Backoff(_AGAIN_S, _AGAIN_S_MAX)
        while True:
            try:
                await follower.start()
                gc.collect()
                return
            except TransportError as error:
                log.warning("the journal can't be followed yet: %s", error)
                self._readiness.doubt(f"the journal can't be followed yet: {error}")
                await asyncio.sleep(backoff.next())

    async def _try(self, bus: Bus, topology: Topology, follower: Follower, leadership: Leadership, patience: Patience) -> Term | None:
        """Take the lease, catch up, and fence the journal by writing TermStarted. None when somebody else leads."""
        try:
            if await self._caught_up(bus, follower) is None:  # before the lease: taking it deposes a leader that may be able
                return None
            self._again.reset()
            self._readiness.sure()
            if not leadership.vacant():
                return None  # it was only to be made sure that this scheduler follows
            await self._make_room(bus)
            if not await leadership.take_lease():
                return None
            end = await self._caught_up(bus, follower)
            if end is not None:
                return await self._begin(bus, topology, follower, leadership, end)
            await leadership.give_back()
        except Deposed:
            log.info("another scheduler was faster")
            await leadership.give_back()
            await self._follow_again(follower)
        except Unfollowable as error:
            log.error("the journal can't be followed: %s; starting again from the newest snapshot", error)
            self._readiness.doubt(f"the journal can't be followed: {error}")
            await asyncio.sleep(self._again.next())
            await self._follow_again(follower)
        except (TransportError, HelperFailed, OSError) as error:
            patience.say(f"leading was put off: {error}")
            await asyncio.sleep(_AGAIN_S)
            if not follower.follows:
                await self._follow_again(follower)
        return None

    async def _make_room(self, bus: Bus) -> None:
        """A journal that has no room for one frame more refuses every leader for ever: whoever wants to lead trims it first."""
        if await full(bus, self._subjects):
            log.warning("the journal is full: it is trimmed before anybody leads")
            await trim(bus, self._subjects, self._url, self._finished_runs_max)

    async def _caught_up(self, bus: Bus, follower: Follower) -> int | None:
        """The end of the journal, once this scheduler has read that far; None when it can't in time."""
        last = await bus.last(self._subjects.journal_stream, self._subjects.journal)
        end = last.sequence if last is not None else 0
        if await follower.wait_for(end, CATCH_UP_S):
            return end
        log.warning("this scheduler has not caught up with the journal: %d of %d", follower.sequence, end)
        return None

    async def _begin(self, bus: Bus, topology: Topology, follower: Follower, leadership: Leadership, end: int) -> Term:
        """What was written behind `end` meanwhile, the journal's answer tells."""
        await follower.stop()
        state = follower.state
        core = Core(state, lambda: "")
        core.decide(TermBegan(self.id), SELF)
        heard_at = asyncio.get_running_loop().time()
        journal = Journal(bus, self._subjects, f"{self.id}-{end}", end)
        journal.strays.on_buried = self._stray
        frame = JournalFrame(JOURNAL_VERSION, end + 1, state.now, follower.positions, core.take())  # type: ignore[arg-type]
        number = await journal.settle(journal.send(encode_frame(frame)))
        state.term = number
        stored = await bus.get(self._subjects.journal_stream, number)
        log.info("scheduler %s leads in term %d", self.id, number)
        self.metrics.leader_changed()
        term = Term(
            bus, self._subjects, topology, follower, leadership, number, stored.time_ms if stored else 0, heard_at,
            url=self._url, live_runs_max=self._live_runs_max, counting=Counting(self.metrics), probe=self._probe, poison=self._poison,
        )  # fmt: skip
        term.loop.journal.strays.on_buried = self._stray
        return term

    def _stray(self) -> None:
        self.metrics.dead_letter("journal")

    async def _lead(self, term: Term, leadership: Leadership, stopping: asyncio.Task[bool]) -> None:
        """Run the term to its end."""
        running = asyncio.create_task(term.run())
        await asyncio.wait((running, stopping), return_when=asyncio.FIRST_COMPLETED)
        if not running.done():
            await term.stop()
            await self._end(term, running)
        try:
            if not running.cancelled():
                await running
            await _in_time(leadership.resign(term.number, term.loop.journal.sequence))
        except (Deposed, LeaseLost) as error:
            log.warning("term %d is over: %s", term.number, error)
            leadership.deposed()
        except Exception:  # a defect, or an input that can't be decided: the state is void, the journal is not
            log.exception("term %d has broken", term.number)

    async def _end(self, term: Term, running: asyncio.Task[None]) -> None:
        """Give a term that was told to stop its time, which is short while it has written nothing so far."""
        limit_s = _STOP_FRESH_S if term.loop.journal.fresh else STOP_S
        await asyncio.wait((running,), timeout=limit_s)
        if running.cancel():
            log.error("term %d could not be ended in order within %g s: its successor goes on from the journal", term.number, limit_s)
            await asyncio.wait((running,))

    # ---- watching it ----------------------------------------------------------------------------------------------------

    def _serve(self, beat: LoopBeat) -> HealthServer | None:
        if self._metrics_port is None:
            return None
        server = HealthServer(self._metrics_port, self.metrics.registry, beat.check, self._readiness.check)
        server.start()
        return server

    def _watch(self, bus: Bus, follower: Follower, leadership: Leadership) -> None:
        def state() -> State:
            return self._term.state if self._term is not None else follower.state

        def by_state() -> dict[str, float]:
            counts = {"active": 0.0, "paused": 0.0, "draining": 0.0}
            for worker in list(state().workers.values()):
                counts[state_of(worker)] += 1
            return counts

        self.metrics.watch(
            leader=lambda: float(self._term is not None),
            term=lambda: float(self._term.number if self._term is not None else leadership.term),
            journal_sequence=lambda: float(self._term.loop.journal.sequence if self._term is not None else follower.sequence),
            nats_connected=lambda: float(bus.connected),
            queue_depth=lambda: float(state().waiting),
            runs_in_progress=lambda: float(len(state().runs)),
            group_runs_waiting=lambda: float(waits.in_groups(state())),
            rate_steps_waiting=lambda: float(waits.on_rates(state())),
            steps_without_worker=lambda: float(waits.for_no_worker(state())),
            workers=by_state,
            pool_slots=lambda: {pool.id: float(pool.capacity) for pool in list(state().pools.values())},
            pool_slots_used=lambda: {pool.id: float(pool.busy + len(pool.out)) for pool in list(state().pools.values())},
        )


def _live_runs_wished() -> int:
    """MESH_LIVE_RUNS_MAX, else the usual window."""
    text = os.environ.get("MESH_LIVE_RUNS_MAX", "").strip()
    if text and not (text.isascii() and text.isdigit() and int(text)):
        raise ConfigurationError(f"MESH_LIVE_RUNS_MAX is {text!r}: use a whole number of runs, 1 or more, or leave it away")
    return int(text or LIVE_RUNS_MAX)


async def _in_time(farewell: Coroutine[Any, Any, None]) -> None:
    """Say good-bye, to a server that may be away."""
    try:
        async with asyncio.timeout(_RESIGN_S):
            await farewell
    except TimeoutError:
        log.info("the lease was not given back within %g s, it expires by itself", _RESIGN_S)


async def _beat(beat: LoopBeat) -> None:
    while True:
        beat.beat()
        await asyncio.sleep(_BEAT_S)
