"""Which waiting step goes out next, and where: the pump that fills free slots."""

from __future__ import annotations

from collections.abc import Callable

from mesh.core import records as facts
from mesh.core.flow import Ticket
from mesh.core.line import SHARE, Line, urgent_at
from mesh.core.placement import Queue, best_worker, rank, wish_of
from mesh.core.run import LIVE, Run
from mesh.core.slots import Pool, Worker
from mesh.core.state import State
from mesh.core.step import READY, Step

Candidate = tuple[int, int, int, Step, Worker | None]
"""(turn of its key, order of the run's start, order of the push, step, the worker it must go to)."""

KEYS_AT_ONCE = 32
"""Key functions that one worker is given at once."""


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
        if step.ticket is not None:
            self.dispute(step.ticket)
        if step.run.tied and step.run.status is LIVE:
            self._follow_parent(step)
        pools = self.state.routes.queue(step.action).pools
        if len(pools) == 1:
            self.pump(pools[0])
            return
        for pool in sorted(pools, key=least_free):
            self.pump(pool)

    def dispute(self, ticket: Ticket) -> None:
        """A ticket wants its places: who has to go for it is cancelled, itself perhaps."""
        raise NotImplementedError

    def pump(self, pool: Pool) -> None:
        """Release waiting steps while the pool has free slots: by priority, then by fair turn, then by age."""
        if self.replacing:
            return
        if self.state.unparked:
            self.state.unparked = False
            for other in list(self.state.pools.values()):
                self.pump(other)
        if pool.waiting:
            self._pump_draining(pool)
        queues = self.state.routes.by_pool.get(pool.id)
        if not queues:
            return
        queue = queues[0]
        if len(queues) > 1 or queue.choosy or queue.keys is not None or pool.waiting:
            self._pump_keys(pool, queues)
            self._pump_mixed(pool, queues)
            return
        free = pool.free
        while free > 0 and (step := queue.ready.first()) is not None:
            if not step.run.flow.keyed or not self._is_held_back(step):
                self._release(step, pool, None)
                free -= 1

    def _pump_mixed(self, pool: Pool, queues: list[Queue]) -> None:
        while pool.free > 0:
            step, worker = self._next(pool, queues)
            if step is None:
                return
            if step.run.flow.keyed and self._is_held_back(step):
                continue
            if worker is not None and step.run.flow.sticky and (step.run.worker != worker.id or step.run.loose):
                self.bind(step.run, worker.id, self._why_it_moves(step))
            self._release(step, pool, worker)

    def _pump_draining(self, pool: Pool) -> None:
        """What draining workers still begin: nobody else could have their slots."""
        for worker in [worker for worker in pool.waiting.values() if worker.draining and worker.id != self.leaving]:
            while worker.room > 0 and (step := worker.line.first()) is not None:
                self._release(step, pool, worker)

    def _pump_keys(self, pool: Pool, queues: list[Queue]) -> None:
        """Have key functions run, wherever: they take no slot, but of each worker only so many at once."""
        for queue in queues:
            while queue.keys is not None and (step := queue.keys.first()) is not None:
                worker = min((worker for worker in pool.workers.values() if worker.takes_work), key=_fewest_keys, default=None)
                if worker is None or worker.keys_out >= KEYS_AT_ONCE:
                    return
                self._release(step, pool, worker)

    def _is_held_back(self, step: Step) -> bool:
        """Whether it has to wait for its limits after all, now that there is a slot for it."""
        held_back, rate, wait = self.state.limits.holds_back(step, self.state.now)
        if wait:
            self.state.timers.rate(rate, self.state.now + wait)
        return held_back

    def _next(self, pool: Pool, queues: list[Queue]) -> tuple[Step | None, Worker | None]:
        """The first step in order that can go out now, and the worker it must go to."""
        best: dict[int, Candidate] = {}
        rivals = 0
        for queue in queues:
            rivals += self._compare(best, queue.ready, None)
            for wish, line in list(queue.choosy.items()):
                if not line:
                    del queue.choosy[wish]  # all that wanted this were cancelled
                elif (worker := best_worker(pool, wish)) is not None:
                    rivals += self._compare(best, line, worker)
        for worker in pool.waiting.values():
            if worker.takes_work and worker.room > 0:
                rivals += self._compare(best, worker.line, worker)
        if not best:
            return None, None
        priority = min(best, key=lambda priority: _urgency(priority, best[priority])) if len(best) > 1 else next(iter(best))
        turn, _, _, step, to = best[priority]
        if rivals > 1:
            self._next_turn(step, turn, rivals)
        return step, to

    def _compare(self, best: dict[int, Candidate], line: Line[Step], worker: Worker | None) -> int:
        """Have the heads of a line compete; how many there are."""
        turns = self.state.routes.turns
        heads = line.heads()
        for priority, step in heads:
            found = best.get(priority)
            mine = turns.of(step.fair_key), step.run.number, step.mark
            if found is None or mine < found[:3]:
                best[priority] = *mine, step, worker
        return len(heads)

    def _next_turn(self, step: Step, turn: int, rivals: int) -> None:
        """It is the turn of the next key, if there are several lines."""
        turns = self.state.routes.turns
        turns.take(turn, rivals)
        if step.fair_key is not None:
            turns.keep(step.fair_key, turn + SHARE // step.weight)

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
                if child is not None and child.worker == old and _follows(child) and self._suits_all(home, child):
                    self._record_bound(child, worker, facts.MOVED_PARENT)
                    moved.append(child)

    def _suits_all(self, worker: Worker, run: Run) -> bool:
        """Whether the worker could run every step of a sticky run."""
        return worker.pool.actions.issuperset(run.flow.actions) and all(
            wish_of(step).allows(worker.slots, worker.labels) for step in run.steps if not step.is_key
        )

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
        wish = wish_of(step)
        if (own is None or not own.can_run(step.action, wish)) and home is not None and home.can_run(step.action, wish):
            self.bind(run, home.id, facts.MOVED_PARENT)

    def _why_it_moves(self, step: Step) -> str:
        worker = self.state.workers.get(step.run.worker)
        if worker is None or worker.id == self.leaving:
            return facts.MOVED_GONE
        if worker.draining:
            return facts.MOVED_DRAINING
        return facts.MOVED_FULL if worker.can_run(step.action, wish_of(step)) else facts.MOVED_UNREGISTERED

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
        others = [best_worker(pool, wish_of(step), run.worker) for pool in pools]
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


def _fewest_keys(worker: Worker) -> tuple[int, str]:
    return worker.keys_out, worker.id


def _urgency(priority: int, candidate: Candidate) -> tuple[int, int]:
    return urgent_at(candidate[3].ready_at, priority), -priority
