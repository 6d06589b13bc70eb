"""Threads for what users wrote as plain functions: started when first needed, bounded, never the event loop's default pool.

Rule: whatever threads tell the loop goes through one queue, in order, with one wake-up for all that gathered: a step's
spawns come before its outcome. The threads are daemons: a step that never returns must not keep the process from ending.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from contextvars import Context, copy_context
from functools import partial
from queue import SimpleQueue
from typing import Any

Work = Callable[[], Any]
Done = Callable[[Any], None]


class Threads:
    """A pool of at most `count_max` threads.

    Args:
        count_max: how many pieces of work run at once; more of them wait in line.
        name: of the threads, before their numbers.
    """

    def __init__(self, count_max: int, name: str = "mesh-step") -> None:
        self.count_max = count_max
        self._name = name
        self.busy = 0
        self._count = 0
        self._line: SimpleQueue[tuple[Context, Work, Done] | None] = SimpleQueue()
        self._inbox: deque[Callable[[], object]] = deque()
        self._woken = False
        self._loop: asyncio.AbstractEventLoop | None = None

    def open(self) -> None:
        """Say on which event loop results are wanted: the running one."""
        self._loop = asyncio.get_running_loop()

    def submit(self, work: Work, done: Done) -> None:
        """Have work done.

        Args:
            work: called on a thread, with the caller's context variables carried over; must not raise.
            done: called on the event loop with what `work` returned.
        """
        self.busy += 1
        if self.busy > self._count and self._count < self.count_max:
            self._count += 1
            threading.Thread(target=self._run, name=f"{self._name}-{self._count}", daemon=True).start()
        self._line.put((copy_context(), work, done))

    def post(self, call: Callable[[], object]) -> None:
        """Have something called on the event loop, after all that was posted before. From any thread."""
        self._inbox.append(call)
        if self._woken:
            return
        self._woken = True
        assert self._loop is not None, "open() comes first"
        try:
            self._loop.call_soon_threadsafe(self._collect)
        except RuntimeError:  # the loop is closed: nobody is left to hear of it
            self._inbox.clear()

    def close(self) -> None:
        """Let idle threads end; one that runs a step ends after it."""
        for _ in range(self._count):
            self._line.put(None)

    def _run(self) -> None:
        while (item := self._line.get()) is not None:
            context, work, done = item
            self.post(partial(self._finish, done, context.run(work)))
            del item, context, work, done  # what a step leaves behind must not live until the next one

    def _finish(self, done: Done, result: Any) -> None:
        self.busy -= 1
        done(result)

    def _collect(self) -> None:
        self._woken = False  # before looking: whoever posts from here on wakes the loop again
        inbox = self._inbox
        while inbox:
            inbox.popleft()()
