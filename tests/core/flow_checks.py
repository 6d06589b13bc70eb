"""What flow control promises, asked of every moment of a world: what workers really run, and what was released when."""

from __future__ import annotations

from collections import Counter

from mesh.core import records as facts
from mesh.core.inputs import SELF, Sender
from mesh.core.labels import matches
from mesh.core.limits import keys_of
from mesh.core.parked import POLL_MS
from mesh.core.placement import wish_of
from mesh.core.rates import HELD_MS_MAX
from mesh.core.records import Fact
from mesh.core.step import READY, Step
from tests.core.sticky_checks import StickyWorld

NANOSECONDS = 1_000_000


class FlowWorld(StickyWorld):
    """A world that looks at groups, rates, labels and slots."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.buckets: dict[str, tuple[float, float]] = {}
        """Rate → (core time in milliseconds, units in its bucket then)."""
        self.held: dict[str, int] = {}
        """Rate → milliseconds that may be made up for."""

    def decide(self, input: object, sender: Sender = SELF) -> list[Fact]:
        decided = super().decide(input, sender)
        if self.pending is None:
            self.check_places()
        return decided

    def _journaled(self, fact: Fact) -> None:
        super()._journaled(fact)
        if isinstance(fact, facts.StepReleased):
            self._check_release(fact)
        elif isinstance(fact, facts.RatesHeld):
            self._hold(fact.ms)

    def _check_release(self, fact: facts.StepReleased) -> None:
        run, worker = self.standby.find(fact.run), self.standby.workers.get(fact.worker)
        assert run is not None
        step = run.steps[fact.step]
        if not step.is_key:
            if worker is not None:
                labels = [wish for wish in wish_of(step).labels if wish.required]
                assert all(matches(wish, worker.labels) for wish in labels), f"{step.action} went to {worker.id}, {worker.labels}"
                assert worker.slots >= wish_of(step).slots, f"{worker.id} has too few slots"
            else:
                assert not wish_of(step).labels, "a step that wants labels went to a shared lane"
            self._pour(step)

    def _pour(self, step: Step) -> None:
        """A leaking bucket for each rate: another way to say what GCRA says."""
        keys = keys_of(step)
        for key, limit, per_ms, units in keys.rates if keys is not None else ():
            at, level = self.buckets.get(key, (0, 0.0))
            now = self.standby.now
            held = self.held.get(key, 0) * limit / per_ms
            level = max(-held, level - (now - at) * limit / per_ms)
            if level <= -held:
                self.held.pop(key, None)
            level += units
            assert level <= max(limit // 5, units, 1) + 1e-6, f"rate {key}: {level} units in its bucket"
            self.buckets[key] = now, level

    def _hold(self, ms: int) -> None:
        """What leaked while nobody led may be poured in later."""
        for key in self.buckets:
            self.held[key] = min(HELD_MS_MAX, self.held.get(key, 0) + ms)

    def check_places(self) -> None:
        """Of no key more runs, or attempts, run on workers than its limit says: those of cancelled runs count until they end."""
        seen: dict[tuple[str, str], dict[tuple[str, int, str], int]] = {}
        for holder in self.workers.values():
            for token, order in holder.running.items():
                run = self.state.find(order.run)
                if run is None or run.keyed is None or run.flow.steps[order.step].slots == 0:
                    continue
                places = [
                    (name, key, limit, (run.id, -1, "")) for (name, limit), key in zip(run.flow.limits, run.keyed.groups, strict=True)
                ]
                keys = keys_of(run.steps[order.step])
                if keys is not None:
                    limits = zip(run.flow.step_limits[order.step], keys.groups, strict=True)
                    own = {place[:2] for place in places}
                    places += [(name, key, limit, (run.id, order.step, token)) for (name, limit), key in limits if (name, key) not in own]
                for name, key, limit, who in places:
                    seen.setdefault((name, key), {})[who] = limit.max_runs
        for place, runs in seen.items():
            assert len(runs) <= max(runs.values()), f"{len(runs)} run in group {place}: {list(runs)}"

    def check_slots(self) -> None:
        """Nobody runs more than it has."""
        for holder in self.workers.values():
            assert holder.room >= 0, f"{holder.id} runs more than its slots"

    def may_be_left(self, fact: Fact) -> bool:
        """Behind a step that finds no slot for itself others wait for the same rate, for a moment; what is kept is not theirs."""
        run = self.state.runs.get(fact.run) if isinstance(fact, facts.StepReleased) else None
        if run is None or not isinstance(fact, facts.StepReleased) or (keys := keys_of(run.steps[fact.step])) is None:
            return False
        if any(rate[0] in self.state.limits.lines and self.state.limits.lines[rate[0]].units for rate in keys.rates):
            return True
        asked = [at for rate in keys.rates if (at := self.state.timers._rates.get(rate[0])) is not None]
        return bool(asked) and self.state.now < min(asked) <= self.state.now + POLL_MS

    def check_out(self) -> None:
        """What a run counts as out is out."""
        out = Counter(attempt.step.run.id for attempt in self.state.attempts.values())
        for run in self.state.runs.values():
            assert not run.flow.keyed or run.out == out[run.id], f"run {run.id} counts {run.out} attempts, {out[run.id]} are out"
        for group in self.state.limits.groups:
            for ticket in group.placed:
                assert not ticket.over or out[ticket.run], f"a place of group {group.id} is kept for nobody: {ticket.run}"

    def check_nobody_is_forgotten(self) -> None:
        """Nobody waits in the line of a group who could go on now, nor for longer than its workflow says."""
        for group in self.state.limits.groups:
            assert group.full or group.stalled or not group.actions, f"group {group.id} has a place, and nobody looks who waits for it"
        for run in self.state.runs.values():
            timeout = run.flow.definition.admission_timeout_ms
            ticket = run.ticket
            if ticket is not None and not ticket.placed:
                assert not timeout or run.wanted_at + timeout > self.state.now, f"run {run.id} waits for its place for too long"
                assert any(group.full for group in ticket.groups), f"run {run.id} waits for places that are free"
            for step in run.steps:
                if step.state is READY and step.parked and step.ticket is not None and step.ticket.waits_for_place:
                    full = any(group.full for group in step.ticket.groups)
                    assert full or not self._fits(step), (
                        f"{step.action} of {run.id} waits for a place, and there is a slot and a place for it"
                    )

    def _fits(self, step: Step) -> bool:
        """Whether a worker has room for it, whatever else waits."""
        run, wish = step.run, wish_of(step)
        workers = [worker for pool in self.state.routes.queue(step.action).pools if pool.free > 0 for worker in pool.workers.values()]
        bound = run.worker if run.worker and not run.loose else ""
        return any(
            worker.takes_work and worker.room >= wish.slots and wish.allows(worker.slots, worker.labels) and bound in ("", worker.id)
            for worker in workers
        )

    # ---- where turns and limits decide, age alone does not ------------------------------------------------------------------

    def _check_room(self, released: list[facts.StepReleased]) -> None:
        """Whoever was given something had a free slot for it; a step that takes several gathers the others."""
        self.check_slots()
        last = {fact.worker: self.state.attempts.get(fact.token) for fact in released if fact.worker}
        for id, attempt in last.items():
            worker = self.state.workers.get(id)
            if worker is not None and attempt is not None and attempt.slots:
                assert worker.room + attempt.slots >= 1, f"{id} was given a step without having a slot"

    def _check_order_of_bound(self, waiting: list[tuple[Step, int, str]], released: list[facts.StepReleased]) -> None:
        if not any(flow.keyed for flow in self.state.flows.values()):
            super()._check_order_of_bound([each for each in waiting if each[0].slots == 1], released)
