"""Which waiting step goes out next, and where: the pump that fills free slots."""

from __future__ import annotations

from collections.abc import Callable

from mesh.core import records as facts
from mesh.core.placement import Queue, best_worker, head
from mesh.core.slots import Entry, Pool, Worker
from mesh.core.state import State
from mesh.core.step import Step


class Assigning:
    """The part of the core that releases steps."""

    state: State
    token: Callable[[], str]
    out: list[facts.Fact]

    def place(self, step: Step) -> None:
        """A step waits for a place: fill the pools that serve it, the freest first."""
        pools = self.state.routes.queue(step.action).pools
        if len(pools) == 1:
            self.pump(pools[0])
            return
        for pool in sorted(pools, key=least_free):
            self.pump(pool)

    def pump(self, pool: Pool) -> None:
        """Release waiting steps while the pool has free slots: by priority, then by age."""
        if self.state.unparked:
            self.state.unparked = False
            for other in list(self.state.pools.values()):
                self.pump(other)
        free = pool.capacity - pool.busy - len(pool.out)
        if free <= 0:
            return
        queues = self.state.routes.by_pool.get(pool.id)
        if not queues:
            return
        queue = queues[0]
        if len(queues) > 1 or queue.sticky or pool.waiting:
            self._pump_mixed(pool, queues)
            return
        ready = queue.ready
        while free > 0 and (entry := head(ready)) is not None:
            self._release(entry[3], pool, None)
            free -= 1

    def _pump_mixed(self, pool: Pool, queues: list[Queue]) -> None:
        while pool.free > 0:
            best, worker = self._next(pool, queues)
            if best is None:
                return
            step = best[3]
            if worker is not None and step.run.worker != worker.id:
                fact = facts.RunBound(step.run.id, worker.id)
                self.out.append(fact)
                self.state.apply_bound(fact)
            self._release(step, pool, worker)

    def _next(self, pool: Pool, queues: list[Queue]) -> tuple[Entry | None, Worker | None]:
        """The first step in order that can go out now, and the worker it must go to."""
        best: Entry | None = None
        to: Worker | None = None
        for queue in queues:
            entry = head(queue.ready)
            if entry is not None and (best is None or entry < best):
                best, to = entry, None
            entry = head(queue.sticky)
            if entry is not None and (best is None or entry < best):
                worker = best_worker(pool)
                if worker is not None:
                    best, to = entry, worker
        for worker in pool.waiting.values():
            if worker.room > 0:
                entry = head(worker.queue)
                if entry is not None and (best is None or entry < best):
                    best, to = entry, worker
        return best, to

    def _release(self, step: Step, pool: Pool, worker: Worker | None) -> None:
        fact = facts.StepReleased(step.run.id, step.index, step.attempt + 1, self.token(), pool.id, worker.id if worker is not None else "")
        self.out.append(fact)
        self.state.apply_released(fact)

    def waiting_reason(self, step: Step) -> str:
        """Why a ready step has no place yet, naming what it waits for."""
        run = step.run
        if run.flow.sticky and run.worker:
            worker = self.state.workers.get(run.worker)
            if worker is None:
                return f"waiting: worker {run.worker} is away"
            if step.action not in worker.pool.actions:
                return f"waiting: worker {run.worker} does not register {step.action}"
            return f"waiting: worker {run.worker} full ({worker.used + len(worker.reserved)} of {worker.slots} slots)"
        pools = self.state.routes.queue(step.action).pools
        if not any(worker.takes_work for pool in pools for worker in pool.workers.values()):
            return f"waiting: no worker registers {step.action}"
        return f"waiting: every slot of {sum(pool.capacity for pool in pools)} that can run {step.action} is taken"


def least_free(pool: Pool) -> int:
    """Sorts the freest pool first."""
    return -pool.free
