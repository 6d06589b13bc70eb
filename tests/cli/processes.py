"""Runs the command `mesh` as users do: a process with its output."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

COMMAND = [sys.executable, "-m", "mesh.cli"]
READY_S = 30.0
END_S = 30.0
SHOWN_LINES = 40


def mesh(*arguments: str, folder: Path, url: str | None = None, code: int = 0) -> str:
    """Run a command to its end, expect its exit code, return its standard output."""
    environment = os.environ | ({"MESH_URL": url} if url else {})
    done = subprocess.run([*COMMAND, *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == code, f"mesh {' '.join(arguments)} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
    return done.stdout


def mesh_json(*arguments: str, folder: Path, url: str | None = None) -> Any:
    """Run a command with `--json`, return what it printed."""
    return json.loads(mesh(*arguments, "--json", folder=folder, url=url))


class Running:
    """A long-running command. Its end is awaited at the end of the `with`: SIGTERM unless it has ended before."""

    def __init__(self, *arguments: str, folder: Path, url: str | None = None, environment: Mapping[str, str] | None = None) -> None:
        self.process = subprocess.Popen(
            [*COMMAND, *arguments],
            cwd=folder,
            env=os.environ | ({"MESH_URL": url} if url else {}) | dict(environment or {}),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.output: list[str] = []
        self.errors: list[str] = []
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._threads = [threading.Thread(target=self._read_output), threading.Thread(target=self._read_errors)]
        for thread in self._threads:
            thread.start()

    def line(self, start: str, within_s: float = READY_S) -> str:
        """The next line of standard output that starts with this."""
        while True:
            try:
                line = self._lines.get(timeout=within_s)
            except queue.Empty:
                raise AssertionError(f"no line {start!r} within {within_s:g} s") from None
            assert line is not None, f"it ended before it printed {start!r}:\n{''.join(self.output)}{''.join(self.errors)}"
            if line.startswith(start):
                return line.rstrip()

    def end(self, how: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal, await the end, return the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(how)
        code = self.process.wait(END_S)
        for thread in self._threads:
            thread.join(END_S)
        for pipe in (self.process.stdout, self.process.stderr):
            assert pipe is not None
            pipe.close()
        return code

    def __enter__(self) -> Running:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            self.end()
        finally:
            self.process.kill()
            if error is not None:
                sys.stderr.write("".join([*self.output, *self.errors[-SHOWN_LINES:]]))

    def _read_output(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.output.append(line)
            self._lines.put(line)
        self._lines.put(None)

    def _read_errors(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.errors.append(line)
