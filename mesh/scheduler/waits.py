"""How many wait for what, counted when somebody asks.

Rule: it only reads, and may be called from the scrape's thread; what is looked at is what waits, not every run.
"""

from __future__ import annotations

from mesh.core.state import State


def in_groups(state: State) -> int:
    """Runs that wait for a place in a concurrency group."""
    count = 0
    for group in list(state.limits.groups):
        if group.full:
            count += sum(ticket.step < 0 and ticket.parked is group for ticket in list(group.pending))
    return count


def on_rates(state: State) -> int:
    """Steps that wait until a rate lets their units pass."""
    if not state.limits.lines:
        return 0  # as a rule: nobody has to look at the runs
    limited = (run for run in list(state.runs.values()) if run.keyed is not None and any(keys.rates for keys in run.keyed.steps))
    return sum(step.parked and (step.ticket is None or not step.ticket.waits_for_place) for run in limited for step in run.steps)


def for_no_worker(state: State) -> int:
    """Steps that none of the workers which register them could run, by its labels or slots; one that is paused could."""
    count = 0
    for queue in list(state.routes.by_pools.values()):
        workers = [worker for pool in queue.pools for worker in list(pool.workers.values())]
        for wish, line in queue.wanting():
            if workers and not any(wish.allows(worker.slots, worker.labels) for worker in workers):
                count += sum(1 for _ in line.waiting())
    return count
