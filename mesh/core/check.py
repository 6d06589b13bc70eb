"""What must hold of the state at every moment; the tests ask after every decision."""

from __future__ import annotations

from collections import Counter

from mesh.core.run import LIVE, Run
from mesh.core.slots import Pool
from mesh.core.state import State
from mesh.core.step import ENDED, HELD, OUT, READY


class BrokenInvariant(Exception):
    """The state contradicts itself: this is a defect of the core, nothing that came off the wire can cause it."""


def check(state: State) -> None:
    """Compare every part of the state with every other. Takes time in proportion to all that is live.

    Raises:
        BrokenInvariant: naming what contradicts what.
    """
    for pool in state.pools.values():
        _check_pool(pool)
    _check_attempts(state)
    waiting = 0
    for run in state.runs.values():
        waiting += _check_run(run)
    bound = Counter(run.worker for run in state.runs.values() if run.worker)
    indexed = {worker: len(runs) for worker, runs in state.bound.items()}
    _require(indexed == bound, f"runs that belong to workers: {indexed} are known, {dict(bound)} do")
    for worker in state.workers.values():
        _require(worker.bound == bound[worker.id], f"worker {worker.id} counts {worker.bound} runs, {bound[worker.id]} belong to it")
    _check_groups(state)
    _require(waiting == state.waiting, f"{waiting} steps are ready, {state.waiting} are counted")


def _check_pool(pool: Pool) -> None:
    active = [worker for worker in pool.workers.values() if worker.takes_work]
    capacity = sum(worker.slots for worker in active)
    busy = sum(min(worker.slots, worker.used + worker.promised) for worker in active)
    _require(capacity == pool.capacity, f"pool {pool.id} counts {pool.capacity} slots, its workers have {capacity}")
    _require(busy == pool.busy, f"pool {pool.id} counts {pool.busy} busy slots, its workers have {busy}")
    for worker in pool.workers.values():
        used = sum(a.slots for a in worker.held.values() if not a.lent)
        promised = sum(a.slots for a in worker.reserved.values())
        counted = worker.used, worker.promised
        _require((used, promised) == counted, f"worker {worker.id} counts {counted} slots used and promised, {used, promised} are")
        _require(all(a.held for a in worker.held.values()), f"worker {worker.id} holds an attempt that isn't held")
        _require(not any(a.held for a in worker.reserved.values()), f"worker {worker.id} reserves an attempt that is held")


def _check_groups(state: State) -> None:
    for group in state.limits.groups:
        waiting = [ticket for ticket in group.pending if ticket.over]
        _require(not waiting, f"group {group.id} has {len(waiting)} tickets waiting that are over")
        live = sum(not ticket.over for ticket in (*group.placed, *group.pending))
        _require(live == group.live, f"group {group.id} counts {group.live} live tickets, {live} are")


def _check_attempts(state: State) -> None:
    places: set[str] = set()
    for pool in state.pools.values():
        places.update(pool.out)
    for worker in state.workers.values():
        places.update(worker.reserved)
        places.update(worker.held)
    _require(places == set(state.attempts), "the ledger and the attempts differ: " + str(sorted(places ^ set(state.attempts))[:5]))


def _check_run(run: Run) -> int:
    _require(run.status is LIVE, f"run {run.id} is {run.status} and among the live ones")
    left = sum(step.state not in ENDED for step in run.steps)
    _require(left == run.left and left > 0, f"run {run.id} counts {run.left} steps left, {left} are")
    if run.flow.sticky:
        places = {
            step.current.worker.id if step.current.worker else "" for step in run.steps if step.current is not None and not step.is_key
        }
        _require(not places or places == {run.worker}, f"sticky run {run.id} belongs to {run.worker!r} and is on {sorted(places)}")
    for step in run.steps:
        has_attempt = step.current is not None
        _require(has_attempt == (step.state in (OUT, HELD)), f"step {step.action} of {run.id} is {step.state}")
    return sum(step.state is READY for step in run.steps)


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise BrokenInvariant(message)
