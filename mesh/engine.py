"""The scheduler, put together: every part, and the order in which they start and stop. The file to read first.

connect → streams → follow the journal → (when the leader is silent) lead a term → follow again … → stop.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
from collections.abc import Callable

from mesh.core.core import Core
from mesh.core.inputs import SELF, TermBegan
from mesh.core.records import JOURNAL_VERSION, JournalFrame
from mesh.core.state import State
from mesh.scheduler.counting import Counting
from mesh.scheduler.follower import Follower, Unfollowable
from mesh.scheduler.journal import Deposed, Journal, encode_frame
from mesh.scheduler.leadership import Leadership
from mesh.scheduler.loop import Poison, Probe
from mesh.scheduler.standby import Standby
from mesh.scheduler.term import LeaseLost, Term
from mesh.scheduler.trim import HelperFailed, full, trim
from mesh.store.topology import Topology
from mesh_sdk.errors import ConfigurationError
from mesh_sdk.observe.health import HealthServer, LoopBeat
from mesh_sdk.observe.metrics import SchedulerMetrics
from mesh_sdk.protocol.subjects import Subjects
from mesh_sdk.transport.bus import Bus
from mesh_sdk.transport.connection import connect
from mesh_sdk.transport.errors import TransportError

log = logging.getLogger(__name__)

LIVE_RUNS_MAX = 20_000
FINISHED_RUNS_MAX = 10_000
CATCH_UP_S = 5.0
STOP_S = 5.0
"""How long the last frame and its effects may take; with the server away they would take for ever."""
_AGAIN_S = 0.2
_BEAT_S = 0.25


class Engine:
    """One scheduler process: follows the journal, and leads when it should.

    Args:
        url: NATS servers, separated by commas.
        namespace: whose work it schedules.
        metrics_port: where `/metrics /healthz /readyz` are served; None for nowhere.
        replicas: copies of every stream; None for MESH_REPLICAS, else 3 on a cluster of three or more servers, else 1.
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
        self._replicas = replicas or _replicas_wished()
        self._live_runs_max = live_runs_max or _live_runs_wished()
        self._finished_runs_max = finished_runs_max
        self._probe = probe
        self._poison: Poison = set()
        self._term: Term | None = None
        self.metrics = SchedulerMetrics(self.id)

    async def run(self, on_ready: Callable[[str], None], stop: asyncio.Event) -> None:
        """Schedule until `stop` is set; then hand over and return.

        Args:
            on_ready: called once, with a line, when the streams exist and this scheduler leads or follows.
            stop: set it to stop.

        Raises:
            ConnectionFailed, ServerUnsuitable: at the start; later the connection comes back by itself.
        """
        bus = await connect(self._url.split(","), name=f"mesh-scheduler-{self.id}")
        health = None
        beat = LoopBeat(asyncio.get_running_loop().time)
        beating = asyncio.create_task(_beat(beat))
        try:
            topology = Topology(self._subjects, self._replicas or (3 if bus.cluster_size >= 3 else 1))
            await topology.ensure(bus)
            follower = Follower(bus, self._subjects, self._finished_runs_max)
            await follower.start()
            leadership = Leadership(bus, self._subjects, self.id)
            ready = _Once(lambda line: on_ready(f"{self.id} {line}"))
            leadership.on_leader = lambda holder, term: self._heard(ready, holder, term)
            self._watch(bus, follower, leadership)
            health = self._serve(beat, ready)
            async with Standby(bus, self._subjects, self.id, follower, lambda: self._term is not None):
                await leadership.start()
                await self._alternate(bus, topology, follower, leadership, ready, stop)
        finally:
            beating.cancel()
            if health is not None:
                health.stop()
            await bus.close()

    def _heard(self, ready: _Once, holder: str, term: int) -> None:
        self.metrics.leader_changed()
        log.info("scheduler %s leads in term %d", holder, term)
        ready.say(f"follows {holder}")

    async def _alternate(
        self, bus: Bus, topology: Topology, follower: Follower, leadership: Leadership, ready: _Once, stop: asyncio.Event
    ) -> None:
        """Follow, lead, follow again."""
        stopping = asyncio.create_task(stop.wait())
        while not stop.is_set():
            vacancy = asyncio.create_task(leadership.vacancy())
            await asyncio.wait((vacancy, stopping), return_when=asyncio.FIRST_COMPLETED)
            if not vacancy.done():
                vacancy.cancel()
                break
            term = await self._try(bus, topology, follower, leadership)
            if term is None:
                continue
            self._term = term
            ready.say(f"leads term {term.number}")
            await self._lead(term, leadership, stopping)
            self._term = None
            if not stop.is_set():
                await self._follow_again(follower)
        stopping.cancel()
        await follower.stop()

    async def _follow_again(self, follower: Follower) -> None:
        while True:
            try:
                await follower.start()
                return
            except TransportError as error:
                log.warning("the journal can't be followed yet: %s", error)
                await asyncio.sleep(_AGAIN_S)

    async def _try(self, bus: Bus, topology: Topology, follower: Follower, leadership: Leadership) -> Term | None:
        """Take the lease, catch up, and fence the journal by writing TermStarted. None when somebody else leads."""
        try:
            if await self._caught_up(bus, follower) is None:  # before the lease: taking it deposes a leader that may be able
                return None
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
            await self._follow_again(follower)
            await asyncio.sleep(_AGAIN_S)
        except (TransportError, HelperFailed, OSError) as error:
            log.warning("leading was put off: %s", error)
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
        await follower.stop()
        if follower.sequence != end:
            raise Deposed("the journal went on meanwhile")
        state = follower.state
        core = Core(state, lambda: "")
        core.decide(TermBegan(self.id), SELF)
        heard_at = asyncio.get_running_loop().time()
        journal = Journal(bus, self._subjects, f"{self.id}-{end}", end)
        frame = JournalFrame(JOURNAL_VERSION, end + 1, state.now, follower.positions, core.take())  # type: ignore[arg-type]
        number = await journal.settle(journal.send(encode_frame(frame)))
        state.term = number
        stored = await bus.get(self._subjects.journal_stream, number)
        log.info("scheduler %s leads in term %d", self.id, number)
        self.metrics.leader_changed()
        return Term(
            bus, self._subjects, topology, follower, leadership, number, stored.time_ms if stored else 0, heard_at,
            url=self._url, live_runs_max=self._live_runs_max, counting=Counting(self.metrics), probe=self._probe, poison=self._poison,
        )  # fmt: skip

    async def _lead(self, term: Term, leadership: Leadership, stopping: asyncio.Task[bool]) -> None:
        """Run the term to its end."""
        running = asyncio.create_task(term.run())
        await asyncio.wait((running, stopping), return_when=asyncio.FIRST_COMPLETED)
        if not running.done():
            await term.stop()
            await asyncio.wait((running,), timeout=STOP_S)
            if not running.done():
                log.error("term %d could not be ended in order within %g s: its successor goes on from the journal", term.number, STOP_S)
                running.cancel()
                await asyncio.wait((running,))
                return
        try:
            await running
            await leadership.resign(term.number, term.loop.journal.sequence)
        except (Deposed, LeaseLost) as error:
            log.warning("term %d is over: %s", term.number, error)
            leadership.deposed()
        except Exception:  # a defect, or an input that can't be decided: the state is void, the journal is not
            log.exception("term %d has broken", term.number)

    # ---- watching it ----------------------------------------------------------------------------------------------------

    def _serve(self, beat: LoopBeat, ready: _Once) -> HealthServer | None:
        if self._metrics_port is None:
            return None
        server = HealthServer(self._metrics_port, self.metrics.registry, beat.check, ready.check)
        server.start()
        return server

    def _watch(self, bus: Bus, follower: Follower, leadership: Leadership) -> None:
        def state() -> State:
            return self._term.state if self._term is not None else follower.state

        def by_state() -> dict[str, float]:
            counts = {"active": 0.0, "draining": 0.0}
            for worker in list(state().workers.values()):
                counts["draining" if worker.draining else "active"] += 1
            return counts

        self.metrics.watch(
            leader=lambda: float(self._term is not None),
            term=lambda: float(self._term.number if self._term is not None else leadership.term),
            journal_sequence=lambda: float(self._term.loop.journal.sequence if self._term is not None else follower.sequence),
            nats_connected=lambda: float(bus.connected),
            queue_depth=lambda: float(state().waiting),
            runs_in_progress=lambda: float(len(state().runs)),
            workers=by_state,
            pool_slots=lambda: {pool.id: float(pool.capacity) for pool in list(state().pools.values())},
            pool_slots_used=lambda: {pool.id: float(pool.busy + len(pool.out)) for pool in list(state().pools.values())},
        )


class _Once:
    """Says a line once."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self.said = False

    def say(self, line: str) -> None:
        if not self.said:
            self.said = True
            self._tell(line)

    def check(self) -> tuple[bool, str]:
        return self.said, "leads or follows" if self.said else "neither leads nor follows yet"


def _replicas_wished() -> int:
    """MESH_REPLICAS, 0 when it is not set."""
    text = os.environ.get("MESH_REPLICAS", "").strip()
    if text and text not in ("1", "3", "5"):
        raise ConfigurationError(f"MESH_REPLICAS is {text!r}: use 1, 3 or 5, or leave it away")
    return int(text or 0)


def _live_runs_wished() -> int:
    """MESH_LIVE_RUNS_MAX, else the usual window."""
    text = os.environ.get("MESH_LIVE_RUNS_MAX", "").strip()
    if text and not (text.isascii() and text.isdigit() and int(text)):
        raise ConfigurationError(f"MESH_LIVE_RUNS_MAX is {text!r}: use a whole number of runs, 1 or more, or leave it away")
    return int(text or LIVE_RUNS_MAX)


async def _beat(beat: LoopBeat) -> None:
    while True:
        beat.beat()
        await asyncio.sleep(_BEAT_S)
