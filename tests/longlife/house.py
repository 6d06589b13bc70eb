"""The processes of a long-life test: one server, schedulers with a window of their own, workers; and how big they are.

Rule: every process is started by the `Fleet` here and ended with it.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from tests.faults.fleet import READY_S, Fleet, Process

KIB = 1024
SCHEDULER = (sys.executable, "-m", "tests.longlife.leader")
WORKER = (sys.executable, "-m", "mesh.cli", "worker", "tests.longlife.program", "--log-level", "error")


class House(Fleet):
    """A fleet whose schedulers hold `live_runs` runs at once and measure themselves.

    Args:
        folder: logs and the server's store.
        live_runs: the window; 0 for the scheduler's own.
        settings: of the server, see `ServerConfiguration`.
    """

    def __init__(self, folder: Path, live_runs: int = 0, **settings: object) -> None:
        super().__init__(folder)
        if settings:
            from mesh.server import EmbeddedServer

            self.server = EmbeddedServer(folder / "store", **settings)
        self.live_runs = live_runs

    def begin_scheduler(self, **environment: str) -> Process:
        """A scheduler that is not ready yet."""
        window = {"MESH_LIVE_RUNS_MAX": str(self.live_runs)} if self.live_runs else {}
        return self.start(SCHEDULER, **window, **environment)

    def scheduler(self, within_s: float = READY_S) -> Process:
        """A scheduler that leads or follows."""
        process = self.begin_scheduler()
        process.line("ready", within_s)
        return process

    def worker(self, id: str = "", slots: int = 100) -> Process:
        """A worker whose registration the leader has journaled."""
        return self.ready(self.begin_worker(id, slots))

    def begin_worker(self, id: str = "", slots: int = 100, **environment: str) -> Process:
        """A worker that is not ready yet."""
        named = {"MESH_WORKER_ID": id} if id else {}
        return self.start(WORKER, LONGLIFE_SLOTS=str(slots), **named, **environment)

    def store_bytes(self) -> int:
        """What the server's files hold, its logs among them."""
        return sum(path.stat().st_size for path in self.server.store.rglob("*") if path.is_file())


def rss(pid: int) -> int:
    """Resident bytes of a process; 0 when it is gone."""
    return _status(pid, "VmRSS:")


def peak_rss(pid: int) -> int:
    """The most resident bytes that a process ever had."""
    return _status(pid, "VmHWM:")


def cpu_s(pid: int) -> float:
    """User and system time of a process."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _status(pid: int, name: str) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * KIB for line in lines if line.startswith(name)), 0)
