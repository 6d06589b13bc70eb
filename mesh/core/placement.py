"""Where a waiting step may go: queues of waiting steps by the pools that serve them, and the ranking of workers.

Steps whose actions are served by the same pools wait in one queue, so that the best of them is found without looking
at every action. A step that wants a worker, and not just a free slot, waits apart, in one line with those that want the same.
"""

from __future__ import annotations

from collections.abc import Iterable

from mesh.core.labels import ANYWHERE, Wish, overridden, weight
from mesh.core.line import Line, Turns
from mesh.core.slots import Pool, Worker
from mesh.core.step import Step


class Queue:
    """Waiting steps that the same pools can serve."""

    def __init__(self, pools: tuple[Pool, ...]) -> None:
        self.pools = pools
        self.ready: Line[Step] = Line()
        """Those that any free slot will do for."""
        self.choosy: dict[Wish, Line[Step]] = {}
        """Those that want a worker, by what they want."""
        self.hopeless: dict[Wish, Line[Step]] = {}
        """Those that want what no worker has: nobody looks at them until one comes, or comes back with other labels."""
        self._looked: dict[Pool, int] = {}
        """Which workers of each pool are known not to have it: those that joined before."""
        self.keys: Line[Step] | None = None
        """Key functions: they take no slot. None as long as there was none."""

    def push(self, step: Step) -> None:
        """A step waits here from now on."""
        self.line(step).push(step)

    def line(self, step: Step) -> Line[Step]:
        """The line that the step waits in."""
        if step.run.flow.plain and step.run.labels is None:
            return self.ready
        if step.is_key:
            if self.keys is None:
                self.keys = Line()
            return self.keys
        wish = wish_of(step)
        if wish is ANYWHERE:
            return self.ready
        line = self._line_of(wish)
        return line if line is not None else self._new_line(wish)

    def _line_of(self, wish: Wish) -> Line[Step] | None:
        line = self.choosy.get(wish)
        return self.hopeless.get(wish) if line is None and self.hopeless else line

    def _new_line(self, wish: Wish) -> Line[Step]:
        self.look_again()
        hopeful = any(
            worker.takes_work and wish.allows(worker.slots, worker.labels) for pool in self.pools for worker in pool.workers.values()
        )
        line: Line[Step] = Line()
        if hopeful:
            self.choosy[wish] = line
            return line
        self.hopeless[wish] = line
        return line

    def look_again(self) -> None:
        """Workers that have joined since may have what nobody had."""
        looked = self._looked
        if all(looked.get(pool, 0) == pool.joined for pool in self.pools):
            return
        come = [
            worker for pool in self.pools for worker in pool.workers.values() if worker.takes_work and worker.joined > looked.get(pool, 0)
        ]
        self._looked = {pool: pool.joined for pool in self.pools}
        for wish in [wish for wish in self.hopeless if any(wish.allows(worker.slots, worker.labels) for worker in come)]:
            self.choosy[wish] = self.hopeless.pop(wish)

    def wanting(self) -> list[tuple[Wish, Line[Step]]]:
        """Those that want a worker, with those that want what no worker has."""
        return [*self.choosy.items(), *self.hopeless.items()]

    def served(self, step: Step) -> None:
        """The step has got its place: its line goes on."""
        line = self._line_left(step)
        if line is not None:
            line.served(step)
            self._tidy(step, line)

    def left(self, step: Step) -> None:
        """The step waits no more, and has got nothing."""
        line = self._line_left(step)
        if line is not None:
            line.left(step)
            self._tidy(step, line)

    def _line_left(self, step: Step) -> Line[Step] | None:
        """The line that the step was in, if it was in one here: one that is bound to a worker waits there."""
        if step.run.flow.plain and step.run.labels is None:
            return self.ready
        if step.is_key:
            return self.keys
        wish = wish_of(step)
        return self.ready if wish is ANYWHERE else self._line_of(wish)

    def _tidy(self, step: Step, line: Line[Step]) -> None:
        """A line goes with the last one that wanted this."""
        if line is not self.ready and line is not self.keys and not line:
            wish = wish_of(step)
            self.choosy.pop(wish, None)
            self.hopeless.pop(wish, None)

    def take(self, other: Queue) -> None:
        """Be what another queue was."""
        self.ready, self.choosy, self.keys = other.ready, other.choosy, other.keys
        self.hopeless, self._looked = other.hopeless, other._looked

    @property
    def empty(self) -> bool:
        return not (self.ready or self.keys or any(line for _, line in self.wanting()))


