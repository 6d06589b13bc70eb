"""Simulated processes: a name, what runs in its context, and the ways it can stop.

Rule: a process that was killed leaves nothing but what it had written to its sockets, and of that perhaps not the end.
"""

from __future__ import annotations

import asyncio
from asyncio import Handle
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar, copy_context
from typing import Any


class Process:
    """A process, or (with a `parent`) a thread of one.

    Args:
        name: for the trace.
        parent: whose thread this is: killed with it.
    """

    def __init__(self, name: str, parent: Process | None = None) -> None:
        self.name = name
        self.dead = False
        self.frozen = False
        self.thawed_at = 0.0
        """When it last went on after it had stood still."""
        self.threads: list[Process] = []
        self.on_kill: list[Callable[[], None]] = []
        """What its machine does when it dies: closing its sockets."""
        self._held: list[Handle] = []
        self._fuse = 0
        self._burnt: Callable[[], None] = lambda: None
        self.context: Context = copy_context()
        self.context.run(_PROCESS.set, self)
        if parent is not None:
            parent.threads.append(self)

    def may_run(self, handle: Handle) -> bool:
        """Whether a handle of this process is to be run now. One that must wait is kept."""
        if self.dead:
            return False
        if self._fuse:
            self._fuse -= 1
            if not self._fuse:
                self._burnt()
                return self.may_run(handle)
        if self.frozen:
            self._held.append(handle)
            return False
        return True

    def spawn(self, coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run a coroutine as part of this process."""
        return asyncio.get_running_loop().create_task(coroutine, context=self.context.copy())

    def after(self, handles: int, then: Callable[[], None]) -> None:
        """Do something to this process between two of its handles, this many from now: in the middle of what it does."""
        self._fuse, self._burnt = handles, then

    def kill(self) -> None:
        """End at once."""
        if self.dead:
            return
        self.dead = True
        self._held.clear()
        for thread in self.threads:
            thread.kill()
        for close in self.on_kill:
            close()

    def freeze(self) -> None:
        """Stand still, as under SIGSTOP: the world goes on."""
        self.frozen = True

    def thaw(self) -> None:
        """Go on with all that has gathered meanwhile."""
        self.frozen = False
        held, self._held = self._held, []
        loop = asyncio.get_running_loop()
        self.thawed_at = loop.time()
        loop._ready.extend(held)  # type: ignore[attr-defined]


class _World(Process):
    """The world outside of processes: never stops."""

    def may_run(self, handle: Handle) -> bool:
        return True


class Helpers:
    """Processes that others have started, for one task each: they live for moments, so who is to kill one lies in wait for it."""

    def __init__(self) -> None:
        self.running: list[Process] = []
        self._doomed: list[tuple[int, Callable[[], None]]] = []

    def doom(self, handles: int, killed: Callable[[], None]) -> None:
        """Have the next one die after so many of its handles; `killed` is called then."""
        self._doomed.append((handles, killed))

    def begin(self) -> Process:
        """A new one."""
        helper = Process("helper")
        self.running.append(helper)
        helper.on_kill.append(lambda: self.running.remove(helper))
        if self._doomed:
            handles, killed = self._doomed.pop()
            helper.after(handles, lambda: _end(helper, killed))
        return helper


def _end(helper: Process, killed: Callable[[], None]) -> None:
    killed()
    helper.kill()


_PROCESS: ContextVar[Process] = ContextVar("simulated_process")
OUTSIDE = _World("world")


def process_of(handle: Handle) -> Process:
    """Whose handle this is."""
    return handle._context.get(_PROCESS, OUTSIDE)  # type: ignore[attr-defined,no-any-return]


def current() -> Process:
    """The process that runs here."""
    return _PROCESS.get(OUTSIDE)
