"""What holds steps and runs back although there are slots: places in concurrency groups, and rates.

Rule: places and units are taken by facts (a run is admitted, an attempt goes out) and given back by facts. Who waits in which line
is no part of the state: it follows from it, and a successor finds it anew.
"""

from __future__ import annotations

from collections.abc import Iterator

from mesh.core.flow import Group, Groups, Ticket
from mesh.core.graph import Limits as Declared
from mesh.core.line import Line
from mesh.core.rates import Rates
from mesh.core.records import StepKeys
from mesh.core.run import LIVE, Run
from mesh.core.step import Attempt, Step
from mesh_sdk.protocol.definitions import GROUP_ROUND_ROBIN


class Limits:
    """All groups and rates of one state."""

    def __init__(self) -> None:
        self.groups = Groups()
        self.rates = Rates()
        self.lines: dict[str, Line] = {}
        """Steps that wait for a rate, by its key."""

    # ---- runs -----------------------------------------------------------------------------------------------------------

    def keyed(self, run: Run) -> None:
        """The run's keys are known: it wants its places from now on."""
        assert run.keyed is not None, "that is what has become known"
        if not run.flow.limits:
            return
        run.ticket = Ticket(run.id, -1, run.number, run.priority, self._groups(run.flow.limits, run.keyed.groups))
        for group in run.ticket.groups:
            if group.limit.strategy == GROUP_ROUND_ROBIN:
                run.fair_key, run.weight = group.id, group.limit.weights.get(group.key, 1)
                break
        self.groups.arrive(run.ticket)

    def admitted(self, run: Run) -> None:
        """The run goes on."""
        assert run.ticket is not None, "only runs with a ticket are admitted"
        self.groups.place(run.ticket)

    def ended(self, run: Run) -> None:
        """The run is over. Its places are free when nothing of it runs any more."""
        for step in run.steps:
            if step.ticket is not None:
                self._give_back(step.ticket)
                step.ticket = None
            step.parked = False
        if run.ticket is not None:
            self.groups.end(run.ticket)
            if not run.out:
                self.groups.leave(run.ticket)

    def load(self, run: Run, admitted: bool) -> None:
        """A run of an image: it has its places, or waits for them."""
        self.keyed(run)
        if run.ticket is not None and admitted:
            self.groups.place(run.ticket)
            if run.status is not LIVE:
                self.groups.end(run.ticket)

    def load_attempt(self, attempt: Attempt) -> None:
        """An attempt of an image has its places."""
        step = attempt.step
        keys = keys_of(step)
        if keys is not None and keys.groups:
            attempt.ticket = self._ticket(step, keys)
            self.groups.place(attempt.ticket)

    # ---- steps ----------------------------------------------------------------------------------------------------------

    def ready(self, step: Step) -> bool:
        """A step is ready. Whether it has to wait here first."""
        keys = keys_of(step)
        if keys is None:
            return False
        if keys.groups and step.ticket is None:
            step.ticket = self._ticket(step, keys)
        return self._waits_for_place(step) or self._waits_behind(step, keys)

    def holds_back(self, step: Step, now: int) -> tuple[bool, str, int]:
        """Whether a step that there is a slot for has to wait here; for which rate, and for how many milliseconds, if for one."""
        keys = keys_of(step)
        if keys is None:
            return False, "", 0
        if self._waits_for_place(step):
            return True, "", 0
        wait, key = max(((self.rates.wait(*rate, now), rate[0]) for rate in keys.rates), default=(0, ""))
        if wait:
            self._park(step, key)
        return wait > 0, key, wait

    def _waits_for_place(self, step: Step) -> bool:
        step.parked = step.ticket is not None and self.groups.park(step.ticket)
        return step.parked

    def _waits_behind(self, step: Step, keys: StepKeys) -> bool:
        """Whether others wait already for a rate that it needs."""
        for rate in keys.rates:
            line = self.lines.get(rate[0])
            if not step.due and line is not None and line.first_parked() is not None:
                self._park(step, rate[0])
                return True
        return False

    def _park(self, step: Step, key: str) -> None:
        step.parked, step.due = True, False
        line = self.lines.get(key)
        if line is None:
            line = self.lines[key] = Line()
        line.push_parked(step)

    def due(self, key: str, now: int) -> list[Step]:
        """Those that wait for a rate and may go out by now, in order; they wait for a slot from now on."""
        line = self.lines.get(key)
        found: list[Step] = []
        units = 0
        while line is not None and (step := line.first_parked()) is not None:
            rate = next(rate for keys in (keys_of(step),) if keys is not None for rate in keys.rates if rate[0] == key)
            units += rate[3]
            if self.rates.wait(key, rate[1], rate[2], units, now) > 0:
                break
            step.parked, step.due = False, True
            found.append(step)
        if line is not None and line.first_parked() is None:
            del self.lines[key]
        return found

    def next_at(self, key: str, now: int) -> int:
        """When to ask for those that are due again, 0 when nobody waits for this rate."""
        line = self.lines.get(key)
        step = line.first_parked() if line is not None else None
        keys = keys_of(step) if step is not None else None
        if keys is None:
            return 0
        return now + max(1, *(self.rates.wait(*rate, now) for rate in keys.rates))

    def released(self, attempt: Attempt, now: int) -> None:
        """An attempt goes out: it takes its places, and its units pass."""
        step = attempt.step
        step.run.out += 1
        step.parked = step.due = False
        if step.is_key:
            return
        if step.ticket is not None:
            attempt.ticket, step.ticket = step.ticket, None
            self.groups.place(attempt.ticket)
        keys = keys_of(step)
        for rate in keys.rates if keys is not None else ():
            self.rates.take(*rate, now)

    def over(self, attempt: Attempt) -> None:
        """Nothing of the attempt runs any more."""
        run = attempt.step.run
        run.out -= 1
        if attempt.ticket is not None:
            self._give_back(attempt.ticket)
            attempt.ticket = None
        if run.ticket is not None and run.ticket.over and not run.out:
            self.groups.leave(run.ticket)

    def _ticket(self, step: Step, keys: StepKeys) -> Ticket:
        run = step.run
        ticket = Ticket(run.id, step.index, run.number, step.priority, self._groups(run.flow.step_limits[step.index], keys.groups))
        self.groups.arrive(ticket)
        return ticket

    def _give_back(self, ticket: Ticket) -> None:
        self.groups.end(ticket)
        self.groups.leave(ticket)

    def _groups(self, declared: Declared, keys: list[str]) -> tuple[Group, ...]:
        return tuple(self.groups.group((name, key), limit) for (name, limit), key in zip(declared, keys, strict=True))

    def unserved(self) -> Iterator[Group]:
        """Groups that have a place and somebody who waits for it; asked after a takeover."""
        return (group for group in self.groups if not group.full and self.groups.next(group) is not None)


def keys_of(step: Step) -> StepKeys | None:
    """What was taken from the run's input for the step's limits; None if it has none."""
    keyed = step.run.keyed
    if keyed is None:
        return None
    return next((keys for keys in keyed.steps if keys.step == step.index), None)
