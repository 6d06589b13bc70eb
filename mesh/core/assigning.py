"""Which waiting step goes out next, and where: the pump that fills free slots."""

from __future__ import annotations

from collections.abc import Callable

from mesh.core import records as facts
from mesh.core.line import SHARE, Line, urgent_at
from mesh.core.placement import Queue, best_worker, rank, wish_of
from mesh.core.run import LIVE, Run
from mesh.core.slots import Pool, Worker
from mesh.core.state import State
from mesh.core.step import READY, Step
from mesh.core.tickets import Ticket

Candidate = tuple[int, int, int, Step, Worker | None]
"""(turn of its key, order of the run's start, order of the push, step, the worker it must go to)."""

KEYS_AT_ONCE = 32
"""Key functions that one worker is given at once."""


HELD_BACK_SINGLY = 64
"""When limits have held so many back in one decision all others are looked at together, and again whenever these are twice as many."""


class Assigning:
    """The part of the core that releases steps."""

    state: State
    token: Callable[[], str]
    out: list[facts.Fact]
    leaving = ""
    """The worker that is being removed right now."""
    replacing = False
    """A newer incarnation of that worker comes in the same decision: nothing is given out before it is there."""

    def record(self, fact: facts.Fact) -> None:
        """A fact has come about."""
        self.out.append(fact)
        self.state.apply(fact)

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
        self._fill(pool, queues)
        for each in queues:
            for crowded in each.pools:
                if crowded.short:
                    self._recall(pool, crowded)

    def _fill(self, pool: Pool, queues: list[Queue]) -> None:
        """Release what waits for the pool's free slots."""
        queue = queues[0]
        for each in queues:
            if each.hopeless:
                each.look_again()
        if len(queues) > 1 or queue.choosy or queue.keys is not None or pool.waiting:
            self._pump_keys(pool, queues)
            self._pump_mixed(pool, queues)
            return
        free, held_back = pool.free, 0
        while free > 0 and (step := queue.ready.first()) is not None:
            if not step.run.flow.keyed or not self._is_held_back(step):
                self._release(step, pool, None)
                free -= 1
                continue
            held_back += 1
            self._hold_back_others(pool, queues, held_back)

    def _pump_mixed(self, pool: Pool, queues: list[Queue]) -> None:
        held_back = 0
        while pool.free > 0:
            step, worker = self._next(pool, queues)
            if step is None:
                return
            if step.run.flow.keyed and self._is_held_back(step):
                held_back += 1
                self._hold_back_others(pool, queues, held_back)
                continue
            if worker is not None and step.run.flow.sticky and (step.run.worker != worker.id or step.run.loose):
                self.bind(step.run, worker.id, self._why_it_moves(step))
            self._release(step, pool, worker)

    def _pump_draining(self, pool: Pool) -> None:
        """What draining workers still begin: nobody else could have their slots."""
        for worker in [worker for worker in pool.waiting.values() if worker.draining and worker.id != self.leaving]:
            while worker.room > 0 and (step := worker.line.first()) is not None:
                if not step.run.flow.keyed or not self._is_held_back(step):
                    self._release(step, pool, worker)

    def _recall(self, pool: Pool, crowded: Pool) -> None:
        """What gathers slots on a worker goes to one that has them, when nobody else wants those; one at a time."""
        for worker in crowded.short.values():
            attempt = next((attempt for attempt in reversed(worker.reserved.values()) if attempt.slots > 1), None)
            if attempt is None or attempt.step.current is not attempt or attempt.step.run.flow.sticky:
                continue
            if attempt.recalled:
                return
            step, wish = attempt.step, wish_of(attempt.step)
            fits = pool.free >= attempt.slots and step.action in pool.actions
            other = best_worker(pool, wish, worker.id) if fits else None
            if other is not None and other.room >= attempt.slots and not self._is_kept_from(pool, step):
                self.record(facts.StepRecalled(attempt.token))
                return

    def _is_kept_from(self, pool: Pool, step: Step) -> bool:
        """Whether a step that gathers slots elsewhere would have to wait here for a rate; it is recalled when that lets it pass, then."""
        limits, now = self.state.limits, self.state.now
        if not limits.hold_up(step, now):
            return False
        wait, rate = limits.slowest(step, now)
        if wait:
            limits.recalls.setdefault(rate, {})[pool.id] = None
            self.state.timers.rate(rate, now + wait)
        return True

    def recall_again(self, rate: str) -> None:
        """Units of the rate may pass: perhaps with what gathers slots elsewhere."""
        for id in self.state.limits.recalls.pop(rate, ()):
            if (pool := self.state.pools.get(id)) is not None:
                self.pump(pool)

    def ask_again(self) -> None:
        """More units of these rates may pass, or with others, than when it was last found out when to ask."""
        limits, now = self.state.limits, self.state.now
        changed, limits.let_pass = limits.let_pass, {}
        for key in changed:
            if at := limits.next_at(key, now):
                self.state.timers.rate(key, at)

    def _pump_keys(self, pool: Pool, queues: list[Queue]) -> None:
        """Have key functions run, wherever: they take no slot, but of each worker only so many at once."""
        for queue in queues:
            while queue.keys is not None and (step := queue.keys.first()) is not None:
                worker = min((worker for worker in pool.workers.values() if worker.takes_work), key=_fewest_keys, default=None)
                if worker is None or worker.keys_out >= KEYS_AT_ONCE:
                    return
                self._release(step, pool, worker)

    def _hold_back_others(self, pool: Pool, queues: list[Queue], held_back: int) -> None:
        """Many were held back: whoever would have to wait behind them for a rate does. One by one, 100,000 would stop the leader."""
        if held_back < HELD_BACK_SINGLY or held_back.bit_count() > 1:
            return
        for line in (line for queue in queues for line in (queue.ready, *queue.choosy.values())):
            self.state.limits.park_all(line)
        for worker in pool.waiting.values():
            self.state.limits.park_all(worker.line)

    def _is_held_back(self, step: Step) -> bool:
        """Whether it has to wait for its limits after all, now that there is a slot for it."""
        held_back, rate, wait = self.state.limits.holds_back(step, self.state.now)
        if wait:
            self.state.timers.rate(rate, self.state.now + wait)
        return held_back

    def _next(self, pool: Pool, queues: list[Queue]) -> tuple[Step | None, Worker | None]:
        """The first step in order that can go out now, and the worker it must go to."""
        lines: list[tuple[Line[Step], Worker | None]] = []
        for queue in queues:
            lines.append((queue.ready, None))
            for wish, line in list(queue.choosy.items()):
                if not line:
                    del queue.choosy[wish]  # all that wanted this wait no more
                elif (worker := best_worker(pool, wish)) is not None:
                    lines.append((line, worker))
        lines += [(worker.line, worker) for worker in pool.waiting.values() if worker.takes_work and worker.room > 0]
        best: dict[int, Candidate] = {}
        rivals = sum(self._compare(best, line, worker) for line, worker in lines)
        if not best:
            return None, None
        priority = min(best, key=lambda priority: _urgency(priority, lines)) if len(best) > 1 else next(iter(best))
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
        late = [step for step in run.steps if step.state is READY and 0 < step.sticky_at <= latest and step.let_go_at <= latest]
        if late and not all(map(self._is_held_up, late)):
            self.bind(run, "", facts.MOVED_FULL)
            for step in run.steps:
                if step.state is READY:
                    self.place(step)

    def _is_held_up(self, step: Step) -> bool:
        """Whether the step waits for its limits, so that no other worker would help. Its time for waiting for this one begins later."""
        if not step.run.flow.keyed or not self.state.limits.hold_up(step, self.state.now):
            return False
        if not step.parked:  # there is no slot either
            step.let_go_at = self.state.now
            self.state.timers.sticky_anew(step, self.state.now, step.run.flow.definition.sticky_timeout_ms)
        return True

    def place_elsewhere(self, step: Step) -> None:
        """The step's worker has left it lying for too long: to another one that has room, or else back to the same."""
        run = step.run
        if not run.flow.sticky:
            self.place(step)
            return
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


def _urgency(priority: int, lines: list[tuple[Line[Step], Worker | None]]) -> tuple[int, int]:
    """Whoever waits longest of a priority counts for those before it in turn as well: else it would wait for each of them as long."""
    oldest = min(since for line, _ in lines if (since := line.since(priority)) is not None)
    return urgent_at(oldest, priority), -priority
