"""Concurrency groups: who may go on, who waits for whom, who is cancelled for whom.

A *ticket* is a run, or a step of one, that wants a place in one or more groups; a group is one key of one limit. A ticket goes on
when all its groups have a place for it, and takes all of them at once: so nobody holds a place while waiting for another one.

Rule: a place is kept until nothing of its ticket runs any more, cancelled or not; so `max_runs` holds at every moment.
"""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heapify, heappop, heappush

from mesh.core.line import FairKey, Line
from mesh_sdk.protocol.definitions import (
    CANCEL_IN_PROGRESS,
    CANCEL_NEWEST,
    GROUP_ROUND_ROBIN,
    QUEUE_NEWEST,
    ConcurrencyDefinition,
)

GroupId = tuple[str, str]
"""(limit, key)."""
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
        ready_at: since when it waits, core time.
    """

    __slots__ = (
        "action", "fair_key", "groups", "mark", "number", "order", "over", "parked", "placed", "priority", "ready_at", "run", "step",
        "weight",
    )  # fmt: skip

    def __init__(self, run: str, step: int, number: int, order: int, groups: tuple[Group, ...], action: str = "") -> None:
        self.run, self.step, self.number, self.order, self.groups, self.action = run, step, number, order, groups, action
        self.ready_at, self.priority = 0, 0
        self.fair_key: FairKey | None = None
        self.weight = 1
        self.mark = 0
        self.placed = False
        self.over = False
        """Its run (or step) has ended; what still runs of it keeps its places."""
        self.parked: Group | None = None
        """The group in whose line it waits."""

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
    def is_waiting(self) -> bool:
        """Whether it waits in a line."""
        return self.parked is not None


class Group:
    """The tickets with one key of one limit."""

    __slots__ = ("_pushed", "actions", "ages", "called", "id", "limit", "limited_by", "line", "live", "pending", "placed", "stalled")

    def __init__(self, id: GroupId, limit: ConcurrencyDefinition, order: int) -> None:
        self.id = id
        self.limit = limit
        self.limited_by = order
        """The newest start among those that came with a limit: its limit counts."""
        self.placed: dict[Ticket, None] = {}
        self.pending: dict[Ticket, None] = {}
        """Not placed yet, whichever group they wait for."""
        self.called: dict[Ticket, None] = {}
        """Of these, steps that wait for a slot: who finds one first takes a place."""
        self.line: Line[Ticket] = Line()
        """Those that wait for a place here."""
        self.actions: dict[str, int] = {}
        """What those in the line could run if they were called, and how many of them."""
        self.stalled: list[str] = []
        """The actions under which it waits for a slot before it calls any more."""
        self.live = 0
        """Tickets that are not over."""
        self.ages: list[tuple[int, int, int, Ticket]] = []
        """All of them, where somebody may be cancelled: who is cancelled first comes first."""
        self._pushed = 0

    @property
    def full(self) -> bool:
        return len(self.placed) >= self.limit.max_runs

    @property
    def spoken_for(self) -> bool:
        """Whether as many wait for a slot as there are places left."""
        return len(self.placed) + len(self.called) >= self.limit.max_runs

    @property
    def key(self) -> str:
        return self.id[1]

    def follow(self, limit: ConcurrencyDefinition) -> None:
        """Another definition of the limit counts from now on."""
        changed = limit.strategy != self.limit.strategy
        self.limit = limit
        if changed:
            self.ages = []
            for ticket in (*self.placed, *self.pending):
                self.remember(ticket)

    def remember(self, ticket: Ticket) -> None:
        """The ticket may be cancelled for others, or for being too many."""
        sign = _FIRST_TO_GO.get(self.limit.strategy)
        if sign is None or ticket.over:
            return
        if len(self.ages) > 2 * self.live + SWEPT:  # who ends behind one that lives on would stay for ever
            self.ages = [entry for entry in self.ages if not entry[3].over]
            heapify(self.ages)
        heappush(self.ages, (sign * ticket.order, sign * ticket.step, ticket.number, ticket))

    def queue(self, ticket: Ticket, mark: int) -> None:
        """The ticket waits for a place here."""
        self._pushed += 1
        if self._pushed > 2 * len(self.pending) + SWEPT:
            self.line.sweep()
            self._pushed = len(self.pending)
        ticket.parked, ticket.mark = self, mark
        self.actions[ticket.action] = self.actions.get(ticket.action, 0) + 1
        self.line.push(ticket)

    def unqueue(self, ticket: Ticket) -> None:
        """It waits here no more."""
        ticket.parked = None
        self.actions[ticket.action] -= 1
        if not self.actions[ticket.action]:
            del self.actions[ticket.action]


class Groups:
    """Every group that somebody has a place in, or waits for."""

    def __init__(self) -> None:
        self._groups: dict[GroupId, Group] = {}
        self._marks = 0
        self.freed: dict[GroupId, None] = {}
        """Groups that have got a place, or somebody in line, since somebody last looked."""
        self.came: dict[Ticket, None] = {}
        """Tickets that somebody may have to be cancelled for, since somebody last looked."""
        self.stalled: dict[str, dict[GroupId, None]] = {}
        """Groups with places left that have called as many, by the actions of those who still wait in their lines."""

    def __len__(self) -> int:
        return len(self._groups)

    def get(self, id: GroupId) -> Group | None:
        return self._groups.get(id)

    def __iter__(self) -> Iterator[Group]:
        return iter(self._groups.values())

    def group(self, id: GroupId, limit: ConcurrencyDefinition, order: int) -> Group:
        """The group, made if nobody is in it. The limit of the newest start counts."""
        found = self._groups.get(id)
        if found is None:
            found = self._groups[id] = Group(id, limit, order)
        elif order >= found.limited_by:
            if limit.max_runs > found.limit.max_runs:
                self.freed[id] = None
            if limit is not found.limit:
                found.follow(limit)
            found.limited_by = order
        return found

    def arrive(self, ticket: Ticket) -> None:
        """The ticket wants its places from now on."""
        for group in ticket.groups:
            group.pending[ticket] = None
            group.live += 1
            group.remember(ticket)
            if group.limit.strategy != GROUP_ROUND_ROBIN:
                self.came[ticket] = None
        self.park(ticket)

    def park(self, ticket: Ticket) -> bool:
        """Have it wait in line for the first of its groups that is shut to it.

        False when none is: a run takes its places now, a step is called to look for a slot.
        """
        shut = next((group for group in ticket.groups if _is_shut(group, ticket)), None)
        if shut is not None:
            self._queue(ticket, shut)
        else:
            if ticket.parked is not None:
                ticket.parked.line.served(ticket)
                ticket.parked.unqueue(ticket)
            if ticket.step >= 0:
                for group in ticket.groups:
                    group.called[ticket] = None
        return shut is not None

    def park_late(self, ticket: Ticket) -> bool:
        """There is a slot for it: it waits in line after all if one of its groups is full."""
        full = next((group for group in ticket.groups if group.full), None)
        if full is not None:
            self._queue(ticket, full)
        return full is not None

    def _queue(self, ticket: Ticket, group: Group) -> None:
        if ticket.parked is group:
            return
        if ticket.parked is not None:
            ticket.parked.unqueue(ticket)
        self.uncall(ticket)
        self._marks += 1
        group.queue(ticket, self._marks)
        if not group.full:
            self.freed[group.id] = None

    def uncall(self, ticket: Ticket) -> None:
        """It does not look for a slot any more, at least for now: others may."""
        for group in ticket.groups:
            if ticket in group.called:
                del group.called[ticket]
                if group.actions and not group.full:
                    self.freed[group.id] = None

    def place(self, ticket: Ticket) -> None:
        """It goes on: it has all its places."""
        if ticket.parked is not None:
            ticket.parked.unqueue(ticket)
        ticket.placed = True
        for group in ticket.groups:
            group.pending.pop(ticket, None)
            group.called.pop(ticket, None)
            group.placed[ticket] = None

    def end(self, ticket: Ticket) -> None:
        """Its run (or step) has ended: it waits no more. A place that it has it keeps, until `leave`."""
        if ticket.over:
            return
        ticket.over = True
        if ticket.parked is not None:
            ticket.parked.unqueue(ticket)
        self.uncall(ticket)
        self.came.pop(ticket, None)
        for group in ticket.groups:
            group.live -= 1
            group.pending.pop(ticket, None)

    def leave(self, ticket: Ticket) -> None:
        """It is over, and nothing of it runs any more."""
        for group in ticket.groups:
            if ticket in group.placed:
                del group.placed[ticket]
                self.freed[group.id] = None
            if not group.placed and not group.pending and self._groups.get(group.id) is group:
                del self._groups[group.id]
                self.freed.pop(group.id, None)
                self.unstall(group)

    def next(self, group: Group) -> Ticket | None:
        """Who is served next of those that wait for this group: by priority, turn and age."""
        return group.line.first() if group.actions else None

    def stall(self, group: Group) -> None:
        """As many of its steps as it has places for wait for a slot. No more are called before there is one for them."""
        self.unstall(group)
        group.stalled = list(group.actions)
        for action in group.stalled:
            self.stalled.setdefault(action, {})[group.id] = None

    def unstall(self, group: Group) -> None:
        """It is looked at, or has gone."""
        for action in group.stalled:
            of_action = self.stalled[action]
            del of_action[group.id]
            if not of_action:
                del self.stalled[action]
        group.stalled = []


def _is_shut(group: Group, ticket: Ticket) -> bool:
    """Whether somebody else comes first: those who have the places, who were called to take them, or who wait before it."""
    if group.full:
        return True
    if group is not ticket.parked and ticket.step >= 0 and group.spoken_for and ticket not in group.called:
        return True
    first = group.line.first() if group.actions else None
    return first is not None and first is not ticket and ticket not in group.called


def losers(ticket: Ticket) -> list[tuple[Ticket, str]]:
    """Who is to be cancelled because this ticket has come, itself perhaps, each with the reason.

    Newest is who was started last, in whatever order keys became known.
    """
    found: dict[Ticket, str] = {}
    for group in ticket.groups:
        for loser, reason in _LOSERS[group.limit.strategy](group, ticket):
            found.setdefault(loser, reason)
    if ticket in found:
        return [(ticket, found[ticket])]
    return list(found.items())


def _cancel_in_progress(group: Group, ticket: Ticket) -> Iterator[tuple[Ticket, str]]:
    for loser in _excess(group):
        yield loser, f"a newer run of group {group.key} took its place (CANCEL_IN_PROGRESS, max_runs {group.limit.max_runs})"


def _cancel_newest(group: Group, ticket: Ticket) -> Iterator[tuple[Ticket, str]]:
    for loser in _excess(group):
        yield loser, f"group {group.key} has {group.limit.max_runs} of {group.limit.max_runs} runs already (CANCEL_NEWEST)"


def _queue_newest(group: Group, ticket: Ticket) -> Iterator[tuple[Ticket, str]]:
    free = max(0, group.limit.max_runs - len(group.placed))
    if len(group.pending) <= max(1, free):
        return
    for loser in sorted(group.pending, key=_by_age)[free:-1]:
        yield loser, f"a newer run of group {group.key} waits instead of it (QUEUE_NEWEST, max_runs {group.limit.max_runs})"


def _excess(group: Group) -> Iterator[Ticket]:
    """Those of a group that are too many, in the order of `ages`."""
    ages, kept = group.ages, []
    for _ in range(group.live - group.limit.max_runs):
        while ages and ages[0][3].over:
            heappop(ages)
        if not ages:
            break
        kept.append(heappop(ages))
        yield kept[-1][3]
    for entry in kept:  # they are not cancelled yet
        heappush(ages, entry)


def _round_robin(group: Group, ticket: Ticket) -> Iterator[tuple[Ticket, str]]:
    return iter(())


_LOSERS = {
    GROUP_ROUND_ROBIN: _round_robin,
    CANCEL_IN_PROGRESS: _cancel_in_progress,
    CANCEL_NEWEST: _cancel_newest,
    QUEUE_NEWEST: _queue_newest,
}


_FIRST_TO_GO = {CANCEL_IN_PROGRESS: 1, CANCEL_NEWEST: -1}
"""Sign of the order: the oldest, or the newest."""


def _by_age(ticket: Ticket) -> tuple[int, int]:
    return ticket.order, ticket.step
