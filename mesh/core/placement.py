"""Where a waiting step may go: queues of waiting steps by the pools that serve them, and the ranking of workers.

Steps whose actions are served by the same pools wait in one queue, so that the best of them is found without looking
at every action. A step of a sticky run that is not bound yet waits apart: it needs a worker, not just a free slot.
"""

from __future__ import annotations

from collections.abc import Iterable
from heapq import heapify, heappop, heappush

from mesh.core.slots import Entry, Pool, Worker
from mesh.core.step import READY, Step


class Queue:
    """Waiting steps that the same pools can serve."""

    def __init__(self, pools: tuple[Pool, ...]) -> None:
        self.pools = pools
        self.ready: list[Entry] = []
        self.sticky: list[Entry] = []


def head(heap: list[Entry]) -> Entry | None:
    """The first entry that still waits; those in front of it that don't are dropped."""
    while heap:
        entry = heap[0]
        step = entry[3]
        if step.state is READY and step.mark == entry[2]:
            return entry
        heappop(heap)
    return None


def push(heap: list[Entry], step: Step) -> None:
    """Add a ready step; its mark tells this entry from older ones of the same step."""
    heappush(heap, (-step.priority, step.run.number, step.mark, step))


class Routes:
    """Which queue a step waits in."""

    def __init__(self) -> None:
        self.by_action: dict[str, Queue] = {}
        self.by_pools: dict[tuple[str, ...], Queue] = {}
        self.by_pool: dict[str, list[Queue]] = {}
        self.nowhere = Queue(())

    def queue(self, action: str) -> Queue:
        """Where steps of this action wait; `nowhere` when no worker registers it."""
        return self.by_action.get(action, self.nowhere)

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
            if heirs and all(heir is heirs[0] for heir in heirs) and not (heirs[0].ready or heirs[0].sticky):
                heirs[0].ready, heirs[0].sticky = old.ready, old.sticky  # as a rule: a worker more, or less, of pools that stay
            else:
                self._move(old.ready, "ready")
                self._move(old.sticky, "sticky")

    def _move(self, heap: list[Entry], kind: str) -> None:
        """In one pass: with 100,000 steps waiting, a heap operation for each would stop the leader."""
        moved: dict[str, list[Entry]] = {}
        for entry in heap:
            step = entry[3]
            if step.state is READY and step.mark == entry[2]:
                moved.setdefault(step.action, []).append(entry)
        for action, entries in moved.items():
            queue = self.queue(action)
            target = queue.sticky if kind == "sticky" else queue.ready
            target.extend(entries)
            heapify(target)


def best_worker(pool: Pool, besides: str = "") -> Worker | None:
    """The worker of the pool to bind a sticky run to, by `rank`; None when none (`besides` that one) has room."""
    best: Worker | None = None
    room = 1
    for worker in pool.workers.values():
        its = worker.room
        if its >= room and worker.takes_work and worker.id != besides and (best is None or its > room or rank(worker) < rank(best)):
            best, room = worker, its
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
