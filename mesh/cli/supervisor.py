"""Runs processes of the mesh as children: starts them, waits for their `ready`, starts them again when they die, ends
them in order. One that ends with 0 was told to (drained by an operator, for one), and is left alone.

Rule: no child outlives the supervisor, and the supervisor never waits for anything but its one queue of happenings.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import NoReturn

import click

from mesh.server.spawn import spawn
from mesh_sdk.errors import MeshError

PAUSE_S = 0.5
PAUSE_MAX_S = 8.0
"""A child that dies again and again is started less and less often, at most this far apart."""
STEADY_S = 10.0
"""A child that lived this long starts with a short pause again."""
TURN_S = 60.0
GRACE_S = 40.0
"""How long a child may drain before it is killed."""


def mesh_command(*arguments: str) -> list[str]:
    """The command `mesh` with these arguments, in this interpreter."""
    return [sys.executable, "-m", "mesh.cli", *arguments]


def port_arguments(metrics_port: int | None, offset: int) -> list[str]:
    """`--metrics-port` of the child `offset`: one port for each child, from `metrics_port` on; 0 stays "any"."""
    if metrics_port is None:
        return []
    return ["--metrics-port", str(metrics_port + offset if metrics_port else 0)]


class Stopped(Exception):
    """A signal asked the supervisor to end, or every child has ended because it was told to."""


class ChildFailed(MeshError):
    """A child ended before it was ready; it has told why on standard error.

    Attributes:
        code: its exit code.
    """

    def __init__(self, name: str, code: int) -> None:
        super().__init__(f"{name} ended with exit code {code} before it was ready")
        self.code = code


@dataclass(eq=False)
class Child:
    """One process and how to start it (again).

    Attributes:
        name: stands before each line that it prints.
        command: what runs; see `mesh_command`.
        environment: of the process, whole.
    """

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    process: subprocess.Popen[bytes] | None = None
    ready: bool = False
    started: float = 0.0
    pause: float = PAUSE_S
    due: float = field(default=0.0)
    """When to start it again; 0: not planned."""

    @property
    def pid(self) -> int | None:
        return self.process.pid if self.process else None


class Supervisor:
    """Children by the order of their start; they are ended in the opposite one.

    Args:
        on_change: called whenever a child has been started or has become ready.
    """

    def __init__(self, on_change: Callable[[], None] = lambda: None) -> None:
        self.children: list[Child] = []
        self._happened: SimpleQueue[tuple[str, Child | None, int]] = SimpleQueue()
        self._on_change = on_change
        self._signals = 0

    @contextmanager
    def signals(self) -> Iterator[None]:
        """Have SIGTERM and SIGINT end `wait_ready` and `watch` with `Stopped`; a second one kills the children."""

        def on_signal(number: int, frame: object) -> None:
            self._signals += 1
            self._happened.put(("signal", None, 0))  # the one queue that may be put to from a signal handler

        before = {number: signal.signal(number, on_signal) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def start(self, child: Child) -> None:
        """Start a child, and keep it from now on."""
        if child not in self.children:
            self.children.append(child)
        process = spawn(child.command, environment=child.environment, stdout=subprocess.PIPE)
        child.process, child.ready, child.due, child.started = process, False, 0.0, time.monotonic()
        for follow in (self._listen, self._await_end):
            threading.Thread(target=follow, args=(child, process), name=f"{follow.__name__} {child.name}", daemon=True).start()
        self._on_change()

    def wait_ready(self, *children: Child) -> None:
        """Wait until these children have said that they are ready.

        Raises:
            ChildFailed: when one ends instead.
            Stopped: when a signal comes.
        """
        while not all(child.ready for child in children):
            self._turn(TURN_S, children)

    def watch(self, tick_s: float, on_tick: Callable[[], None] = lambda: None) -> NoReturn:
        """Keep the children running until a signal comes, or none is left: one that died is started again, after a pause.

        Args:
            tick_s: seconds between two calls of `on_tick`.

        Raises:
            Stopped: when a signal comes, or every child has ended with 0.
        """
        while any(child.process is not None or child.due for child in self.children):
            self._turn(tick_s, ())
            on_tick()
        raise Stopped

    def end(self, *children: Child, grace_s: float = GRACE_S) -> None:
        """End children together: SIGTERM, then SIGKILL for what has not drained after `grace_s` seconds or at a second signal."""
        ending = [child.process for child in children if child.process is not None]
        for child in children:
            child.process, child.due = None, 0.0
        for process in ending:
            process.terminate()
        deadline = time.monotonic() + grace_s
        for process in ending:
            while process.poll() is None:
                if time.monotonic() > deadline or self._signals > 1:
                    process.kill()
                with suppress(subprocess.TimeoutExpired):
                    process.wait(0.1)

    def end_all(self) -> None:
        """End every child, one after the other, the last started first."""
        for child in reversed(self.children):
            self.end(child)

    def _turn(self, most_s: float, awaited: Sequence[Child]) -> None:
        """Wait for one happening, deal with it, and start what is due."""
        for child in self._next(self._until_due(most_s)):
            if child in awaited:
                raise ChildFailed(child.name, self._code(child))
            self._follow_end(child, self._code(child))
        now = time.monotonic()
        for child in self.children:
            if child.due and child.due <= now:
                self.start(child)

    def _next(self, timeout: float) -> list[Child]:
        """Wait for something to happen; returns the children that have ended of their own accord."""
        try:
            what, child, pid = self._happened.get(timeout=timeout)
        except Empty:
            return []
        if what == "signal":
            raise Stopped
        if child is None or child.pid != pid:  # told by a process that has been replaced or ended by us
            return []
        if what == "ready":
            child.ready = True
            self._on_change()
            return []
        return [child]

    def _until_due(self, most_s: float) -> float:
        now = time.monotonic()
        return min([most_s, *(max(0.0, child.due - now) for child in self.children if child.due)])

    def _follow_end(self, child: Child, code: int) -> None:
        if code == 0:
            click.echo(f"{child.name} ended with exit code 0, as it was told to; it is not started again", err=True)
            child.process, child.ready = None, False
            self._on_change()
            return
        click.echo(f"{child.name} ended with exit code {code}; it is started again in {child.pause:g} s", err=True)
        self._plan(child)

    def _plan(self, child: Child) -> None:
        now = time.monotonic()
        child.process = None
        if now - child.started > STEADY_S:
            child.pause = PAUSE_S
        child.due = now + child.pause
        child.pause = min(child.pause * 2, PAUSE_MAX_S)

    def _code(self, child: Child) -> int:
        assert child.process is not None
        code = child.process.wait()
        return code if code >= 0 else 128 - code

    def _listen(self, child: Child, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        with process.stdout as lines:
            for line in lines:
                text = line.decode(errors="replace").rstrip()
                click.echo(f"{child.name} | {text}")
                if text.startswith("ready"):
                    self._happened.put(("ready", child, process.pid))

    def _await_end(self, child: Child, process: subprocess.Popen[bytes]) -> None:
        # Not the end of its output: a process that it started may hold that open for ever.
        process.wait()
        self._happened.put(("ended", child, process.pid))
