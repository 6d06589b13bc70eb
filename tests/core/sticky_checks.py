"""What sticky runs promise, asked of every decision of a world and of its whole journal."""

from __future__ import annotations

from mesh.core import records as facts
from mesh.core.core import Core
from mesh.core.image import encode_image, image
from mesh.core.inputs import SELF, Sender, TimePassed
from mesh.core.loading import load
from mesh.core.records import NEVER, Fact
from mesh.core.state import State
from mesh.core.step import OUT, READY, Step
from mesh_sdk.protocol import records as wire
from tests.core.comparing import may_go_before, waited
from tests.core.holder import Holder
from tests.core.world import World


class StickyWorld(World):
    """A world that looks at each decision: who got what, and who was passed over."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.homes: dict[str, set[str]] = {}
        """HARD run → every worker that a step of it was ever given to."""
        self.failures: dict[tuple[str, int], int] = {}
        """Attempts that the user's code failed, and that were tried again."""

    def decide(self, input: object, sender: Sender = SELF) -> list[Fact]:
        waiting = [(step, step.mark, step.run.worker) for run in self.state.runs.values() for step in run.steps if step.state is READY]
        decided = super().decide(input, sender)
        released = [fact for fact in decided if isinstance(fact, facts.StepReleased)]
        if not any(isinstance(fact, facts.StepAccepted) for fact in decided):
            self._check_room(released)
        self._check_order_of_bound(waiting, released)
        if isinstance(input, TimePassed):
            self._check_times()
        return decided

    def _follow(self, journaled: list[Fact]) -> None:
        """What is journaled, whoever decided it."""
        super()._follow(journaled)
        for fact in journaled:
            if isinstance(fact, facts.StepReleased):
                self._check_home(fact)
            elif isinstance(fact, facts.StepFailed) and fact.again_at != NEVER and fact.kind != facts.KIND_LOST:
                place = (fact.run, fact.step)
                self.failures[place] = self.failures.get(place, 0) + 1

    def take(self, holder: Holder) -> list[wire.Assign]:
        """Neither moves nor losses use up the user's retries."""
        taken = super().take(holder)
        for order in taken:
            assert order.retry_count <= self.failures.get((order.run, order.step), 0)
        return taken

    def _check_home(self, fact: facts.StepReleased) -> None:
        run = self.state.find(fact.run)
        assert run is not None
        if not run.flow.sticky or run.steps[fact.step].is_key:  # those go anywhere
            return
        assert fact.worker, "a sticky step went to a shared lane"
        if run.flow.sticky == "HARD":
            homes = self.homes.setdefault(fact.run, set())
            homes.add(fact.worker)
            assert len(homes) == 1, f"steps of HARD run {fact.run} were given to {sorted(homes)}"

    def _check_room(self, released: list[facts.StepReleased]) -> None:
        """Both lanes together never give a worker, or a pool, more than it has; and a worker nothing that it can't run."""
        for fact in released:
            worker = self.state.workers.get(fact.worker)
            run = self.state.find(fact.run)
            assert worker is None or run is None or run.flow.actions[fact.step] in worker.pool.actions
            assert worker is None or worker.gone or worker.used + len(worker.reserved) <= worker.slots, (
                f"{worker.id} got more than its slots"
            )
            pool = self.state.pools.get(fact.pool)
            if worker is not None and worker.draining:
                assert not waiting_for_nobody(self.state, fact), "a draining worker begins what nobody there waits for"
            else:
                assert pool is None or pool.free >= 0

    def _check_order_of_bound(self, waiting: list[tuple[Step, int, str]], released: list[facts.StepReleased]) -> None:
        """Among the steps that wait for one worker, priority and age decide."""
        left = [step for step, mark, _ in waiting if step.state is READY and step.mark == mark and step.run.flow.sticky]
        for fact in released:
            attempt = self.state.attempts.get(fact.token)
            if attempt is None or attempt.worker is None or attempt.worker.draining:  # that one takes no more but some children
                continue
            for step in left:
                if step.run.worker == fact.worker and not step.run.loose and step.action in attempt.pool.actions:  # type: ignore[union-attr]
                    right = may_go_before(attempt.step, step, waited(self.state, released), self.state.now)
                    assert right, f"{step.action} was passed over by {attempt.step.action}"

    def _check_times(self) -> None:
        """Nothing waits or runs past its time."""
        now = self.state.now
        for run in self.state.runs.values():
            for step in run.steps:
                if step.current is not None and step.current.until:
                    assert step.current.until > now, "an attempt has outlived its timeout"
                moves_at = max(step.sticky_at, step.let_go_at) + run.flow.definition.sticky_timeout_ms
                if step.state is READY and step.sticky_at and not (run.placed or run.loose or step.parked):
                    assert moves_at > now, "SOFT has waited too long"
                if step.state == OUT and step.sticky_at and not step.recalled:
                    assert moves_at > now, "an assignment has lain too long"
                timeout = run.flow.steps[step.index].schedule_timeout_ms or (300_000 if run.flow.sticky == "HARD" else 0)
                if step.state is READY and timeout:
                    assert step.ready_at + timeout > now, "the schedule timeout is over"

    def check_settled(self) -> None:
        """Nothing waits in vain: whoever took over now, or loaded an image, would find nothing left to decide."""
        loaded = load(encode_image(image(self.state)), self.finished_max)
        for state in (loaded, self.state):
            heir = Core(state, lambda: "-")
            heir.begin(self.state.now)
            left = heir.take()
            if any(self.may_be_left(fact) for fact in left):
                return  # what follows from that is not to be compared
            assert not left, f"left undecided: {left[:3]}"

    def may_be_left(self, fact: Fact) -> bool:
        """Whether it is right that it was not decided yet."""
        return False

    def check_kept(self) -> None:
        """No worker keeps anything for a run that has ended or belongs to another, once it has read its lane."""
        for holder in self.workers.values():
            if not self.private.get((holder.id, holder.incarnation)):
                for id in holder.kept:
                    run = self.state.runs.get(id)
                    assert run is not None, f"{holder.id} still keeps what it had for run {id}, which has ended"
                    assert run.loose or run.worker == holder.id, f"{holder.id} still keeps what it had for run {id}, which has moved"


def waiting_for_nobody(state: State, fact: facts.StepReleased) -> bool:
    """Whether what was released is other than a step of a HARD child whose parent's step runs on that very worker."""
    run = state.find(fact.run)
    parent = state.runs.get(run.parent[0]) if run is not None and run.parent is not None and run.flow.sticky == "HARD" else None
    return parent is None or run is None or run.parent is None or parent.steps[run.parent[1]].worker != fact.worker
