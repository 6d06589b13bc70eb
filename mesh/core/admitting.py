"""Which runs may begin: keys are taken, places are given, and whoever has to go for a newer one is cancelled."""

from __future__ import annotations

from msgspec import Raw

from mesh.core import records as facts
from mesh.core.assigning import Assigning
from mesh.core.disputes import losers
from mesh.core.flow import Group
from mesh.core.keys import Evaluate, Keys, NoKey, function_key
from mesh.core.limits import Rate
from mesh.core.line import urgent_at
from mesh.core.run import LIVE, Run
from mesh.core.run_keys import RunKeys, StepKeys
from mesh.core.step import BROKEN, DONE, READY, Step
from mesh.core.tickets import Ticket
from mesh.core.waiting import admission
from mesh_sdk.protocol.definitions import FUNCTION, StepDefinition
from mesh_sdk.protocol.records import CANCELLED, FAILED, TIMED_OUT


class Admitting(Assigning):
    """The part of the core that admits runs."""

    evaluate: Evaluate | None = None
    """Evaluates CEL; None where that is not installed."""

    def finish(self, run: Run, status: str, reason: str) -> None:
        """The run is over."""
        raise NotImplementedError

    def begin_run(self, run: Run) -> None:
        """A run may begin: place its first steps, or have its keys taken first."""
        flow = run.flow
        if not flow.keyed:
            self._place_roots(run)
        elif flow.keys:
            for index in flow.keys:
                self.place(run.steps[index])
        else:
            self.take_keys(run)

    def key_function_ended(self, step: Step) -> None:
        """A key function has given its key, or failed for good."""
        run = step.run
        if run.status is not LIVE:
            return
        if step.state is BROKEN:
            error = step.error
            why = f"{error.type}: {error.message}" if error is not None else "no answer"
            self.finish(run, FAILED, f"concurrency key function {step.name!r} failed, so the run could not begin: {why}")
        elif run.keyed is None and _all_answered(run):
            self.take_keys(run)

    def take_keys(self, run: Run) -> None:
        """Take the run's keys, and have it wait for its places; a run without keys fails."""
        try:
            keys = self._keys(run)
        except NoKey as error:
            self.finish(run, FAILED, str(error))
            return
        self.record(facts.RunKeyed(run.id, keys))
        if run.ticket is None:
            self._place_roots(run)
            return
        self.dispute(run.ticket)
        self.serve_freed()  # a newer definition may let more of those begin who wait already
        self.admit(run)

    def _keys(self, run: Run) -> RunKeys:
        flow = run.flow
        taken = Keys(run.input, run.metadata, self.evaluate)
        groups = [
            function_key(limit.key, self._output(run, limit.key)) if limit.language == FUNCTION else taken.group(limit)
            for _, limit in flow.limits
        ]
        steps = [
            StepKeys(index, [taken.group(limit) for _, limit in flow.step_limits[index]], _rates(taken, step))
            for index, step in enumerate(flow.steps)
            if step.concurrency or step.rate_limits
        ]
        return RunKeys(groups, steps)

    def _output(self, run: Run, function: str) -> Raw:
        return run.steps[run.flow.step_names.index(function)].output

    def admit(self, run: Run) -> None:
        """The run begins, if all its groups have a place for it by now."""
        ticket = run.ticket
        if ticket is None or ticket.placed or ticket.over or self.state.limits.groups.park(ticket):
            return
        self._admit(run)

    def _admit(self, run: Run) -> None:
        self.record(facts.RunAdmitted(run.id))
        self._place_roots(run)

    def give_up_waiting(self, run: Run) -> None:
        """The run has waited for its places for too long."""
        waits = admission(self.state, run)
        cause = waits.cause if waits is not None else "it was about to begin"
        seconds = (self.state.now - run.wanted_at) / 1000
        self.finish(run, TIMED_OUT, f"the run waited {seconds:.1f} s for its place (schedule timeout): waiting: {cause}")

    def _place_roots(self, run: Run) -> None:
        for index in run.flow.roots:
            if run.steps[index].state is READY:
                self.place(run.steps[index])

    def dispute(self, ticket: Ticket) -> None:
        """A ticket wants its places: who has to go for it is cancelled, itself perhaps."""
        self.state.limits.groups.came.pop(ticket, None)
        for loser, reason in losers(ticket):
            run = self.state.runs.get(loser.run)
            if run is not None:
                self.finish(run, CANCELLED, reason)

    def serve_freed(self) -> None:
        """Give places that have become free to those who wait for them; before that, whoever has to go for others goes."""
        groups = self.state.limits.groups
        while groups.came or groups.freed or self._find_slot():
            while groups.came:
                self.dispute(next(iter(groups.came)))
            if groups.freed:
                id, _ = groups.freed.popitem(last=False)
                self._serve_group(groups.get(id))

    def _serve_group(self, group: Group | None) -> None:
        """Places of one group are free. Steps are called for them, but not all that wait while there is no slot for any."""
        groups = self.state.limits.groups
        if group is None:
            return
        groups.unstall(group)
        groups.recall(group)
        while not group.full and (cohort := groups.next(group)) is not None:
            if group.spoken_for and not any(map(self._has_slot, group.actions)):
                groups.stall(group)
                return
            if (ticket := groups.advance(cohort, group)) is not None:
                self._serve(ticket)

    def _has_slot(self, action: str) -> bool:
        """Whether there may be a slot for this action; "" needs none."""
        return not action or any(pool.free > 0 for pool in self.state.routes.queue(action).pools)

    def _find_slot(self) -> bool:
        """Whether those whom a group has called have left a slot over that others of it may take: it may call them then."""
        groups = self.state.limits.groups
        for action, stalled in groups.stalled.items():
            if self._has_slot(action):
                groups.freed[next(iter(stalled))] = None
                return True
        return False

    def _serve(self, ticket: Ticket) -> None:
        run = self.state.runs[ticket.run]
        if ticket.step < 0:
            self._admit(run)
        else:
            step = run.steps[ticket.step]
            self.state.unpark(step)
            self.place(step)

    def rate_came(self, key: str) -> None:
        """Units of a rate may pass again."""
        state = self.state
        state.timers.rate_came(key)
        for step in state.limits.due(key, state.now):
            state.unpark(step)
            self.place(step)
        again = state.limits.next_at(key, state.now)
        if again:
            state.timers.rate(key, again)
        self.recall_again(key)

    def settle_limits(self) -> None:
        """Finish what an older leader left half done, and find out anew who waits for what."""
        self._hold_rates()
        for run in [run for run in self.state.runs.values() if run.flow.keyed and not run.start_at]:
            if run.status is LIVE and run.keyed is None:
                self._settle_keys(run)
        tickets = [ticket for run in self.state.runs.values() if run.keyed is not None for ticket in _wishes(run)]
        for ticket in sorted(tickets, key=_by_start):
            if not ticket.over:
                self.dispute(ticket)
        for ticket in sorted(tickets, key=_by_urgency):
            if ticket.parked is not None:
                self.state.limits.groups.freed[ticket.parked.id] = None
            elif ticket.step < 0 and not ticket.over and not ticket.placed:
                self.admit(self.state.runs[ticket.run])
        self.serve_freed()
        for key in list(self.state.limits.lines):
            self.rate_came(key)

    def _hold_rates(self) -> None:
        """What a rate would have let pass while nobody led is not lost."""
        limits = self.state.limits
        held = limits.rates.held(self.state.now)
        if held and limits.wanted_rates(self.state.runs.values()):
            self.record(facts.RatesHeld(held))

    def _settle_keys(self, run: Run) -> None:
        """The run has no keys yet: perhaps they are there to be taken."""
        broken = next((step for step in run.steps if step.is_key and step.state is BROKEN), None)
        if broken is not None:
            self.key_function_ended(broken)
        elif _all_answered(run):
            self.take_keys(run)


def _rates(taken: Keys, step: StepDefinition) -> list[Rate]:
    """The rates that a step needs: of which it takes no units, it needs none."""
    return [rate for rate in map(taken.rate, step.rate_limits) if rate[3]]


def _all_answered(run: Run) -> bool:
    """Whether all its key functions have given their keys; there may be none."""
    return all(run.steps[index].state is DONE for index in run.flow.keys)


def _wishes(run: Run) -> list[Ticket]:
    """What the run and its steps want a place for and don't have."""
    found = [step.ticket for step in run.steps if step.ticket is not None]
    if run.ticket is not None and not run.ticket.placed:
        found.append(run.ticket)
    return found


def _by_start(ticket: Ticket) -> tuple[int, int]:
    return ticket.order, ticket.step


def _by_urgency(ticket: Ticket) -> tuple[int, int]:
    return urgent_at(ticket.ready_at, ticket.priority), ticket.age
