"""Waiting steps in the order in which they are served: by priority, then by fair turn, then by age.

Turns are those of start-time fair queueing (Goyal, Vin and Cheng, 1996): a step of a key gets the virtual time at which the step of
its key before it is served, plus one share; the virtual time is the turn of whatever was served last. So a key with a long line
costs another key one of its own steps a round, however long it is, and each operation costs O(log n).

Rule: turns order what waits, and nothing else follows from them. They are no part of the state: whoever loads an image
gives new ones, and only the leader's count.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING

from mesh.core.step import READY, Step

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

SHARE = 1_000_000
"""Virtual time that a step of a key of weight 1 costs."""
AGED_MS = 10_000
"""What a level of priority is worth: so long an older step lets a younger one pass that is one level more urgent."""
KEYS_SWEPT = 1_024

Entry = tuple[int, int, int, Step]
"""(turn, order of the run's start, order of the push, step): how waiting steps of one priority are ordered."""
Head = tuple[int, int, int, int, Step]
"""(priority, lag behind the line's virtual time, order of the run's start, order of the push, step)."""

FairKey = tuple[str, str]
"""(limit, key)."""


class Line:
    """Steps that wait for the same places."""

    def __init__(self) -> None:
        self._levels: dict[int, list[Entry]] = {}
        self._time = 0
        """Virtual: the turn of what was served last."""
        self._last: dict[FairKey, int] = {}
        """When the next step of a key has its turn, where that is not now."""
        self._sweep_at = KEYS_SWEPT

    def push(self, step: Step) -> None:
        """Add a ready step; its mark tells this entry from older ones of the same step."""
        run = step.run
        priority = run.flow.steps[step.index].priority or run.priority
        heap = self._levels.get(priority)
        if heap is None:
            heap = self._levels[priority] = []
        heappush(heap, (self._time if run.fair_key is None else self._turn(step, run.fair_key), run.number, step.mark, step))

    def extend(self, steps: Iterable[Step]) -> None:
        """Add many, in one pass."""
        for step in steps:
            key = step.run.fair_key
            turn = self._time if key is None else self._turn(step, key)
            self._levels.setdefault(step.priority, []).append((turn, step.run.number, step.mark, step))
        for heap in self._levels.values():
            heapify(heap)

    def push_parked(self, step: Step) -> None:
        """Add a step that waits for its time here: by age alone."""
        heappush(self._levels.setdefault(step.priority, []), (0, step.run.number, step.mark, step))

    def first_parked(self) -> Step | None:
        """The step that is served first of those that wait for their time."""
        for priority in sorted(self._levels, reverse=True):
            heap = self._levels[priority]
            while heap:
                step = heap[0][3]
                if step.parked and step.state is READY and step.mark == heap[0][2]:
                    return step
                heappop(heap)
            del self._levels[priority]
        return None

    def _turn(self, step: Step, key: FairKey) -> int:
        if step.turn is not None and step.turn[0] is self:
            return step.turn[1]  # it has been charged for already
        turn = self._last.get(key, 0)
        if turn < self._time:
            turn = self._time
            if len(self._last) >= self._sweep_at:
                self._last = {other: at for other, at in self._last.items() if at > self._time}
                self._sweep_at = max(KEYS_SWEPT, 2 * len(self._last))
        self._last[key] = turn + SHARE // step.run.weight
        step.turn = self, turn
        return turn

    def heads(self) -> list[Head]:
        """The step of each priority that is served next."""
        found = []
        gone = []
        for priority, heap in self._levels.items():
            entry = head(heap)
            if entry is not None:
                found.append((priority, entry[0] - self._time, entry[1], entry[2], entry[3]))
            else:
                gone.append(priority)
        for priority in gone:
            del self._levels[priority]
        return found

    def first(self) -> Step | None:
        """The step that is served next, None when none waits."""
        if len(self._levels) == 1:  # as a rule
            for heap in self._levels.values():
                entry = head(heap)
                return entry[3] if entry is not None else None
        heads = self.heads()
        return min(heads, key=urgency)[4] if heads else None

    def served(self, step: Step) -> None:
        """The step has got its place."""
        heap = self._levels.get(step.priority)
        if heap and heap[0][3] is step:
            if heap[0][0] > self._time:
                self._time = heap[0][0]
            head(heap)

    def __bool__(self) -> bool:
        """Whether a step waits here."""
        return any(head(heap) is not None for heap in self._levels.values())

    def waiting(self) -> Iterator[Step]:
        """Every step that waits here, in no order of use."""
        return (entry[3] for heap in self._levels.values() for entry in heap if counts(entry))


def urgency(head: Head) -> tuple[int, int]:
    """Sorts heads of different priorities: each level is worth some time of waiting."""
    return head[4].ready_at - head[0] * AGED_MS, -head[0]


def counts(entry: Entry) -> bool:
    """Whether the entry is the step's last one, and the step still waits."""
    step = entry[3]
    return step.state is READY and step.mark == entry[2] and not step.parked


def head(heap: list[Entry]) -> Entry | None:
    """The first entry that still waits; those in front of it that don't are dropped."""
    while heap:
        entry = heap[0]
        step = entry[3]
        if step.state is READY and step.mark == entry[2] and not step.parked:
            return entry
        heappop(heap)
    return None
