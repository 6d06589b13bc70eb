"""Holds the mesh to its concurrency limits: who has a place of a group, who waits for one, who was cancelled for whom.

Rule: from the records of the journal, from what workers execute, and from `limits` alone; the mesh's own groups are never looked at.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping

from mesh.core import records as facts
from mesh.core.state import State
from mesh.core.step import HELD, OUT, READY
from mesh_sdk.protocol.records import CANCELLED, Assign
from tests.simulation.limits import (
    IN_PROGRESS,
    KEY_FUNCTION,
    NEWEST,
    QUEUE,
    ROUND_ROBIN,
    RUNS,
    STEPS,
    Group,
    Limit,
    has_keys,
    of_attempt,
    of_run,
    step_name,
)
from tests.simulation.process import Process

_BY_STEPS = {(workflow, limit.strategy) for (workflow, _), limits in STEPS.items() for limit in limits if limit.strategy != ROUND_ROBIN}
_WISHING = (READY, OUT, HELD)
"""States of steps that have a place, or want one."""
NOTICED_S = 0.01
"""A worker that has stood still notices within this time that it was given up meanwhile, and stops what it executes."""


class _Run:
    """A run that has limits."""

    def __init__(self, record: facts.RunStarted, order: int) -> None:
        self.id = record.run
        self.workflow = record.workflow
        self.input = bytes(record.input)
        self.order = order
        self.groups: dict[Group, Limit] = {}
        self.keyed = False
        self.admitted = False
        self.out: set[str] = set()
        """Its attempts that may run."""
        self.ended = False


class _Members:
    """Who is in one group: runs by their ids, attempts by their tokens."""

    def __init__(self) -> None:
        self.live: dict[str, _Run] = {}
        """Runs with this key that have not ended."""
        self.placed: set[str] = set()

    def waiting(self) -> list[_Run]:
        return [run for run in self.live.values() if not run.admitted]


class Places:
    """See the module.

    Args:
        state: of the auditor; it is asked how steps stand.
        report: gets what is wrong.
        seen: counts what there was to look at.
    """

    def __init__(self, state: State, report: Callable[[str], None], seen: Counter[str]) -> None:
        self._state = state
        self._report = report
        self._seen = seen
        self._order = 0
        self._runs: dict[str, _Run] = {}
        self._groups: dict[Group, _Members] = {}
        self._attempts: dict[str, tuple[str, dict[Group, Limit]]] = {}
        """Token of an attempt that may run → (run, groups that it has a place in)."""
        self._touched: dict[Group, Limit] = {}
        self._follow: dict[type, Callable[..., None]] = {
            facts.RunStarted: self._started,
            facts.RunBegan: self._began,
            facts.RunKeyed: self._keyed,
            facts.RunAdmitted: self._admitted,
            facts.RunFinished: self._finished,
            facts.StepReleased: self._released,
            facts.StepFinished: self._ended,
            facts.StepFailed: self._failed,
            facts.StepReturned: self._returned,
            facts.AttemptEnded: self._ended,
        }

    def record(self, record: facts.Fact) -> None:
        """A record of the journal."""
        if (follow := self._follow.get(type(record))) is not None:
            follow(record)

    def look(self) -> None:
        """A frame is over: nobody is there too many, and nobody waits for nothing."""
        for group, limit in self._touched.items():
            members = self._groups.get(group)
            if members is not None:
                self._look_at_group(group, limit, members)
        self._touched.clear()
        self._look_at_steps()

    def _look_at_steps(self) -> None:
        """Of steps' limits that cancel: no more than may be wait for their places or have them."""
        found: dict[Group, list[str]] = {}
        for run in self._state.runs.values():
            for step in run.steps if any(run.flow.name == workflow for workflow, _ in _BY_STEPS) else ():
                if step.state in _WISHING:
                    for group, limit in of_attempt(run.flow.name, step.name, bytes(run.input)).items():
                        if limit.strategy in (IN_PROGRESS, NEWEST):
                            found.setdefault(group, []).append(run.id)
                            if len(found[group]) > limit.max_runs:
                                self._report(f"group {group} has steps of {found[group]}, {limit.strategy} leaves {limit.max_runs}")

    def _look_at_group(self, group: Group, limit: Limit, members: _Members) -> None:
        waiting = members.waiting()
        self._seen["look at who waits for places"] += bool(waiting)
        if limit.strategy in (IN_PROGRESS, NEWEST) and len(members.live) > limit.max_runs:
            self._report(f"group {group} has {len(members.live)} live runs, {limit.strategy} leaves {limit.max_runs}")
        if limit.strategy == QUEUE and len(waiting) > 1:
            self._report(f"in group {group} {len(waiting)} runs wait, {QUEUE} leaves one")
        for run in waiting:
            if not self._has_to_wait(run) and not self._may_be_passed_over(run):
                self._report(f"run {run.id} of {run.workflow} waits, and all its groups have a place for it: {list(run.groups)}")

    def _has_to_wait(self, run: _Run) -> bool:
        return any(len(self._group(group).placed) >= limit.max_runs for group, limit in run.groups.items())

    def _may_be_passed_over(self, run: _Run) -> bool:
        """A free place may be kept for another run that wants several, and has to wait for one of them."""
        others = (other for group in run.groups for other in self._group(group).waiting() if other is not run)
        return any(len(other.groups) > 1 and self._has_to_wait(other) for other in others)

    def left(self) -> list[str]:
        """What is still kept of places."""
        return [
            f"group {group} has {sorted(members.placed)} placed and {sorted(members.live)} live"
            for group, members in self._groups.items()
            if members.placed or members.live
        ]

    def _group(self, group: Group) -> _Members:
        return self._groups.setdefault(group, _Members())

    # ---- runs

    def _started(self, record: facts.RunStarted) -> None:
        self._order += 1
        if has_keys(record.workflow):
            self._runs[record.run] = _Run(record, self._order)

    def _began(self, record: facts.RunBegan) -> None:
        self._order += 1
        if (run := self._runs.get(record.run)) is not None:
            run.order = self._order

    def _keyed(self, record: facts.RunKeyed) -> None:
        run = self._runs[record.run]
        run.keyed = True
        try:
            run.groups = of_run(run.workflow, run.input)
        except KeyError:
            return self._report(f"run {run.id} of {run.workflow} has keys {record.keys} and no user in its input")
        if record.keys.groups != [key for _, key in run.groups]:
            self._report(f"run {run.id} of {run.workflow} has the keys {record.keys.groups} instead of {list(run.groups)}")
        for group, limit in run.groups.items():
            self._group(group).live[run.id] = run
            self._touched[group] = limit

    def _admitted(self, record: facts.RunAdmitted) -> None:
        run = self._runs[record.run]
        if run.ended or run.admitted or not run.groups:
            self._report(f"run {run.id} is admitted and has ended, was admitted before, or has no limits")
        run.admitted = True
        for group, limit in run.groups.items():
            self._take(group, limit, run.id, f"run {run.id} is admitted")

    def _take(self, group: Group, limit: Limit, who: str, what: str) -> None:
        members = self._group(group)
        if len(members.placed) >= limit.max_runs:
            self._report(f"{what} to group {group}, where {sorted(members.placed)} have all {limit.max_runs} places")
        members.placed.add(who)
        self._touched[group] = limit

    def _give(self, groups: Mapping[Group, Limit], who: str) -> None:
        for group, limit in groups.items():
            self._group(group).placed.discard(who)
            self._touched[group] = limit

    def _finished(self, record: facts.RunFinished) -> None:
        run = self._runs.get(record.run)
        if run is None:
            return
        if record.status == CANCELLED:
            self._look_at_reason(run, record.reason)
        run.ended = True
        for group in run.groups:
            self._group(group).live.pop(run.id, None)
        if not run.out:
            self._give(run.groups, run.id)
        self._touched.update(run.groups)

    def _look_at_reason(self, run: _Run, reason: str) -> None:
        """A run that was cancelled for others had to be."""
        strategy = next((strategy for strategy in (IN_PROGRESS, NEWEST, QUEUE) if f"({strategy}" in reason), "")
        found = next(((group, limit) for group, limit in run.groups.items() if limit.strategy == strategy), None)
        if not strategy or (found is None and (run.workflow, strategy) in _BY_STEPS):
            return
        if found is None:
            return self._report(f"run {run.id} of {run.workflow}, which has no such limit, is cancelled: {reason}")
        self._seen[f"cancelled by {strategy}"] += 1
        group, limit = found
        others = [other for other in self._group(group).live.values() if other is not run]
        if strategy == IN_PROGRESS:
            needed, there = limit.max_runs, sum(other.order > run.order for other in others)
        elif strategy == NEWEST:
            needed, there = limit.max_runs, sum(other.order < run.order for other in others)
        else:
            needed, there = 1, sum(other.order > run.order and not other.admitted for other in others)
        if there < needed:
            self._report(f"run {run.id} is cancelled for {there} others of group {group}, there must be {needed}: {reason}")
        if run.admitted and (strategy == QUEUE or (strategy == NEWEST and not limit.by_function)):
            self._report(f"run {run.id} was admitted and is cancelled: {reason}")

    # ---- attempts

    def _released(self, record: facts.StepReleased) -> None:
        run = self._runs.get(record.run)
        if run is None:
            return
        run.out.add(record.token)
        self._attempts[record.token] = record.run, {}
        name = step_name(run.workflow, record.step)
        if name == KEY_FUNCTION:
            return
        if not run.keyed or (run.workflow in RUNS and not run.admitted):
            self._report(f"step {name} of run {run.id} of {run.workflow} is released before the run is admitted")
        try:
            groups = of_attempt(run.workflow, name, run.input)
        except KeyError:
            return self._report(f"step {name} of run {run.id} of {run.workflow} is released and has no key")
        self._attempts[record.token] = record.run, groups
        for group, limit in groups.items():
            self._take(group, limit, record.token, f"attempt {record.token} of {run.workflow}:{name} is released")

    def _failed(self, record: facts.StepFailed) -> None:
        if record.worker:  # else the leader has given it up, and it may still run
            self._ended(record)

    def _returned(self, record: facts.StepReturned) -> None:
        self._ended(record)

    def _ended(self, record: facts.StepFinished | facts.StepFailed | facts.StepReturned | facts.AttemptEnded) -> None:
        """Nothing of the attempt runs any more."""
        id, groups = self._attempts.pop(record.token, ("", {}))
        self._give(groups, record.token)
        run = self._runs.get(id)
        if run is not None:
            run.out.discard(record.token)
            if run.ended and not run.out:
                self._give(run.groups, run.id)

    # ---- what workers do

    def executed(self, running: Mapping[str, tuple[Assign, Process]], token: str, now: float) -> None:
        """An attempt begins to be executed: of its keys no more are than may be, whatever the journal thinks of the others.

        Args:
            running: every attempt that is, this one among them.
            token: the one that begins.
            now: by the clock of the world.
        """
        mine = _executed_groups(running[token][0])
        if not mine:
            return
        found: dict[Group, set[str]] = {group: set() for group in mine}
        for other, (assign, process) in running.items():
            if process.dead or process.frozen or (process.thawed_at > now - NOTICED_S and process is not running[token][1]):
                continue
            for group in _executed_groups(assign):
                if group in found:
                    found[group].add(assign.run if group in of_run(assign.workflow, bytes(assign.input)) else other)
        for group, limit in mine.items():
            if len(found[group]) > limit.max_runs:
                self._report(f"{sorted(found[group])} are executed at once in group {group}, which has {limit.max_runs} places")


def _executed_groups(assign: Assign) -> dict[Group, Limit]:
    if assign.name == KEY_FUNCTION or not has_keys(assign.workflow):
        return {}
    input = bytes(assign.input)
    return {**of_run(assign.workflow, input), **of_attempt(assign.workflow, assign.name, input)}
