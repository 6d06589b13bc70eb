"""Who is to be cancelled because somebody has come: what the strategies of limits say.

Rule: newest is who was started last, in whatever order keys became known.
"""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heappop, heappush
from typing import TYPE_CHECKING

from mesh.core.tickets import Ticket
from mesh_sdk.protocol.definitions import CANCEL_IN_PROGRESS, CANCEL_NEWEST, GROUP_ROUND_ROBIN, QUEUE_NEWEST

if TYPE_CHECKING:
    from mesh.core.flow import Group

FIRST_TO_GO = {CANCEL_IN_PROGRESS: 1, CANCEL_NEWEST: -1, QUEUE_NEWEST: -1}
"""Sign of the order in a group's `ages`: the oldest, or the newest."""


def losers(ticket: Ticket) -> list[tuple[Ticket, str]]:
    """Who is to be cancelled because this ticket has come, itself perhaps, each with the reason."""
    found: dict[Ticket, str] = {}
    for group in ticket.groups:
        for loser, reason in _LOSERS[group.limit.strategy](group):
            found.setdefault(loser, reason)
    if ticket in found:
        return [(ticket, found[ticket])]
    return list(found.items())


def _cancel_in_progress(group: Group) -> Iterator[tuple[Ticket, str]]:
    for loser in _first_to_go(group, group.live - group.limit.max_runs):
        yield loser, f"a newer run of group {group.key} took its place (CANCEL_IN_PROGRESS, max_runs {group.limit.max_runs})"


def _cancel_newest(group: Group) -> Iterator[tuple[Ticket, str]]:
    for loser in _first_to_go(group, group.live - group.limit.max_runs):
        yield loser, f"group {group.key} has {group.limit.max_runs} of {group.limit.max_runs} runs already (CANCEL_NEWEST)"


def _queue_newest(group: Group) -> Iterator[tuple[Ticket, str]]:
    """The newest waits, and as many of the oldest as have places."""
    free = max(0, group.limit.max_runs - len(group.placed))
    if len(group.pending) <= max(1, free):
        return
    for loser in _first_to_go(group, len(group.pending) - free)[1:]:
        yield loser, f"a newer run of group {group.key} waits instead of it (QUEUE_NEWEST, max_runs {group.limit.max_runs})"


def _first_to_go(group: Group, count: int) -> list[Ticket]:
    """So many of a group, in the order of `ages`: of those that count there."""
    ages = group.ages
    kept: list[tuple[int, int, int, Ticket]] = []
    while len(kept) < count:
        while ages and not group.may_go(ages[0][3]):
            heappop(ages)
        if not ages:
            break
        kept.append(heappop(ages))
    for entry in kept:  # they are not cancelled yet
        heappush(ages, entry)
    return [entry[3] for entry in kept]


def _round_robin(group: Group) -> Iterator[tuple[Ticket, str]]:
    return iter(())


_LOSERS = {
    GROUP_ROUND_ROBIN: _round_robin,
    CANCEL_IN_PROGRESS: _cancel_in_progress,
    CANCEL_NEWEST: _cancel_newest,
    QUEUE_NEWEST: _queue_newest,
}