def wish_of(step: Step) -> Wish:
    """What the step wants of its worker."""
    wish = step.run.flow.wishes[step.index]
    return wish if step.run.labels is None else wish._replace(labels=overridden(wish.labels, step.run.labels))


class Routes:
    """Which queue a step waits in."""

    def __init__(self) -> None:
        self.by_action: dict[str, Queue] = {}
        self.by_pools: dict[tuple[str, ...], Queue] = {}
        self.by_pool: dict[str, list[Queue]] = {}
        self.nowhere = Queue(())
        self.turns = Turns()
        """Of keys whose steps wait in several lines."""

    def queue(self, action: str) -> Queue:
        """Where steps of this action wait; `nowhere` when no worker registers it."""
        return self.by_action.get(action, self.nowhere)

    def begin_turns_anew(self) -> None:
        """A new leader counts turns of its own."""
        self.turns = Turns()
        for queue in (self.nowhere, *self.by_pools.values()):
            for line in (queue.ready, *queue.choosy.values(), *queue.hopeless.values()):
                line.begin_anew()

    def rebuild(self, pools: Iterable[Pool]) -> None:
        """Follow a change of pools; every waiting step moves along."""
        known, before = self.by_action, [self.nowhere, *self.by_pools.values()]
        serving: dict[str, list[Pool]] = {}
        for pool in pools:
            for action in sorted(pool.actions):
                serving.setdefault(action, []).append(pool)
        self.by_action, self.by_pools, self.by_pool, self.nowhere = {}, {}, {}, Queue(())
        for action, group in serving.items():
            key = tuple(pool.id for pool in group)
            queue = self.by_pools.get(key)
            if queue is None:
                queue = self.by_pools[key] = Queue(tuple(group))
                for pool in group:
                    self.by_pool.setdefault(pool.id, []).append(queue)
            self.by_action[action] = queue
        for old in before:
            heirs = [self.queue(action) for action, queue in known.items() if queue is old]
            if heirs and all(heir is heirs[0] for heir in heirs) and heirs[0].empty:
                heirs[0].take(old)  # as a rule: a worker more, or less, of pools that stay
            else:
                self._move(old)

    def _move(self, old: Queue) -> None:
        """In one pass: with 100,000 steps waiting, a heap operation for each would stop the leader."""
        moved: dict[tuple[str, Wish], list[Step]] = {}
        keys: list[Step] = list(old.keys.waiting()) if old.keys is not None else []
        for line in (old.ready, *old.choosy.values(), *old.hopeless.values()):
            for step in line.waiting():
                moved.setdefault((step.action, wish_of(step)), []).append(step)
        for step in keys:
            self.queue(step.action).push(step)
        for (action, _), steps in moved.items():
            self.queue(action).line(steps[0]).extend(sorted(steps, key=_mark_of))


def _mark_of(step: Step) -> int:
    return step.mark


def best_worker(pool: Pool, wish: Wish, besides: str = "") -> Worker | None:
    """The worker of the pool for such a step, by `rank`; None when none (`besides` that one) has room.

    Where none has room enough, one that has some is given a step that takes several slots: it begins it as soon as it has
    them, and nothing else meanwhile; else smaller steps would take them away for ever, one by one.
    """
    best: Worker | None = None
    ranked: tuple[bool, int, int, int, str] = (False, 0, 0, 0, "")
    for worker in pool.workers.values():
        if (
            worker.room < 1
            or not worker.takes_work
            or worker.id == besides
            or (wish is not ANYWHERE and not wish.allows(worker.slots, worker.labels))
        ):
            continue
        its = worker.room < wish.slots, -weight(wish.labels, worker.labels) if wish.labels else 0, *rank(worker)
        if best is None or its < ranked:
            best, ranked = worker, its
    return best


def rank(worker: Worker) -> tuple[int, int, str]:
    """Sorts the best worker for one more sticky run first: most room, then the fewest runs that belong to it, then by id."""
    return -worker.room, worker.bound, worker.id


def steps_together(pool: Pool, count: int) -> int:
    """How many of `count` steps one message of the shared lane may carry, so that none finds a worker without room.

    One worker takes whatever is released, for nobody else has taken its room. With several it is not known who holds
    what was released before: a message then is a small part of what one of them has.
    """
    workers = [worker for worker in pool.workers.values() if worker.takes_work]
    if len(workers) <= 1:
        return count
    with_room = sum(worker.room > 0 for worker in workers)
    return max(1, min(count // max(1, with_room), pool.capacity // len(workers) // 4))
