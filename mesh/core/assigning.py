"""Which waiting step goes out next, and where: the pump that fills free slots."""

from __future__ import annotations

from collections.abc import Callable

from mesh.core import records as facts
from mesh.core.placement import Queue, best_worker, head, rank
from mesh.core.run import LIVE, Run
from mesh.core.slots import Entry, Pool, Worker
from mesh.core.state import State
from mesh.core.step import READY, Step


class Assigning:
    """The part of the core that releases steps."""

    state: State
    token: Callable[[], str]
    out: list[facts.Fact]
    leaving = ""
    """The worker that is being removed right now."""
    replacing = False
    """A newer incarnation of that worker comes in the same decision: nothing is given out before it is there."""

    def place(self, step: Step) -> None:
        """A step waits for a place: fill the pools that serve it, the freest first."""
        if step.run.tied:
            self._follow_parent(step)
        pools = self.state.routes.queue(step.action).pools
        if len(pools) == 1:
            self.pump(pools[0])
            return
        for pool in sorted(pools, key=least_free):
            self.pump(pool)

    def pump(self, pool: Pool) -> None:
        """Release waiting steps while the pool has free slots: by priority, then by age."""
        if self.replacing:
            return
        if self.state.unparked:
            self.state.unparked = False
            for other in list(self.state.pools.values()):
                self.pump(other)
        if pool.waiting:
            self._pump_draining(pool)
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

    def _pump_draining(self, pool: Pool) -> None:
        """What draining workers still begin: nobody else could have their slots."""
        for worker in [worker for worker in pool.waiting.values() if worker.draining and worker.id != self.leaving]:
            while worker.room > 0 and (entry := head(worker.queue)) is not None:
                self._release(entry[3], pool, worker)

    def _pump_mixed(self, pool: Pool, queues: list[Queue]) -> None:
        while pool.free > 0:
            best, worker = self._next(pool, queues)
            if best is None:
                return
            step = best[3]
            if worker is not None and (step.run.worker != worker.id or step.run.loose):
                self.bind(step.run, worker.id, self._why_it_moves(step))
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
            if worker.takes_work and worker.room > 0:
                entry = head(worker.queue)
                if entry is not None and (best is None or entry < best):
                    best, to = entry, worker
        return best, to

    def _release(self, step: Step, pool: Pool, worker: Worker | None) -> None:
        fact = facts.StepReleased(step.run.id, step.index, step.attempt + 1, self.token(), pool.id, worker.id if worker is not None else "")
        self.out.append(fact)
        self.state.apply_released(fact)

    # ---- sticky runs ----------------------------------------------------------------------------------------------------

    def bind(self, run: Run, worker: str, reason: str) -> None:
        """The sticky run belongs to this worker from now on ("": to whoever has room first); children that wait come along."""
        old = run.worker
        self._record_bound(run, worker, reason if old else "")
        home = self.state.workers.get(worker)
        moved = [run] if home is not None and worker != old else []
        while moved and home is not None:  # no recursion: children may have children without end
            for id in moved.pop().spawned or ():
                child = self.state.runs.get(id)
                if child is not None and child.worker == old and _follows(child) and home.pool.actions.issuperset(child.flow.actions):
                    self._record_bound(child, worker, facts.MOVED_PARENT)
                    moved.append(child)

    def _record_bound(self, run: Run, worker: str, reason: str) -> None:
        fact = facts.RunBound(run.id, worker, run.worker, reason)
        self.out.append(fact)
        self.state.apply_bound(fact)

    def _follow_parent(self, step: Step) -> None:
        """A child whose worker takes it no more goes to its parent's, if that is another one by now."""
        run = step.run
        parent = self.state.runs.get(run.parent[0]) if run.parent is not None else None
        if parent is None or parent.worker in ("", run.worker) or not _follows(run):
            return
        own, home = self.state.workers.get(run.worker), self.state.workers.get(parent.worker)
        if (own is None or not own.can_run(step.action)) and home is not None and home.can_run(step.action):
            self.bind(run, home.id, facts.MOVED_PARENT)

    def _why_it_moves(self, step: Step) -> str:
        worker = self.state.workers.get(step.run.worker)
        if worker is None or worker.id == self.leaving:
            return facts.MOVED_GONE
        if worker.draining:
            return facts.MOVED_DRAINING
        return facts.MOVED_FULL if worker.can_run(step.action) else facts.MOVED_UNREGISTERED

    def loosen(self, run: Run) -> None:
        """A SOFT run whose step has waited too long for its worker's room may go anywhere, once nothing of it is left there."""
        if run.flow.sticky != "SOFT" or run.loose or run.placed or run.status is not LIVE:
            return
        latest = self.state.now - run.flow.definition.sticky_timeout_ms
        if any(step.state is READY and 0 < step.sticky_at <= latest for step in run.steps):
            self.bind(run, "", facts.MOVED_FULL)
            for step in run.steps:
                if step.state is READY:
                    self.place(step)

    def place_elsewhere(self, step: Step) -> None:
        """The step's worker has left it lying for too long: to another one that has room, or else back to the same."""
        run = step.run
        pools = [] if run.placed else [pool for pool in self.state.routes.queue(step.action).pools if pool.free > 0]
        others = [best_worker(pool, run.worker) for pool in pools]
        found = [worker for worker in others if worker is not None]
        if found:
            self.bind(run, min(found, key=rank).id, facts.MOVED_LATE)
        self.place(step)


def _follows(child: Run) -> bool:
    """Whether a child may be bound anew along with its parent: it waits, and (HARD) nothing of it was ever given to a worker."""
    return child.tied and not child.placed and (child.flow.sticky == "SOFT" or not child.assigned)


def least_free(pool: Pool) -> int:
    """Sorts the freest pool first."""
    return -pool.free
