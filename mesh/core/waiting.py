"""Why a step that is ready has no place yet: what it waits for, since when, and until when."""

from __future__ import annotations

from typing import NamedTuple

from mesh.core.flow import Group
from mesh.core.limits import keys_of
from mesh.core.memory import schedule_timeout_ms
from mesh.core.placement import wish_of
from mesh.core.reach import Reaches, lack, reach_of
from mesh.core.run import LIVE, Run
from mesh.core.slots import Worker
from mesh.core.state import State
from mesh.core.step import OUT, READY, Step
from mesh.core.tickets import Ticket

ANCESTORS_MAX = 32
"""So far up a holder of a place is looked for."""


class Wait(NamedTuple):
    """What a step waits for."""

    cause: str
    since: int
    """Core time."""
    until: int
    """Core time at which it waits for this no longer, 0: never."""
    then: str
    """What happens then."""
    worker: str = ""
    """The worker that is waited for, "" when any would do."""
    kind: str = "slots"
    """key, group, rate, worker (that is away or takes no work), labels (or slots that no worker has), or slots: no more than a free one."""


def has_begun(run: Run) -> bool:
    """Whether its first steps were placed, or might have been: no key is awaited, nor a place for the run."""
    if not run.flow.keyed or run.status is not LIVE:
        return True
    return not run.flow.keys if run.keyed is None else run.ticket is None or run.ticket.placed


def admission(state: State, run: Run, known: Reaches | None = None) -> Wait | None:
    """What a run waits for before its first step: a key function's answer, or a place in a group. None when it has begun.

    Args:
        state: which the run is of.
        run: any.
        known: see `reach_of`.
    """
    if has_begun(run):
        return None
    if run.ticket is None:
        return _keys_wait(state, run, known)
    timeout, since = run.flow.definition.admission_timeout_ms, run.wanted_at
    cause = _groups_cause(state, run, run.ticket)
    return Wait(cause, since, since + timeout if timeout else 0, "given up" if timeout else "", kind="group")


def _keys_wait(state: State, run: Run, known: Reaches | None) -> Wait:
    for index in run.flow.keys:
        step = run.steps[index]
        if step.state is READY:
            reach = reach_of(state, step, known)
            return Wait(f"key function {step.name} can't be asked: {reach.cause}", run.started_at, 0, "", reach.worker, "key")
    names = " and ".join(run.steps[index].name for index in run.flow.keys)
    return Wait(f"key function {names} has not answered", run.started_at, 0, "", kind="key")


def waiting_for(state: State, step: Step, known: Reaches | None = None) -> Wait:
    """What a step waits for that is ready, or whose assignment lies in its worker's lane; `known` as for `reach_of`."""
    run = step.run
    timeout = schedule_timeout_ms(step)
    since, until, then = step.ready_at, step.ready_at + timeout if timeout else 0, "given up"
    if step.parked:
        in_group = step.ticket is not None and step.ticket.waits_for_place
        return Wait(_limits_cause(state, step), since, until, then, kind="group" if in_group else "rate")
    if _is_bound(step):
        worker = state.workers.get(run.worker)
        moves_at = step.sticky_at + run.flow.definition.sticky_timeout_ms if step.sticky_at else 0
        if moves_at and (not run.placed or step.state is OUT) and (not until or moves_at < until):
            until, then = moves_at, "moves to another worker"
        return Wait(_bound_cause(step, run.worker, worker), since, until, then, run.worker, "worker")
    reach = reach_of(state, step, known)
    return Wait(reach.cause, since, until, then, reach.worker, reach.kind)


def _is_bound(step: Step) -> bool:
    """Whether the step waits for the worker of its run."""
    run = step.run
    return bool(run.flow.sticky and run.worker) and not run.loose and not step.is_key


def _limits_cause(state: State, step: Step) -> str:
    """Which place or rate it waits for."""
    if step.ticket is not None and step.ticket.waits_for_place:
        return _groups_cause(state, step.run, step.ticket)
    keys = keys_of(step)
    rates = keys.rates if keys is not None else []
    used_up = [rate for rate in rates if state.limits.rates.wait(*rate, state.now) or rate[0] in state.limits.lines]
    named = [f"{key} ({limit} in {per_ms / 1000:g} s)" for key, limit, per_ms, _ in used_up or rates]
    return f"rate limit {' and '.join(named)} is used up"


def _groups_cause(state: State, run: Run, ticket: Ticket) -> str:
    full = [group for group in ticket.groups if group.full] or [group for group in (ticket.parked,) if group is not None]
    return " and ".join(_group_cause(state, run, group) for group in full or ticket.groups)


def _group_cause(state: State, run: Run, group: Group) -> str:
    has = f"group {group.key} has {len(group.placed)} of {group.limit.max_runs}"
    if group.full:
        return has + _held_by_ancestor(state, run, group)
    return f"{has}, and for the rest {len(group.called)} before it wait for slots" if group.called else has


def _held_by_ancestor(state: State, run: Run, group: Group) -> str:
    """Whether it waits for a run that may wait for it; that a child is never admitted is else hard to see."""
    parent, relation = run.parent, "which started this one"
    for _ in range(ANCESTORS_MAX):
        ancestor = state.find(parent[0]) if parent is not None else None
        if parent is None or ancestor is None:
            break
        attempt = ancestor.steps[parent[1]].current
        if ancestor.ticket in group.placed or (attempt is not None and attempt.ticket in group.placed):
            return f", {'one of them ' if group.limit.max_runs > 1 else ''}held by run {ancestor.id}, {relation}"
        parent, relation = ancestor.parent, "from which this one descends"
    return ""


def _bound_cause(step: Step, id: str, worker: Worker | None) -> str:
    if worker is None:
        return f"worker {id} is away"
    if step.state is OUT:
        return f"worker {id} has not started it"
    if worker.draining:
        return f"worker {id} is draining"
    if worker.paused:
        return f"worker {id} is paused"
    if step.action not in worker.pool.actions:
        return f"worker {id} does not register {step.action}"
    if lacks := lack(wish_of(step), [worker]):
        return f"worker {id} does not have {lacks}"
    if worker.room > 0:
        return f"worker {id} full: its free slots are promised to steps on the shared lane"
    return f"worker {id} full: {worker.used + worker.promised} of {worker.slots} slots"
