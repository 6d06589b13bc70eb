"""An event loop whose clock jumps to the next timer when nothing is left to do now, and that can stop whole processes.

Every handle belongs to the process in whose context it was made. Rule: handles of a dead process are dropped, those of a
frozen one wait; nothing of a dead process is ever run again, `finally` blocks included.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import sys
import warnings
from collections.abc import Callable, Coroutine
from contextlib import suppress
from contextvars import Context, copy_context
from heapq import heapify, heappop, heappush
from typing import Any, TypeVarTuple, Unpack
from unittest.mock import patch

from tests.simulation.process import OUTSIDE, process_of

Args = TypeVarTuple("Args")

EPOCH_S = 1_000.0
"""The clock's first reading."""
HANDLE_S = 2e-6
"""What running a handle takes: time passes for whoever works, too."""
AT_ONCE_MAX = 20_000
"""So many handles before the loop had nothing to do once: something turns round and round."""

CANCELLED_MAX = 500
"""Cancelled timers that may stand around."""


class Stuck(Exception):
    """The simulation can't go on: nothing is left that could happen, or time does not pass any more."""


class SimulatedTask(asyncio.Task[Any]):
    """A task whose hash does not depend on where it lies: sets of tasks have one order in every repetition."""

    _numbers = itertools.count()

    def __init__(self, coroutine: Coroutine[Any, Any, Any], **options: Any) -> None:
        self._number = next(self._numbers)
        super().__init__(coroutine, **options)
        self._log_destroy_pending = False

    def __hash__(self) -> int:
        return self._number

    def __eq__(self, other: object) -> bool:
        return self is other


class SimulatedHandle(asyncio.Handle):
    """A handle without what only debugging needs: making handles is what a simulation does most."""

    __slots__ = ()

    def __init__(self, callback: Any, args: Any, loop: SimulatedLoop, context: Context | None) -> None:
        self._callback, self._args, self._loop = callback, args, loop
        self._context = copy_context() if context is None else context
        self._cancelled = False
        self._repr = self._source_traceback = None


class SimulatedTimer(asyncio.TimerHandle):
    """The same, for later."""

    __slots__ = ()

    def __init__(self, when: float, callback: Any, args: Any, loop: SimulatedLoop, context: Context | None) -> None:
        self._when, self._callback, self._args, self._loop = when, callback, args, loop
        self._context = copy_context() if context is None else context
        self._cancelled, self._scheduled = False, True
        self._repr = self._source_traceback = None


class SimulatedLoop(asyncio.BaseEventLoop):
    """See the module."""

    _ready: Any
    _timer_cancelled_count: int

    def __init__(self) -> None:
        super().__init__()
        self._now = EPOCH_S
        self._at_once = 0
        self._timers: list[tuple[float, int, Any]] = []
        """(when, order, handle): those of one time come in the order in which they were set."""
        self._set = 0
        self.handled = 0
        """Handles run so far."""
        self.problems: list[dict[str, Any]] = []
        self.tasks: list[asyncio.Task[Any]] = []
        """Every task, so that none of a dead process is collected: that would run its `finally` blocks."""
        self.set_task_factory(self._make_task)  # type: ignore[arg-type]
        self.set_exception_handler(lambda loop, problem: self.problems.append(problem))

    def _make_task(self, loop: SimulatedLoop, coroutine: Coroutine[Any, Any, Any], context: Context | None = None) -> asyncio.Task[Any]:
        task = SimulatedTask(coroutine, loop=loop, context=context)
        self.tasks.append(task)
        if len(self.tasks) > 20_000:
            self.tasks = [task for task in self.tasks if not task.done()]
        return task

    def time(self) -> float:
        """Seconds by the simulated clock."""
        return self._now

    def call_soon(self, callback: Callable[[Unpack[Args]], object], *args: *Args, context: Context | None = None) -> asyncio.Handle:
        """Have something called next."""
        handle = SimulatedHandle(callback, args, self, context)
        self._ready.append(handle)
        return handle

    def call_soon_threadsafe(
        self, callback: Callable[[Unpack[Args]], object], *args: *Args, context: Context | None = None
    ) -> asyncio.Handle:
        """All threads of a simulation are tasks of this loop."""
        return self.call_soon(callback, *args, context=context)

    def end(self) -> None:
        """Forget everything that was still to happen: tasks that are left are closed, and nobody hears what they say to that."""
        with warnings.catch_warnings(), patch.object(sys, "unraisablehook", lambda unraisable: None):
            warnings.simplefilter("ignore")
            while self.tasks:
                task = self.tasks.pop()
                if not task.done():
                    with suppress(BaseException):  # whatever its `finally` blocks meet: there is no world any more
                        task.get_coro().close()
            del task
            self._ready.clear()
            self._timers.clear()
            gc.collect()
        self.close()

    def _process_events(self, event_list: object) -> None:
        """There is no selector."""

    def _write_to_self(self) -> None:
        """Nothing waits outside."""

    def _run_once(self) -> None:
        ready = self._ready
        if not ready:
            self._jump()
        for _ in range(len(ready)):
            handle = ready.popleft()
            if handle._cancelled:
                continue
            process = process_of(handle)
            if process is OUTSIDE or process.may_run(handle):
                self.handled += 1
                self._at_once += 1
                self._now += HANDLE_S
                handle._run()
        if self._at_once > AT_ONCE_MAX:
            raise Stuck(f"{AT_ONCE_MAX} handles were run without a pause at {self._now:.6f}: something turns round and round: {handle}")

    def call_at(
        self, when: float, callback: Callable[[Unpack[Args]], object], *args: *Args, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """Have something called at a time."""
        timer = SimulatedTimer(when, callback, args, self, context)
        self._set += 1
        heappush(self._timers, (when, self._set, timer))
        return timer

    def call_later(
        self, delay: float, callback: Callable[[Unpack[Args]], object], *args: *Args, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """Have something called after a while."""
        return self.call_at(self._now + delay, callback, *args, context=context)

    def _jump(self) -> None:
        timers = self._timers
        if self._timer_cancelled_count > CANCELLED_MAX and self._timer_cancelled_count * 2 > len(timers):
            timers[:] = [entry for entry in timers if not entry[2]._cancelled]
            heapify(timers)
            self._timer_cancelled_count = 0
        while timers and timers[0][2]._cancelled:
            heappop(timers)
            self._timer_cancelled_count -= 1
        if not timers:
            raise Stuck("nothing is left that could happen")
        self._at_once = 0
        self._now = max(self._now, timers[0][0])
        while timers and timers[0][0] <= self._now:
            timer = heappop(timers)[2]
            timer._scheduled = False
            if timer._cancelled:
                self._timer_cancelled_count -= 1
            else:
                self._ready.append(timer)
