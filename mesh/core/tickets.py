"""Tickets: wishes for places in concurrency groups. Those that differ in nothing but their age are one *cohort*.

Rule: what holds one of a cohort back holds all of it back. So a cohort waits in one line as one, led by its oldest, and what there
is to do when a place is free depends on how many cohorts wait, not on how many tickets.
"""

from __future__ import annotations

from collections.abc import Hashable
from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING

from mesh.core.placement import wish_of

if TYPE_CHECKING:
    from mesh.core.flow import Group
    from mesh.core.line import FairKey
    from mesh.core.run_keys import StepKeys
    from mesh.core.step import Step

SWEPT = 64
"""A heap with so many entries more than twice those that count is swept."""
_STEPS = 1_024
"""More than one run has."""


class Ticket:
    """A run's or a step's wish for places.

    Attributes:
        run: its run's id.
        step: the step's index, -1 when it is the run's own.
        number: of the step's attempt that it is for.
        order: what decides who is newest: the order of the runs' starts.
        groups: those that it needs a place in, all of them.
        action: of the step; "" of a run, which needs no slot when it has its places.
        need: what else the step needs to go on, beside places; equal for two that could go on in the same place.
        ready_at: since when it waits, core time.
    """

    __slots__ = (
        "action", "called", "cohort", "fair_key", "groups", "mark", "need", "number", "order", "over", "placed", "priority", "ready_at",
        "run", "step", "weight",
    )  # fmt: skip

    def __init__(
        self, run: str, step: int, number: int, order: int, groups: tuple[Group, ...], action: str = "", need: Hashable = None
    ) -> None:
        self.run, self.step, self.number, self.order, self.groups, self.action = run, step, number, order, groups, action
        self.need = need
        self.ready_at, self.priority = 0, 0
        self.fair_key: FairKey | None = None
        self.weight = 1
        self.mark = 0
        """Of its entry in its cohort, 0 when it does not wait for places."""
        self.cohort: Cohort | None = None
        """As long as it waits, or looks for a slot."""
        self.called = False
        """It looks for a slot, and counts for its groups as one that may find one any time."""
        self.placed = False
        self.over = False
        """Its run (or step) has ended; what still runs of it keeps its places."""

    def wait(self, since: int, priority: int, turns: tuple[FairKey, int] | None) -> None:
        """How it waits in lines: since when, how urgently, and whose turn it takes (where all have one key, its own)."""
        self.ready_at, self.priority = since, priority
        if turns is not None and any(group.id != turns[0] for group in self.groups):
            self.fair_key, self.weight = turns

    @property
    def age(self) -> int:
        """Sorts tickets by their runs' starts, and those of one run by their steps."""
        return self.order * _STEPS + self.step + 1

    @property
    def parked(self) -> Group | None:
        """The group for which it waits; None when it waits for none."""
        return self.cohort.at if self.mark and self.cohort is not None else None

    @property
    def waits_for_place(self) -> bool:
        """Whether it waits in line for a place, and not behind one like it, for the rate that holds that one back."""
        cohort = self.cohort
        return self.mark > 0 and cohort is not None and (cohort.is_waiting or not cohort.waits_for_rate)

    @property
    def kind(self) -> Hashable:
        """Equal for those of one cohort."""
        return self.groups, self.action, self.need, self.priority, self.fair_key, self.weight


def need_of(step: Step, keys: StepKeys) -> Hashable:
    """What a step needs to go on, beside places: see `Ticket`. Of a run that is bound to a worker, nobody else's is the same."""
    run = step.run
    return run.id if run.flow.sticky or run.worker else (wish_of(step), tuple(keys.rates))


class Cohort:
    """Tickets that differ in nothing but their age, and those of them that look for a slot.

    Attributes:
        at: the group in whose line it waits.
        mark: tells its entry there from older ones.
        size: how many of it wait for places.
        looking: those that were called and have found no slot yet, or wait for a rate.
        called: how many of these may find a slot any time: all but those that wait for a rate.
        passed: how often it was the first of a line, with a place there, and had to wait for another group.
        kept: groups that keep a place for it.
    """

    __slots__ = (
        "_heap", "action", "at", "called", "fair_key", "groups", "is_waiting", "kept", "kind", "looking", "mark", "of_steps", "passed",
        "priority", "ready_at", "size", "weight",
    )  # fmt: skip

    def __init__(self, ticket: Ticket, kind: Hashable) -> None:
        self.kind = kind
        self.groups, self.action, self.of_steps = ticket.groups, ticket.action, ticket.step >= 0
        self.fair_key, self.weight, self.priority = ticket.fair_key, ticket.weight, ticket.priority
        self.at = ticket.groups[0]
        self.ready_at = 0
        """Since when its first waits."""
        self.is_waiting = False
        """Whether it is in line; else it is aside (or empty): one of it looks for what the others would look for too."""
        self.mark = self.size = self.called = self.passed = 0
        self.looking: dict[Ticket, None] = {}
        self.kept: list[Group] = []
        self._heap: list[tuple[int, int, Ticket]] = []

    @property
    def first(self) -> Ticket:
        """Its oldest that waits; there must be one."""
        heap = self._heap
        while heap[0][2].mark != heap[0][1]:
            heappop(heap)
        return heap[0][2]

    @property
    def age(self) -> int:
        return self.first.age

    @property
    def waits_for_rate(self) -> bool:
        """Whether one of it waits for a rate, which the others would wait for too."""
        return len(self.looking) > self.called

    def add(self, ticket: Ticket, mark: int) -> bool:
        """The ticket waits from now on. Whether it is the first."""
        ticket.cohort, ticket.mark = self, mark
        self.size += 1
        if len(self._heap) > 2 * self.size + SWEPT:
            self._heap = [entry for entry in self._heap if entry[2].mark == entry[1]]
            heapify(self._heap)
        heappush(self._heap, (ticket.age, mark, ticket))
        return self.first is ticket

    def remove(self, ticket: Ticket) -> bool:
        """The ticket waits no more. Whether it was the first."""
        was_first = self.first is ticket
        ticket.mark = 0
        self.size -= 1
        return was_first
