"""A state machine of the world: hypothesis looks for the sequence of things that breaks a promise, and shortens it."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from mesh_sdk.protocol import records as wire
from tests.core.holder import Holder
from tests.core.lives import TAKERS, WORKFLOWS
from tests.core.lost_lanes import lanes_lost
from tests.core.world import World

FINISHED_MAX = 5
names = st.sampled_from([workflow.name for workflow in WORKFLOWS])
picks = st.integers(0, 20)
workers = st.sampled_from(["w1", "w2", "w3"])


class Mesh(RuleBasedStateMachine):
    """Three workers at most, a small window of finished runs."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World(finished_max=FINISHED_MAX)
        self.runs: list[str] = []
        self.events = 0

    def _holder(self, pick: int) -> Holder:
        holders = list(self.world.workers.values())
        return holders[pick % len(holders)]

    def _running(self, pick: int) -> tuple[Holder, wire.Assign] | None:
        running = [(holder, order) for holder in self.world.workers.values() for order in holder.running.values()]
        return running[pick % len(running)] if running else None

    @rule(id=workers, slots=st.integers(1, 3), count=st.integers(1, len(WORKFLOWS)))
    def join(self, id: str, slots: int, count: int) -> None:
        self.world.join(id, WORKFLOWS[:count], slots)

    @rule(workflow=names, priority=st.sampled_from([0, 1, 9]), key=st.sampled_from(["", "", "k"]), delay_ms=st.sampled_from([0, 0, 100]))
    def start(self, workflow: str, priority: int, key: str, delay_ms: int) -> None:
        self.runs.append(self.world.start(workflow, priority=priority, key=key, delay_ms=delay_ms))

    @rule(repeated=st.booleans())
    def event(self, repeated: bool) -> None:
        self.events += not repeated
        self.world.event("e.d", max(1, self.events))

    @precondition(lambda self: self.runs)
    @rule(pick=picks)
    def cancel(self, pick: int) -> None:
        self.world.cancel(self.runs[pick % len(self.runs)])

    @precondition(lambda self: self.world.workers)
    @rule(pick=picks)
    def take(self, pick: int) -> None:
        self.world.take(self._holder(pick))

    @rule(pick=picks, kind=st.sampled_from(["", "", "", wire.FAILED_ERROR, wire.FAILED_TIMEOUT]))
    def answer(self, pick: int, kind: str) -> None:
        found = self._running(pick)
        if found and kind:
            self.world.fail(*found, kind)
        elif found:
            self.world.finish(*found)

    @rule(pick=picks)
    def accept(self, pick: int) -> None:
        found = self._running(pick)
        if found:
            self.world.accept(*found)

    @rule(pick=picks, reason=st.sampled_from([wire.RETURNED_FULL, wire.RETURNED_DRAINING, wire.RETURNED_UNKNOWN_ACTION]))
    def give_back(self, pick: int, reason: str) -> None:
        found = self._running(pick)
        if found:
            self.world.give_back(*found, reason)

    @rule(pick=picks)
    def lend_or_resume(self, pick: int) -> None:
        found = self._running(pick)
        if found and found[1].token not in found[0].lent:
            self.world.lend(*found)
        elif found and found[0].room > 0:
            self.world.resume(*found)

    @rule(pick=picks, position=st.sampled_from("12"), sticky=st.booleans())
    def spawn(self, pick: int, position: str, sticky: bool) -> None:
        found = self._running(pick)
        if found:
            self.world.spawn(*found, "soft", position, sticky=sticky)

    @precondition(lambda self: self.world.workers)
    @rule(pick=picks)
    def kill(self, pick: int) -> None:
        self.world.kill(self._holder(pick))

    @precondition(lambda self: self.world.workers)
    @rule(pick=picks)
    def leave(self, pick: int) -> None:
        self.world.leave(self._holder(pick))

    @rule(id=workers, what=st.sampled_from([wire.PAUSE, wire.RESUME, wire.RESUME, wire.DRAIN]))
    def steer(self, id: str, what: str) -> None:
        self.world.decide(wire.Steer(id, what))

    @rule(ms=st.sampled_from([1, 250, 5000, 70_000, 300_000]))
    def time(self, ms: int) -> None:
        self.world.pass_time(ms)

    @rule()
    def lanes(self) -> None:
        lanes_lost(self.world)

    @precondition(lambda self: self.world.workers)
    @rule(pick=picks, cut=st.floats(0, 1), taker=st.sampled_from(TAKERS))
    def leader_dies(self, pick: int, cut: float, taker: str) -> None:
        with self.world.leader_dies(cut, taker):
            self.start("one", 0, "", 0)
            self.answer(pick, "")
            self.kill(pick)
            self.event(False)

    @invariant()
    def nothing_is_doubled(self) -> None:
        self.world.check_once()

    @invariant()
    def the_ledger_is_what_workers_hold(self) -> None:
        self.world.check_ledger()

    @invariant()
    def nothing_waits_in_vain(self) -> None:
        self.world.core.settle()
        assert not self.world.core.take()

    @invariant()
    def windows_are_bounded(self) -> None:
        finished = self.world.state.finished
        assert len(finished) <= FINISHED_MAX
        assert all(run.parent is not None and run.parent[0] in self.world.state.runs for run in finished.kept.values())
        known = {run.id for run in finished.all()} | set(self.world.state.runs)
        assert set(self.world.state.keys.values()) <= known

    def teardown(self) -> None:
        self.world.check_followers()


TestMesh = Mesh.TestCase
