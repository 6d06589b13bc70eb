"""Why a step that is ready has no place yet: what it waits for, since when, and until when."""

from __future__ import annotations

from typing import NamedTuple

from mesh.core.flow import Group, Ticket
from mesh.core.labels import ANYWHERE, Wish, matches, text
from mesh.core.limits import keys_of
from mesh.core.memory import schedule_timeout_ms
from mesh.core.placement import wish_of
from mesh.core.run import LIVE, Run
from mesh.core.slots import Worker
from mesh.core.state import State
from mesh.core.step import OUT, Step


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
    """key, group, rate, worker, labels (or slots that no worker has) or slots."""


def admission(run: Run) -> Wait | None:
    """What a run waits for before its first step: a key function's answer, or a place in a group. None when it has begun."""
    if not run.flow.keyed or run.status is not LIVE:
        return None
    if run.keyed is None:
        names = " and ".join(run.steps[index].name for index in run.flow.keys)
        return Wait(f"key function {names} has not answered", run.started_at, 0, "", kind="key") if names else None
    if run.ticket is None or run.ticket.placed:
        return None
    timeout, since = run.flow.definition.admission_timeout_ms, run.wanted_at
    return Wait(_groups_cause(run.ticket), since, since + timeout if timeout else 0, "given up" if timeout else "", kind="group")


def waiting_for(state: State, step: Step) -> Wait:
    """What a step waits for that is ready, or whose assignment lies in its worker's lane."""
    run = step.run
    timeout = schedule_timeout_ms(step)
    since, until, then = step.ready_at, step.ready_at + timeout if timeout else 0, "given up"
    if step.parked:
        in_group = step.ticket is not None and step.ticket.parked is not None
        return Wait(_limits_cause(step), since, until, then, kind="group" if in_group else "rate")
    if run.flow.sticky and run.worker and not run.loose and not step.is_key:
        worker = state.workers.get(run.worker)
        moves_at = step.sticky_at + run.flow.definition.sticky_timeout_ms if step.sticky_at else 0
        if moves_at and (not run.placed or step.state is OUT) and (not until or moves_at < until):
            until, then = moves_at, "moves to another worker"
        return Wait(_bound_cause(step, run.worker, worker), since, until, then, run.worker, "worker")
    return Wait(_pool_cause(state, step), since, until, then, kind="labels" if is_hopeless(state, step) else "slots")


def _limits_cause(step: Step) -> str:
    """Which place or rate it waits for."""
    if step.ticket is not None and step.ticket.parked is not None:
        return _groups_cause(step.ticket)
    keys = keys_of(step)
    rates = [f"{key} ({limit} in {per_ms / 1000:g} s)" for key, limit, per_ms, _ in keys.rates] if keys is not None else []
    return f"rate limit {' and '.join(rates)} is used up"


def _groups_cause(ticket: Ticket) -> str:
    full = [group for group in ticket.groups if group.full] or [group for group in (ticket.parked,) if group is not None]
    return " and ".join(map(_group_cause, full or ticket.groups))


def _group_cause(group: Group) -> str:
    has = f"group {group.key} has {len(group.placed)} of {group.limit.max_runs}"
    return has if group.full or not group.called else f"{has}, and for the rest {len(group.called)} before it wait for slots"


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
    if lack := _lack(wish_of(step), [worker]):
        return f"worker {id} does not have {lack}"
    if worker.room > 0:
        return f"worker {id} full: its free slots are promised to steps on the shared lane"
    return f"worker {id} full: {worker.used + worker.promised} of {worker.slots} slots"


def _pool_cause(state: State, step: Step) -> str:
    pools = state.routes.queue(step.action).pools
    workers = [worker for pool in pools for worker in pool.workers.values() if worker.takes_work]
    if not workers:
        if any(pool.workers for pool in pools):
            return f"every worker that registers {step.action} is paused or draining"
        return f"no worker registers {step.action}"
    if step.is_key:
        return f"every worker that can run {step.action} has enough key functions to run"
    if lack := _lack(wish_of(step), workers):
        return f"no worker that registers {step.action} has {lack}"
    return f"every slot of {sum(pool.capacity for pool in pools)} that can run {step.action} is taken"


def is_hopeless(state: State, step: Step) -> bool:
    """Whether no worker that is there could ever run the step, by its labels or slots."""
    pools = state.routes.queue(step.action).pools
    workers = [worker for pool in pools for worker in pool.workers.values() if worker.takes_work]
    return bool(workers) and not step.is_key and bool(_lack(wish_of(step), workers))


def _lack(wish: Wish, workers: list[Worker]) -> str:
    """What none of the workers has that a step wants; "" when one of them has it all."""
    if wish is ANYWHERE or any(wish.allows(worker.slots, worker.labels) for worker in workers):
        return ""
    required = [label for label in wish.labels if label.required]
    slots = max(wish.slots, wish.slots_least)
    if all(worker.slots < slots for worker in workers):
        return f"{slots} slots: at most {max(worker.slots for worker in workers)}"
    lacking = [label for label in required if not any(matches(label, worker.labels) for worker in workers)] or required
    return f"label {' and '.join(map(text, lacking))}"
