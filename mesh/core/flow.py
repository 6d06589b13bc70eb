"""Concurrency groups: who may go on, who waits for whom, who is cancelled for whom.

A *ticket* is a run, or a step of one, that wants a place in one or more groups; a group is one key of one limit. A ticket goes on
when all its groups have a place for it, and takes all of them at once: so nobody holds a place while waiting for another one.

Rule: a place is kept until nothing of its ticket runs any more, cancelled or not; so `max_runs` holds at every moment.
"""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heappop, heappush

from mesh_sdk.protocol.definitions import (
    CANCEL_IN_PROGRESS,
    CANCEL_NEWEST,
    GROUP_ROUND_ROBIN,
    QUEUE_NEWEST,
    ConcurrencyDefinition,
)

GroupId = tuple[str, str]
"""(limit, key)."""


class Ticket:
    """A run's or a step's wish for places.

    Attributes:
        run: its run's id.
        step: the step's index, -1 when it is the run's own.
        order: what decides who is newest: the order of the runs' starts.
        priority: of the run: who waits is served by it, then by order.
        groups: those that it needs a place in, all of them.
    """

    __slots__ = ("groups", "order", "over", "parked", "placed", "priority", "run", "step")

    def __init__(self, run: str, step: int, order: int, priority: int, groups: tuple[Group, ...]) -> None:
        self.run, self.step, self.order, self.priority, self.groups = run, step, order, priority, groups
        self.placed = False
        self.over = False
        """Its run (or step) has ended; what still runs of it keeps its places."""
        self.parked: Group | None = None
        """The group that it was found to wait for."""


class Group:
    """The tickets with one key of one limit."""

    __slots__ = ("ages", "id", "limit", "lines", "live", "pending", "placed")

    def __init__(self, id: GroupId, limit: ConcurrencyDefinition) -> None:
        self.id = id
        self.limit = limit
        self.placed: dict[Ticket, None] = {}
        self.pending: dict[Ticket, None] = {}
        """Not placed yet, whichever group they wait for."""
        self.lines: list[tuple[int, int, int, Ticket]] = []
        """Those that wait for a place here: (-priority, order, step, ticket)."""
        self.live = 0
        """Tickets that are not over."""
        self.ages: list[tuple[int, int, Ticket]] = []
        """All of them, where somebody may be cancelled: who is cancelled first comes first."""

    @property
    def full(self) -> bool:
        return len(self.placed) >= self.limit.max_runs

    @property
    def key(self) -> str:
        return self.id[1]


class Groups:
    """Every group that somebody has a place in, or waits for."""

    def __init__(self) -> None:
        self._groups: dict[GroupId, Group] = {}
        self.freed: dict[GroupId, None] = {}
        """Groups that have got a place since somebody last looked."""

    def __len__(self) -> int:
        return len(self._groups)

    def get(self, id: GroupId) -> Group | None:
        return self._groups.get(id)

    def __iter__(self) -> Iterator[Group]:
        return iter(self._groups.values())

    def group(self, id: GroupId, limit: ConcurrencyDefinition) -> Group:
        """The group, made if nobody is in it. The newest definition of its limit counts."""
        found = self._groups.get(id)
        if found is None:
            found = self._groups[id] = Group(id, limit)
        elif found.limit is not limit:
            if limit.max_runs > found.limit.max_runs:
                self.freed[id] = None
            found.limit = limit
        return found

    def arrive(self, ticket: Ticket) -> None:
        """The ticket wants its places from now on."""
        for group in ticket.groups:
            group.pending[ticket] = None
            group.live += 1
            if (sign := _FIRST_TO_GO.get(group.limit.strategy)) is not None:
                heappush(group.ages, (sign * ticket.order, sign * ticket.step, ticket))
        self.park(ticket)

    def park(self, ticket: Ticket) -> bool:
        """Have it wait for the first of its groups that is full; False when none is."""
        full = next((group for group in ticket.groups if group.full), None)
        if full is not None and ticket.parked is not full:
            heappush(full.lines, (-ticket.priority, ticket.order, ticket.step, ticket))
        ticket.parked = full
        return full is not None

    def place(self, ticket: Ticket) -> None:
        """It goes on: it has all its places."""
        ticket.placed, ticket.parked = True, None
        for group in ticket.groups:
            group.pending.pop(ticket, None)
            group.placed[ticket] = None

    def end(self, ticket: Ticket) -> None:
        """Its run (or step) has ended: it waits no more. A place that it has it keeps, until `leave`."""
        ticket.over, ticket.parked = True, None
        for group in ticket.groups:
            group.live -= 1
            group.pending.pop(ticket, None)

    def leave(self, ticket: Ticket) -> None:
        """It is over, and nothing of it runs any more."""
        for group in ticket.groups:
            if ticket in group.placed:
                del group.placed[ticket]
                self.freed[group.id] = None
            if not group.placed and not group.pending:
                self._groups.pop(group.id, None)
                self.freed.pop(group.id, None)

    def next(self, group: Group) -> Ticket | None:
        """Who is served next of those that wait for this group: by priority, then by age."""
        lines = group.lines
        while lines:
            ticket = lines[0][3]
            if ticket.parked is group and ticket in group.pending:
                return ticket
            heappop(lines)
        return None


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
        while ages and ages[0][2].over:
            heappop(ages)
        if not ages:
            break
        kept.append(heappop(ages))
        yield kept[-1][2]
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
