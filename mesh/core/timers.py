"""What must happen at a time, if nothing else happens first.

Most timers are never due: they stand in one queue per length (so in order, without a heap) and are dropped when they
come to the front and mean nothing any more. Only retries and delays, each of its own length, need a heap. Timers are
not part of a snapshot: they follow from the state.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from heapq import heappop, heappush

from mesh.core.run import LIVE, Run
from mesh.core.step import DELAYED, OUT, READY, Attempt, Step

EXECUTION_GRACE_MS = 5_000
"""How much longer than its timeout an attempt may stay silent: the worker itself enforces the timeout."""


class ExecutionTimer:
    """The attempt has had its time."""

    __slots__ = ("at", "attempt")

    def __init__(self, at: int, attempt: Attempt) -> None:
        self.at, self.attempt = at, attempt

    def live(self) -> bool:
        attempt = self.attempt
        return attempt.until == self.at and attempt.step.current is attempt


class ReadyTimer:
    """The step has waited for a place for too long: its schedule timeout, or (sticky) time to move.

    A step of a sticky run, or one that takes several slots, waits on while its assignment lies unstarted in its worker's lane.
    """

    __slots__ = ("at", "let_go_at", "since", "step", "waits")

    def __init__(self, at: int, step: Step, since: int) -> None:
        self.at, self.step, self.waits = at, step, step.waits
        self.since = since
        """`step.sticky_at` when it waits for its own worker, else 0."""
        self.let_go_at = step.let_go_at

    @property
    def sticky(self) -> bool:
        return self.since > 0

    def live(self) -> bool:
        step = self.step
        if step.waits != self.waits or (step.state is not READY and not (step.state is OUT and may_lie(step))):
            return False
        return not self.since or (self.since == step.sticky_at and self.let_go_at == step.let_go_at and not step.recalled)


class RetryTimer:
    """The next attempt of a step is due."""

    __slots__ = ("at", "step")

    def __init__(self, at: int, step: Step) -> None:
        self.at, self.step = at, step

    def live(self) -> bool:
        return self.step.state is DELAYED and self.step.again_at == self.at


class DelayTimer:
    """A delayed run may start."""

    __slots__ = ("at", "run")

    def __init__(self, at: int, run: Run) -> None:
        self.at, self.run = at, run

    def live(self) -> bool:
        return self.run.status is LIVE and self.run.start_at == self.at


class AdmissionTimer:
    """The run has waited for its places in concurrency groups for too long."""

    __slots__ = ("at", "run")

    def __init__(self, at: int, run: Run) -> None:
        self.at, self.run = at, run

    def live(self) -> bool:
        return self.run.status is LIVE and self.run.ticket is not None and not self.run.ticket.placed


class RateTimer:
    """Units of a rate may pass again."""

    __slots__ = ("at", "key", "meant")

    def __init__(self, at: int, key: str, meant: dict[str, int]) -> None:
        self.at, self.key, self.meant = at, key, meant

    def live(self) -> bool:
        return self.meant.get(self.key) == self.at


Timer = RateTimer | AdmissionTimer | ExecutionTimer | ReadyTimer | RetryTimer | DelayTimer


QUEUE_SWEPT = 4_096
"""A queue of this length is swept, and again whenever it has doubled: behind one that is live, dead ones would pile up."""


class _Queue:
    """Timers of one length, in the order of their times."""

    __slots__ = ("sweep_at", "timers")

    def __init__(self) -> None:
        self.timers: deque[Timer] = deque()
        self.sweep_at = QUEUE_SWEPT

    def append(self, timer: Timer) -> None:
        timers = self.timers
        while timers and not timers[0].live():  # here, because a follower never asks what is due
            timers.popleft()
        timers.append(timer)
        if len(timers) > self.sweep_at:
            self.timers = deque(timer for timer in timers if timer.live())
            self.sweep_at = max(QUEUE_SWEPT, 2 * len(self.timers))


class Timers:
    """All timers of one state."""

    def __init__(self) -> None:
        self._queues: dict[tuple[str, int], _Queue] = {}
        self._heap: list[tuple[int, int, Timer]] = []
        self._pushed = 0
        self._rates: dict[str, int] = {}
        """When each rate is asked for next."""
        self.deciding: Run | None = None
        """Whose time has come, as long as that is being decided."""

    def rate(self, key: str, at: int) -> None:
        """Units of this rate may pass at `at`; of several such times the first counts."""
        known = self._rates.get(key)
        if known is None or at < known:
            self._rates[key] = at
            self._push(RateTimer(at, key, self._rates))

    def rate_came(self, key: str) -> None:
        """The time of a rate has come."""
        self._rates.pop(key, None)

    def execution(self, attempt: Attempt, timeout_ms: int) -> None:
        """`attempt.until` is when the attempt is given up."""
        self._append("execution", timeout_ms, ExecutionTimer(attempt.until, attempt))

    def extended(self, attempt: Attempt) -> None:
        """The attempt got more time: `attempt.until` has changed."""
        self._push(ExecutionTimer(attempt.until, attempt))

    def ready(self, step: Step, wait_ms: int, *, late: bool = False) -> None:
        """The step became ready at `step.ready_at` (`late`: some time ago) and may wait `wait_ms` for a place."""
        timer = ReadyTimer(step.ready_at + wait_ms, step, 0)
        if late:
            self._push(timer)
        else:
            self._append("schedule", wait_ms, timer)

    def sticky(self, step: Step, wait_ms: int) -> None:
        """The step waits for its run's worker since `step.sticky_at`, for `wait_ms` at most."""
        self._append("sticky", wait_ms, ReadyTimer(step.sticky_at + wait_ms, step, step.sticky_at))

    def sticky_anew(self, step: Step, now: int, wait_ms: int) -> None:
        """The step waited for its limits until now; from here on it waits for its run's worker."""
        if step.sticky_at:
            self._append("sticky", wait_ms, ReadyTimer(now + wait_ms, step, step.sticky_at))

    def retry(self, step: Step) -> None:
        """The step's next attempt is due at `step.again_at`."""
        self._push(RetryTimer(step.again_at, step))

    def delay(self, run: Run) -> None:
        """The run may start at `run.start_at`."""
        self._push(DelayTimer(run.start_at, run))

    def admission(self, run: Run) -> None:
        """The run waits for its places since `run.wanted_at`, for as long as its workflow lets it."""
        wait = run.flow.definition.admission_timeout_ms
        self._append("admission", wait, AdmissionTimer(run.wanted_at + wait, run))

    def _append(self, kind: str, length: int, timer: Timer) -> None:
        queue = self._queues.get((kind, length))
        if queue is None:
            queue = self._queues[(kind, length)] = _Queue()
        queue.append(timer)

    def _push(self, timer: Timer) -> None:
        heap = self._heap
        while heap and not heap[0][2].live():
            heappop(heap)
        self._pushed += 1
        heappush(heap, (timer.at, self._pushed, timer))

    def due(self, now: int) -> Iterator[Timer]:
        """Every timer that is due and still means something, each once, in the order of their times."""
        found: list[Timer] = []
        for queue in self._queues.values():
            timers = queue.timers
            while timers and (timers[0].at <= now or not timers[0].live()):
                found.append(timers.popleft())
        heap = self._heap
        while heap and (heap[0][0] <= now or not heap[0][2].live()):
            found.append(heappop(heap)[2])
        found.sort(key=_order)
        for timer in found:
            if timer.live():
                self.deciding = _run_of(timer)
                yield timer
        self.deciding = None

    def next_at(self) -> int | None:
        """When `due` must be asked again: never later than the first live timer."""
        times = []
        for queue in self._queues.values():
            timers = queue.timers
            while timers and not timers[0].live():
                timers.popleft()
            if timers:
                times.append(timers[0].at)
        if self._heap:
            times.append(self._heap[0][0])
        return min(times) if times else None


def _run_of(timer: Timer) -> Run | None:
    if isinstance(timer, RateTimer):
        return None
    if isinstance(timer, DelayTimer | AdmissionTimer):
        return timer.run
    return timer.attempt.step.run if isinstance(timer, ExecutionTimer) else timer.step.run


def may_lie(step: Step) -> bool:
    """Whether its assignment may lie unstarted in its worker's lane: it goes there before the worker has room for it."""
    return bool(step.run.flow.sticky) or step.slots > 1


def _order(timer: Timer) -> tuple[int, int, int, bool]:
    """By time, then by what the timer is about: a state that was loaded from an image gives the same order."""
    if isinstance(timer, RateTimer):
        return timer.at, -1, -1, False
    if isinstance(timer, DelayTimer | AdmissionTimer):
        return timer.at, timer.run.number, -1, False
    step = timer.attempt.step if isinstance(timer, ExecutionTimer) else timer.step
    return timer.at, step.run.number, step.index, isinstance(timer, ReadyTimer) and timer.sticky
