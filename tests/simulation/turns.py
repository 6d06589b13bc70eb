"""Holds the mesh to turns and priorities: of keys that wait for slots each is served in turn, the urgent before the others.

Rule: looked at where nothing but turns decides, in the workflow that is called so: its runs have no other limits, labels or homes.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from typing import Any

from mesh.core import records as facts
from mesh.core.state import State
from mesh.core.step import READY
from tests.simulation.limits import RUNS, of_run

NAME = "turns"
AGED_MS = 10_000
"""What a level of priority is worth, as documented."""
STEP = 0.5
"""By so many turns at most one service moves the time of turns on, where two or more wait."""
_ANEW = (facts.TermStarted, facts.WorkerRegistered, facts.WorkerGone)
"""What makes lines anew, and turns with them."""


class Turns:
    """See the module.

    Args:
        state: of the auditor.
        report: gets what is wrong.
        seen: counts what there was to look at.
    """

    def __init__(self, state: State, report: Callable[[str], None], seen: Counter[str]) -> None:
        self._seen = seen
        self._state = state
        self._report = report
        self._weights = dict(RUNS[NAME][0].weights)
        self._runs: dict[str, tuple[int, str]] = {}
        """Run → (priority, key)."""
        self._tokens: dict[str, str] = {}
        self._waiting: dict[tuple[int, str], set[str]] = {}
        self._credit: dict[tuple[int, str], float] = {}
        """(priority, key) that waits → turns that it may be behind the others by."""
        self._passed: dict[tuple[int, str], Counter[str]] = {}
        """(priority, key) that waits → how often each other key was served since it waits, or was served itself."""

    def before(self, record: facts.Fact) -> None:
        """A record that is to be applied."""
        if isinstance(record, _ANEW):
            self._passed.clear()
        elif type(record) is facts.RunStarted and record.workflow == NAME:
            try:
                ((_, key),) = of_run(NAME, bytes(record.input))
            except KeyError:
                return
            self._runs[record.run] = record.priority, key
        elif type(record) is facts.StepReleased and record.run in self._runs:
            self._tokens[record.token] = record.run
            self._served(record.run)
        if type(record) is facts.StepReleased:
            self._give_credit(record)

    def _give_credit(self, record: facts.StepReleased) -> None:
        """A step goes out. That may move the time of turns on: whoever waits has that in hand for those who come later."""
        level = self._state.runs[record.run].steps[record.step].priority
        served = self._runs.get(record.run)
        for place, waiting in self._waiting.items():
            if waiting and place[0] == level and place != served:
                self._credit[place] = self._credit.get(place, 0.0) + STEP

    def after(self, record: facts.Fact) -> None:
        """It was applied."""
        id = getattr(record, "run", "") or self._tokens.get(getattr(record, "token", ""), "")
        if id not in self._runs:
            return
        place, run = self._runs[id], self._state.runs.get(id)
        waiting = self._waiting.setdefault(place, set())
        if run is not None and run.steps[0].state is READY:
            waiting.add(id)
            return
        waiting.discard(id)
        if not waiting:
            self._passed.pop(place, None)
            self._credit.pop(place, None)

    def look(self) -> None:
        """A frame is over, and it does not only begin a term: nobody waits while there is a slot."""
        waiting = sum(map(len, self._waiting.values()))
        free = sum(max(0, pool.free) for pool in self._state.routes.queue(f"{NAME}:{NAME}").pools) if waiting else 0
        if free:
            self._report(f"{waiting} steps of {NAME} wait for slots, and {free} are free")

    def _served(self, id: str) -> None:
        priority, key = self._runs[id]
        for (level, other), waiting in self._waiting.items():
            if level != priority or other == key or not waiting:
                continue
            passed = self._passed.setdefault((level, other), Counter())
            passed[key] += 1
            self._seen["key passed by another"] += 1
            most = self._most(key, other) + math.ceil(self._credit.get((priority, key), 0.0))
            if passed[key] > most:
                self._report(f"key {other} of {NAME} waits, and key {key} is served {passed[key]} times before it, {most} are the most")
        self._passed.pop((priority, key), None)
        self._credit[priority, key] = max(0.0, self._credit.get((priority, key), 0.0) + STEP - 1 / self._weights.get(key, 1))
        self._look_at_priority(id, priority)

    def _most(self, key: str, other: str) -> int:
        """How often a key may be served between two turns of another one."""
        mine, its = self._weights.get(key, 1), self._weights.get(other, 1)
        return -(-mine // its) + 1

    def _look_at_priority(self, id: str, priority: int) -> None:
        """No level of priority whose oldest step is more urgent than the oldest of its own is passed over."""
        urgent = min(self._since(priority)) - priority * AGED_MS
        for level in {level for level, _ in self._waiting}:
            waiting = [run.steps[0].ready_at for place, ids in self._waiting.items() if place[0] == level for run in self._live(ids)]
            self._seen["priority beside another"] += level != priority and bool(waiting)
            if level != priority and waiting and min(waiting) - level * AGED_MS < urgent and self._alone(level):
                self._report(f"run {id} of {NAME} goes out, and {len(waiting)} runs of priority {level} wait that are more urgent")

    def _since(self, priority: int) -> list[int]:
        """Since when the steps of a priority wait, whatever workflow they are of: what stands behind another in turn counts for it too."""
        steps = (step for run in self._state.runs.values() for step in run.steps)
        return [step.ready_at for step in steps if step.state is READY and step.priority == priority]

    def _live(self, ids: set[str]) -> list[Any]:
        return [self._state.runs[id] for id in sorted(ids) if id in self._state.runs]

    def _alone(self, level: int) -> bool:
        """Whether nothing else waits at this level: what does may stand for it where several lines compete."""
        return not any(
            step.state is READY and step.priority == level
            for run in self._state.runs.values()
            for step in run.steps
            if run.flow.name != NAME
        )
