"""Concurrency groups: who may go on, and who waits for whom.

A *ticket* is a run, or a step of one, that wants a place in one or more groups; a group is one key of one limit. A ticket goes on
when all its groups have a place for it, and takes all of them at once: so nobody holds a place while waiting for another one.

Who wants several could wait for ever where each is always taken by those that want only that one. So who was passed `PASSES_MAX`
times has places *kept*: one of each of its groups, in the order of their ids, so that no two keep what the other one waits for.

Rule: a place is kept until nothing of its ticket runs any more, cancelled or not; so `max_runs` holds at every moment.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from heapq import heapify, heappush
from operator import attrgetter

from mesh.core.disputes import FIRST_TO_GO
from mesh.core.line import Line
from mesh.core.tickets import SWEPT, Cohort, Ticket
from mesh_sdk.protocol.definitions import GROUP_ROUND_ROBIN, QUEUE_NEWEST, ConcurrencyDefinition

GroupId = tuple[str, str]
"""(limit, key)."""
PASSES_MAX = 4
"""So often the first of a line lets others have its place there, because another of its groups is full."""


class Group:
    """The tickets with one key of one limit."""

    __slots__ = (
        "_pushed", "actions", "ages", "aside", "called", "claimants", "id", "kept", "limit", "limited_by", "line", "live", "pending",
        "placed", "stalled",
    )  # fmt: skip

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
        self.kept: dict[Cohort, None] = {}
        """For whom a place is kept until all its groups have one."""
        self.line: Line[Cohort] = Line()
        """Those that wait for a place here."""
        self.actions: dict[str, int] = {}
        """What those in the line could run if they were called, and how many of them."""
        self.aside: OrderedDict[Cohort, None] = OrderedDict()
        """Those that would be in the line, but one of them looks already for what they would look for."""
        self.claimants: dict[Cohort, None] = {}
        """Those in the line for which other groups keep a place."""
        self.stalled: list[str] = []
        """The actions under which it waits for a slot before it calls any more."""
        self.live = 0
        """Tickets that are not over."""
        self.ages: list[tuple[int, int, int, Ticket]] = []
        """All of them, where somebody may be cancelled: who is cancelled first comes first."""
        self._pushed = 0

    @property
    def full(self) -> bool:
        return len(self.placed) + len(self.kept) >= self.limit.max_runs

    @property
    def spoken_for(self) -> bool:
        """Whether as many wait for a slot as there are places left."""
        return len(self.placed) + len(self.kept) + len(self.called) >= self.limit.max_runs

    @property
    def key(self) -> str:
        return self.id[1]

    def is_shut(self, *, to_steps: bool) -> bool:
        """Whether somebody else comes first: those who have the places, who were called to take them, or who wait in line."""
        return bool(self.actions) or (self.spoken_for if to_steps else self.full)

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
        sign = FIRST_TO_GO.get(self.limit.strategy)
        if sign is None or not self.may_go(ticket):
            return
        if len(self.ages) > 2 * self.live + SWEPT:  # who ends behind one that lives on would stay for ever
            self.ages = [entry for entry in self.ages if self.may_go(entry[3])]
            heapify(self.ages)
        heappush(self.ages, (sign * ticket.order, sign * ticket.step, ticket.number, ticket))

    def may_go(self, ticket: Ticket) -> bool:
        """Whether it could still be cancelled for others."""
        return not (ticket.over or (ticket.placed and self.limit.strategy == QUEUE_NEWEST))

    def enter(self, cohort: Cohort, mark: int) -> None:
        """The cohort waits in line for a place here."""
        self._pushed += 1
        if self._pushed > 2 * len(self.pending) + SWEPT:
            self.line.sweep()
            self._pushed = len(self.pending)
        cohort.is_waiting, cohort.mark, cohort.ready_at = True, mark, cohort.first.ready_at
        self.actions[cohort.action] = self.actions.get(cohort.action, 0) + 1
        if cohort.kept:
            self.claimants[cohort] = None
        self.line.push(cohort)

    def exit(self, cohort: Cohort) -> None:
        """It waits here no more, be it in line or aside."""
        self.aside.pop(cohort, None)
        if cohort.is_waiting:
            cohort.is_waiting = False
            self.claimants.pop(cohort, None)
            self.actions[cohort.action] -= 1
            if not self.actions[cohort.action]:
                del self.actions[cohort.action]


class Groups:
    """Every group that somebody has a place in, or waits for."""

    def __init__(self) -> None:
        self._groups: dict[GroupId, Group] = {}
        self._cohorts: dict[object, Cohort] = {}
        self._marks = 0
        self.freed: OrderedDict[GroupId, None] = OrderedDict()  # a dict takes long to find its first, once many were deleted
        """Groups that have got a place, or somebody in line, since somebody last looked."""
        self.came: OrderedDict[Ticket, None] = OrderedDict()
        """Tickets that somebody may have to be cancelled for, since somebody last looked."""
        self.stalled: dict[str, OrderedDict[GroupId, None]] = {}
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
        """Have it wait for the first of its groups that is shut to it, or with those of its kind.

        False when none is: a run takes its places now, a step is called to look for a slot.
        """
        if ticket.mark:
            return True
        kind = ticket.kind
        cohort = self._cohorts.get(kind)
        if cohort is not None and cohort.size:
            self._join(ticket, cohort, cohort.at)
            return True
        steps = ticket.step >= 0
        shut = next((group for group in ticket.groups if group.is_shut(to_steps=steps)), None)
        if cohort is None and (shut is not None or (steps and ticket.groups)):
            cohort = self._cohorts[kind] = Cohort(ticket, kind)
        if cohort is not None and shut is not None:
            self._join(ticket, cohort, shut)
        elif cohort is not None:
            self._call(ticket, cohort)
        return shut is not None

    def park_late(self, ticket: Ticket) -> bool:
        """There is a slot for it: it waits in line after all if one of its groups is full."""
        full = next((group for group in ticket.groups if group.full), None)
        cohort = ticket.cohort
        if full is not None and cohort is not None and not ticket.mark:
            self.uncall(ticket)
            del cohort.looking[ticket]
            cohort.passed += 1
            self._join(ticket, cohort, full)
        return full is not None

    def _join(self, ticket: Ticket, cohort: Cohort, group: Group) -> None:
        self._marks += 1
        is_first = cohort.add(ticket, self._marks)
        if is_first or group is not cohort.at or not cohort.is_waiting:
            self._line_up(cohort, group)

    def _line_up(self, cohort: Cohort, group: Group) -> None:
        """The cohort waits for a place of this group: in line, or aside while one of it looks for what the others would look for."""
        cohort.at.exit(cohort)
        cohort.at = group
        if group.full or not self._is_represented(cohort):
            self._marks += 1
            group.enter(cohort, self._marks)
            if not group.full:
                self.freed[group.id] = None
        else:
            self.set_aside(cohort)

    def _is_represented(self, cohort: Cohort) -> bool:
        return cohort.waits_for_rate or (cohort.called > 0 and cohort.at.spoken_for)

    def next(self, group: Group) -> Cohort | None:
        """Who is served next of those that wait for this group: by priority, turn and age."""
        while group.actions and (cohort := group.line.first()) is not None:
            if not self._is_represented(cohort):
                return cohort
            self.set_aside(cohort)
        return None

    def set_aside(self, cohort: Cohort) -> None:
        """One of it looks already for what the others would look for: they wait until that one has found it, or is gone."""
        cohort.at.exit(cohort)
        cohort.at.aside[cohort] = None
        self._give_up_kept(cohort)

    def recall(self, group: Group) -> None:
        """The group has a place: one of those aside may be called for it too."""
        if group.aside and not group.spoken_for:
            cohort, _ = group.aside.popitem(last=False)
            self._line_up(cohort, group)

    def advance(self, cohort: Cohort, at: Group) -> Ticket | None:
        """The first of the line for a place that is there: its oldest goes on. None when it has to wait for another group."""
        if cohort.passed >= PASSES_MAX and not cohort.looking:
            shut = self._keep(cohort, at)
        else:
            others = (group for group in cohort.groups if group is not at)
            shut = next((group for group in others if group.is_shut(to_steps=cohort.of_steps)), None)
            cohort.passed += shut is not None
        if shut is not None:
            if at in cohort.kept:
                at.line.served(cohort)
            self._line_up(cohort, shut)
            return None
        at.line.served(cohort)
        ticket = cohort.first
        cohort.remove(ticket)
        at.exit(cohort)
        self._give_up_kept(cohort)  # a step that finds no slot now takes no place, and others may
        if cohort.of_steps:
            self._call(ticket, cohort)
        else:
            ticket.cohort, cohort.passed = None, 0
        self._settle(cohort)
        return ticket

    def _keep(self, cohort: Cohort, at: Group) -> Group | None:
        """Keep places for one that was passed too often. The group that has none for it, if there is one.

        Places are kept in the order of ids, and waited for in that order: so nobody waits for who waits for him.
        """
        for group in sorted(cohort.groups, key=_ID):
            if group in cohort.kept:
                if len(group.placed) + len(group.kept) <= group.limit.max_runs:
                    continue
                self._give_up_kept(cohort)  # the limit has become less
                return group
            if group is not at and (group.full or group.actions):
                return group
            group.kept[cohort] = None
            cohort.kept.append(group)
        return None

    def _give_up_kept(self, cohort: Cohort) -> None:
        while cohort.kept:
            group = cohort.kept.pop()
            del group.kept[cohort]
            self.freed[group.id] = None
        cohort.at.claimants.pop(cohort, None)

    def _call(self, ticket: Ticket, cohort: Cohort) -> None:
        """The step looks for a slot."""
        ticket.cohort, ticket.called = cohort, True
        cohort.looking[ticket] = None
        cohort.called += 1
        for group in ticket.groups:
            group.called[ticket] = None

    def uncall(self, ticket: Ticket) -> None:
        """It does not look for a slot any more, at least for now: others may."""
        if self._uncall(ticket):
            for group in ticket.groups:
                if not group.full and (group.actions or group.aside):
                    self.freed[group.id] = None

    def _uncall(self, ticket: Ticket) -> bool:
        if not ticket.called or ticket.cohort is None:
            return False
        ticket.called = False
        ticket.cohort.called -= 1
        for group in ticket.groups:
            del group.called[ticket]
        return True

    def place(self, ticket: Ticket) -> None:
        """It goes on: it has all its places."""
        for group in ticket.groups:
            group.pending.pop(ticket, None)
            group.placed[ticket] = None
        ticket.placed = True
        if ticket.cohort is not None:
            ticket.cohort.passed = 0
            self._uncall(ticket)
            self._withdraw(ticket)

    def end(self, ticket: Ticket) -> None:
        """Its run (or step) has ended: it waits no more. A place that it has it keeps, until `leave`."""
        if ticket.over:
            return
        ticket.over = True
        self.came.pop(ticket, None)
        for group in ticket.groups:
            group.live -= 1
            group.pending.pop(ticket, None)
        self._withdraw(ticket)

    def _withdraw(self, ticket: Ticket) -> None:
        """It neither waits for places any more nor looks for a slot."""
        cohort = ticket.cohort
        if cohort is None:
            return
        if ticket.mark:
            if cohort.remove(ticket) and cohort.size and cohort.is_waiting:
                self._line_up(cohort, cohort.at)  # its age is another one now
        else:
            self.uncall(ticket)
            del cohort.looking[ticket]
        ticket.cohort = None
        self._settle(cohort)

    def _settle(self, cohort: Cohort) -> None:
        """Fewer of it wait or look: the others wait where they belong by now."""
        if cohort.size:
            if not cohort.is_waiting:
                self._line_up(cohort, cohort.at)
            return
        cohort.at.exit(cohort)
        self._give_up_kept(cohort)
        if not cohort.looking:
            del self._cohorts[cohort.kind]

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

    def stall(self, group: Group) -> None:
        """As many of its steps as it has places for wait for a slot. No more are called before there is one for them."""
        self.unstall(group)
        for cohort in list(group.claimants):  # who waits for a slot keeps no place from others
            self._give_up_kept(cohort)
        group.stalled = list(group.actions)
        for action in group.stalled:
            self.stalled.setdefault(action, OrderedDict())[group.id] = None

    def unstall(self, group: Group) -> None:
        """It is looked at, or has gone."""
        for action in group.stalled:
            of_action = self.stalled[action]
            del of_action[group.id]
            if not of_action:
                del self.stalled[action]
        group.stalled = []


_ID = attrgetter("id")
