"""A fleet of real processes around one embedded server: schedulers, workers, and the signals that end them.

Rule: every process is started here and ended here, by its own id.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType

from mesh.server import EmbeddedServer
from tests.cluster import Cluster

READY_S = 20.0
END_S = 20.0
SHOWN_BYTES = 6_000
POLL_S = 0.005

SCHEDULER = (sys.executable, "-m", "mesh.cli", "scheduler")
LEADER = (sys.executable, "-m", "tests.faults.leader")
WORKER = (sys.executable, "-m", "mesh.cli", "worker", "tests.faults.program")


def await_that(what: str, holds: Callable[[], bool], within_s: float) -> float:
    """Poll until something holds; how many seconds that took."""
    began = time.monotonic()
    while not holds():
        took = time.monotonic() - began
        assert took < within_s, f"{what}: not within {within_s:g} s"
        time.sleep(POLL_S)
    return time.monotonic() - began


class Process:
    """One process, its output in a file."""

    def __init__(self, command: Sequence[str], log: Path, environment: Mapping[str, str]) -> None:
        self.log = log
        self.command = command
        with log.open("wb") as file:
            self._process = subprocess.Popen(
                list(command), env=os.environ | dict(environment), stdin=subprocess.PIPE, stdout=file, stderr=subprocess.STDOUT
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def code(self) -> int | None:
        """Its exit code, None while it lives."""
        return self._process.poll()

    @property
    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def line(self, start: str, within_s: float = READY_S) -> str:
        """The first line of output that starts with this."""
        found: list[str] = []

        def there() -> bool:
            found[:] = [line for line in self.output.splitlines(keepends=True) if line.startswith(start) and line.endswith("\n")]
            assert found or self.code is None, f"it ended with {self.code} before it said {start!r}:\n{self.output[-SHOWN_BYTES:]}"
            return bool(found)

        await_that(f"{start!r} of {' '.join(self.command[2:])}", there, within_s)
        return found[0].rstrip()

    def tell(self, line: str) -> None:
        """A line on its standard input."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n".encode())
        self._process.stdin.flush()

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def kill(self) -> None:
        """End it as a crash would."""
        self._process.kill()
        self._reap()

    def end(self) -> int:
        """SIGTERM, and its exit code."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGCONT)
            self._process.terminate()
        return self._reap()

    def wait(self, within_s: float = END_S) -> int:
        """Await its end; its exit code."""
        self._process.wait(within_s)
        return self._reap()

    def _reap(self) -> int:
        code = self._process.wait(END_S)
        if self._process.stdin is not None:
            self._process.stdin.close()
        return code


class Fleet:
    """A server, or a cluster of them, and whatever processes are started on it; all of them end with the `with`."""

    def __init__(self, folder: Path, cluster: Cluster | None = None) -> None:
        self.folder = folder
        self.executed = folder / "executed"
        self.executed.mkdir()
        self.server = EmbeddedServer(folder / "store")
        self._servers = cluster or self.server
        self.processes: list[Process] = []

    def start(self, command: Sequence[str], **environment: str) -> Process:
        """Start a process; it is not ready yet."""
        given = {"MESH_URL": self._servers.url, "FAULTS_EXECUTED": str(self.executed), **environment}
        process = Process(command, self.folder / f"{len(self.processes)}.log", given)
        self.processes.append(process)
        return process

    def scheduler(self) -> Process:
        """A scheduler that leads or follows."""
        return self.ready(self.start(SCHEDULER))

    def worker(self, id: str = "", slots: int = 10) -> Process:
        """A worker whose registration the leader has journaled."""
        named = {"MESH_WORKER_ID": id} if id else {}
        return self.ready(self.start(WORKER, FAULTS_SLOTS=str(slots), **named))

    def ready(self, process: Process) -> Process:
        process.line("ready")
        return process

    def executions(self) -> list[tuple[str, str, int, str, int]]:
        """Everything that step functions wrote: (run, step, attempt, start or end, process id)."""
        found = []
        for file in sorted(self.executed.iterdir()):
            for line in file.read_text().splitlines():
                run, step, attempt, what = line.split()
                found.append((run, step, int(attempt), what, int(file.name)))
        return found

    def __enter__(self) -> Fleet:
        self._servers.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for process in self.processes:
            if process.code is None:
                process.send(signal.SIGCONT)
            process.kill()
        self._servers.stop()
