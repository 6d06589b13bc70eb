"""What holds steps and runs back although there are slots: places in concurrency groups, and rates.

Rule: places and units are taken by facts (a run is admitted, an attempt goes out) and given back by facts. Who waits in which line
is no part of the state: it follows from it, and a successor finds it anew.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from operator import attrgetter

from mesh.core.flow import Group, Groups
from mesh.core.graph import Limits as Declared
from mesh.core.line import FairKey, Line
from mesh.core.parked import POLL_MS, Parked
from mesh.core.rates import SCALE, Rates
from mesh.core.run import LIVE, Run
from mesh.core.run_keys import StepKeys
from mesh.core.step import READY, Attempt, Step
from mesh.core.tickets import Ticket, need_of
from mesh_sdk.protocol.definitions import GROUP_ROUND_ROBIN

Rate = tuple[str, int, int, int]
"""(key, limit, milliseconds, units)."""

_of_step = attrgetter("step")


class Limits:
    """All groups and rates of one state."""

    def __init__(self) -> None:
        self.groups = Groups()
        self.rates = Rates()
        self.lines: dict[str, Parked] = {}
        """Steps that wait for a rate, or keep units of it, by its key."""
        self.let_pass: dict[str, None] = {}
        """Rates of which more units may pass, or to whose line somebody else is first, since somebody last looked."""
        self.recalls: dict[str, dict[str, None]] = {}
        """Pools with room for a step that gathers slots elsewhere, by the key of the rate that it would have to wait for there."""

    # ---- runs -----------------------------------------------------------------------------------------------------------

    def keyed(self, run: Run) -> None:
        """The run's keys are known: it wants its places from now on."""
        assert run.keyed is not None, "that is what has become known"
        if not run.flow.limits:
            return
        groups = self._groups(run, run.flow.limits, run.keyed.groups)
        run.ticket = Ticket(run.id, -1, 0, run.number, groups)
        turns = _turns(groups)
        if turns is not None:
            run.fair_key, run.weight = turns
        run.ticket.wait(run.wanted_at, run.priority, turns)
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
        if self.lines and run.keyed is not None:
            for keys in run.keyed.steps:
                self._keep_nothing(run.steps[keys.step])
                for rate in keys.rates:
                    self._moved(rate[0])
        if run.ticket is not None:
            self.groups.end(run.ticket)
            self._leave(run)

    def given_up(self, attempt: Attempt) -> None:
        """Nobody waits for the attempt any more. It keeps its places until nothing of it runs."""
        if attempt.ticket is not None:
            self.groups.end(attempt.ticket)

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
            attempt.ticket = self._ticket(step, keys, attempt.number)
            self.groups.place(attempt.ticket)
            if step.current is not attempt:
                self.groups.end(attempt.ticket)

    # ---- steps ----------------------------------------------------------------------------------------------------------

    def ready(self, step: Step) -> bool:
        """A step is ready. Whether it has to wait here first."""
        keys = keys_of(step)
        if keys is None:
            return False
        if keys.groups and step.ticket is None:
            step.ticket = self._ticket(step, keys, step.attempt + 1)
        step.parked = step.ticket is not None and step.ticket.parked is not None
        return step.parked or self._waits_behind(step, keys)

    def holds_back(self, step: Step, now: int) -> tuple[bool, str, int]:
        """Whether a step that there is a slot for has to wait here; for which rate, and for how many milliseconds, if for one."""
        keys = keys_of(step)
        if keys is None:
            return False, "", 0
        step.parked = step.ticket is not None and self.groups.park_late(step.ticket)
        if step.parked:
            self._keep_nothing(step)
        if step.parked or self._waits_behind(step, keys):
            return True, "", 0
        slower: list[Rate] = []
        for rate in reversed(self._by_pace(keys)):
            line = self.lines.get(rate[0])
            wait = self.rates.wait(*rate, now, ahead=line.ahead_of(step) if line is not None else 0)
            if wait:
                self._park(step, rate, slower)
                return True, rate[0], wait
            slower.append(rate)
        return False, "", 0

    def hold_up(self, step: Step, now: int) -> bool:
        """Whether a step that is ready waits for its limits, whether or not it waits for a slot as well."""
        keys = keys_of(step)
        if step.parked or keys is None:
            return step.parked
        return self.rates.led_until > 0 or self.slowest(step, now)[0] > 0

    def slowest(self, step: Step, now: int) -> tuple[int, str]:
        """For how many milliseconds rates would hold the step back if it were the only one, and which of them for longest."""
        keys = keys_of(step)
        return max(((self.rates.wait(*rate, now), rate[0]) for rate in keys.rates), default=(0, "")) if keys is not None else (0, "")

    def _waits_behind(self, step: Step, keys: StepKeys) -> bool:
        """Whether others wait already for a rate that it needs: it waits for its turn there, for that of the slowest rate last."""
        if not self.lines:
            return False
        rates = self._by_pace(keys)
        for place, rate in enumerate(rates):
            line = self.lines.get(rate[0])
            if line is not None and rate[0] not in step.due and line.first() is not None:
                self._park(step, rate, [slower for slower in rates[place + 1 :] if self._keeps(step, slower)])
                return True
        return False

    def park_all(self, line: Line[Step]) -> None:
        """All who wait in this line for slots, and whom others are ahead of for a rate, wait for that rate instead."""
        alike: dict[str, list[Step]] = {}
        for step in line.waiting():
            keys = keys_of(step)
            if keys is None or step.due:
                continue
            if len(keys.rates) == 1 and step.ticket is None:
                alike.setdefault(keys.rates[0][0], []).append(step)
            else:
                self._waits_behind(step, keys)
        for key, steps in alike.items():
            ahead = self.lines.get(key)
            if ahead is not None and ahead.first() is not None:
                ahead.extend(steps)
                self._moved(key)
        line.sweep()

    def _by_pace(self, keys: StepKeys) -> list[Rate]:
        """The rates that a step needs, the slowest last: for all steps in the same order, as long as anybody is in their lines."""
        return sorted(keys.rates, key=self._pace) if len(keys.rates) > 1 else keys.rates

    def _pace(self, rate: Rate) -> tuple[int, str]:
        line = self.lines.get(rate[0])
        return line.pace if line is not None else pace(rate)

    def _park(self, step: Step, rate: Rate, kept: list[Rate]) -> None:
        """The step waits for this rate, and keeps what it has of those."""
        self._keep_nothing(step, besides=kept)
        for other in kept:
            self._line(other).keep(step, other[3])
        self._line(rate).push(step, in_front=bool(kept))
        self._moved(rate[0])
        if step.ticket is not None:
            self.groups.uncall(step.ticket)

    def _line(self, rate: Rate) -> Parked:
        line = self.lines.get(rate[0])
        if line is None:
            line = self.lines[rate[0]] = Parked(pace(rate))
        return line

    def _keeps(self, step: Step, rate: Rate) -> bool:
        line = self.lines.get(rate[0])
        return line is not None and line.keeps(step)

    def _keep_nothing(self, step: Step, besides: Iterable[Rate] = ()) -> None:
        """Units that the step has kept may pass with others."""
        keys = keys_of(step) if self.lines else None
        for rate in keys.rates if keys is not None and len(keys.rates) > 1 else ():
            if rate not in besides and (line := self.lines.get(rate[0])) is not None and line.let_pass(step):
                self._left(rate[0], line)

    def _left(self, key: str, line: Parked) -> None:
        """Somebody keeps nothing here any more."""
        if line.empty:
            del self.lines[key]
        else:
            self.let_pass[key] = None

    def _moved(self, key: str) -> None:
        """Who waits for a rate has changed: somebody else than has been asked about may be the first one."""
        line = self.lines.get(key)
        if line is not None and line.first() is not line.asked:
            self.let_pass[key] = None

    def due(self, key: str, now: int) -> list[Step]:
        """Those that wait for a rate and may go out by now, in order; they wait for a slot from now on."""
        line = self.lines.get(key)
        if line is None:
            return []
        found: list[Step] = []
        line.forget()
        ahead = line.units
        while (step := line.first()) is not None:
            rate = _rate(step, key)
            if self.rates.wait(*rate, now, ahead=ahead) > 0:
                break
            ahead += rate[3]
            line.call(step)
            found.append(step)
        return found

    def next_at(self, key: str, now: int) -> int:
        """When to ask for those that are due again, 0 when nobody waits for this rate."""
        line = self.lines.get(key)
        step = line.first() if line is not None else None
        if line is not None and line.empty:
            del self.lines[key]
        if line is None:
            return 0
        line.asked = step
        if step is None:
            return 0
        return now + max(POLL_MS if line.keeps_waiting else 1, self.rates.wait(*_rate(step, key), now, ahead=line.units))

    def wanted_rates(self, runs: Iterable[Run]) -> set[str]:
        """Keys of the rates that steps wait for, or of steps that wait for something else as well."""
        if not self.rates.empty_at:
            return set()
        waiting = (keys for run in runs if run.keyed is not None for keys in run.keyed.steps if run.steps[keys.step].state is READY)
        return {rate[0] for keys in waiting for rate in keys.rates}

    def released(self, attempt: Attempt, now: int) -> None:
        """An attempt goes out: it takes its places, and its units pass."""
        step = attempt.step
        step.run.out += 1
        step.parked, step.due = False, ()
        if step.is_key:
            return
        if step.ticket is not None:
            attempt.ticket, step.ticket = step.ticket, None
            self.groups.place(attempt.ticket)
        keys = keys_of(step)
        for rate in keys.rates if keys is not None else ():
            line = self.lines.get(rate[0])
            if line is not None and line.let_pass(step) and line.empty:
                del self.lines[rate[0]]
            self.rates.take(*rate, now)

    def over(self, attempt: Attempt) -> None:
        """Nothing of the attempt runs any more."""
        run = attempt.step.run
        run.out -= 1
        if attempt.ticket is not None:
            self._give_back(attempt.ticket)
            attempt.ticket = None
        self._leave(run)

    def _leave(self, run: Run) -> None:
        """A run that is over gives its places back once nothing of it runs any more."""
        if run.ticket is not None and run.ticket.over and not run.out:
            self.groups.leave(run.ticket)
            run.ticket = None

    def _ticket(self, step: Step, keys: StepKeys, number: int) -> Ticket:
        run = step.run
        groups = self._groups(run, run.flow.step_limits[step.index], keys.groups)
        ticket = Ticket(run.id, step.index, number, run.number, groups, step.action, need_of(step, keys))
        step.own_turns = _turns(groups)
        ticket.wait(step.ready_at, step.priority, (step.fair_key, step.weight) if step.fair_key is not None else None)
        self.groups.arrive(ticket)
        return ticket

    def _give_back(self, ticket: Ticket) -> None:
        self.groups.end(ticket)
        self.groups.leave(ticket)

    def _groups(self, run: Run, declared: Declared, keys: list[str]) -> tuple[Group, ...]:
        """Each once; of a step, those that its run has no place in yet: it would wait for itself."""
        found = (self.groups.group((name, key), limit, run.number) for (name, limit), key in zip(declared, keys, strict=True))
        had = run.ticket.groups if run.ticket is not None else ()
        return tuple(dict.fromkeys(group for group in found if group not in had))


def keys_of(step: Step) -> StepKeys | None:
    """What was taken from the run's input for the step's limits; None if it has none."""
    keyed = step.run.keyed
    if keyed is None:
        return None
    place = bisect_left(keyed.steps, step.index, key=_of_step)
    return keyed.steps[place] if place < len(keyed.steps) and keyed.steps[place].step == step.index else None


def _turns(groups: tuple[Group, ...]) -> tuple[FairKey, int] | None:
    """Whose turn those take who want places in these groups, and how many turns that key has in a round."""
    fair = next((group for group in groups if group.limit.strategy == GROUP_ROUND_ROBIN), None)
    return (fair.id, fair.limit.weights.get(fair.key, 1)) if fair is not None else None


def pace(rate: Rate) -> tuple[int, str]:
    """Sorts the slowest rate last: the nanoseconds that a unit takes, then its key."""
    key, limit, per_ms, _ = rate
    return per_ms * SCALE // limit, key


def _rate(step: Step, key: str) -> Rate:
    """What it wants of the rate."""
    keys = keys_of(step)
    assert keys is not None, "only steps with rates wait for them"
    return next(rate for rate in keys.rates if rate[0] == key)
