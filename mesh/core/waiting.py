"""Why a step that is ready has no place yet: what it waits for, since when, and until when."""

from __future__ import annotations

from typing import NamedTuple

from mesh.core.memory import schedule_timeout_ms
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


def waiting_for(state: State, step: Step) -> Wait:
    """What a step waits for that is ready, or whose assignment lies in its worker's lane."""
    run = step.run
    timeout = schedule_timeout_ms(step)
    since, until, then = step.ready_at, step.ready_at + timeout if timeout else 0, "given up"
    if run.flow.sticky and run.worker and not run.loose:
        worker = state.workers.get(run.worker)
        moves_at = step.sticky_at + run.flow.definition.sticky_timeout_ms if step.sticky_at else 0
        if moves_at and (not run.placed or step.state is OUT) and (not until or moves_at < until):
            until, then = moves_at, "moves to another worker"
        return Wait(_bound_cause(step, run.worker, worker), since, until, then, run.worker)
    return Wait(_pool_cause(state, step), since, until, then)


def _bound_cause(step: Step, id: str, worker: Worker | None) -> str:
    if worker is None:
        return f"worker {id} is away"
    if step.state is OUT:
        return f"worker {id} has not started it"
    if worker.draining:
        return f"worker {id} is draining"
    if step.action not in worker.pool.actions:
        return f"worker {id} does not register {step.action}"
    if worker.room > 0:
        return f"worker {id} full: its free slots are promised to steps on the shared lane"
    return f"worker {id} full: {worker.used + len(worker.reserved)} of {worker.slots} slots"


def _pool_cause(state: State, step: Step) -> str:
    pools = state.routes.queue(step.action).pools
    if not any(worker.takes_work for pool in pools for worker in pool.workers.values()):
        return f"no worker registers {step.action}"
    return f"every slot of {sum(pool.capacity for pool in pools)} that can run {step.action} is taken"
