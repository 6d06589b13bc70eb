"""A real mesh for strangers to play with: two schedulers, one worker, their metrics, and what each of them has done."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from urllib.request import urlopen

from mesh_sdk import Mesh
from mesh_sdk.transport.connection import Link
from tests.contract.servers import free_port
from tests.faults import journal
from tests.faults.fleet import SCHEDULER, WORKER, Fleet, Process

NAMES = journal.NAMES
ANSWER_S = 10.0
LOG_BYTES_MAX = 6_000_000


class Place:
    """Use it in a `with Fleet(...) as fleet`.

    Args:
        fleet: a server and nothing else yet.
        standbys: schedulers beside the leader.
    """

    def __init__(self, fleet: Fleet, standbys: int = 0) -> None:
        self.fleet = fleet
        self.url = fleet.server.url
        self.ports: dict[int, int] = {}
        self.leader = self._start(SCHEDULER)
        self.worker = self._start(WORKER)
        self.standbys = [self._start(SCHEDULER) for _ in range(standbys)]

    def _start(self, command: tuple[str, ...]) -> Process:
        port = free_port()
        process = self.fleet.ready(self.fleet.start((*command, "--metrics-port", str(port))))
        self.ports[process.pid] = port
        return process

    def counted(self, process: Process, name: str) -> float:
        """The sum of a counter over its labels."""
        with urlopen(f"http://127.0.0.1:{self.ports[process.pid]}/metrics", timeout=ANSWER_S) as answer:
            text = answer.read().decode()
        return sum(float(value) for value in re.findall(rf"^{name}(?:{{[^}}]*}})? (\S+)$", text, re.MULTILINE))

    def healthy(self, process: Process) -> bool:
        """Its loop goes round, by its own word."""
        with urlopen(f"http://127.0.0.1:{self.ports[process.pid]}/healthz", timeout=ANSWER_S) as answer:
            return bool(answer.status == 200)

    def check_alive(self) -> None:
        """Nobody has ended, and nobody has filled the disk with complaints."""
        for process in self.fleet.processes:
            assert process.code is None, f"{process.command[2:]} ended with {process.code}:\n{process.output[-4_000:]}"
            assert process.log.stat().st_size < LOG_BYTES_MAX, f"{process.command[2:]} says too much"

    async def good_run(self, mesh: Mesh, n: int = 7) -> float:
        """One run; how long it took."""
        began = time.monotonic()
        async with asyncio.timeout(ANSWER_S):
            assert await mesh.run("once", {"n": n}) == {"n": n}
        return time.monotonic() - began

    async def check_records(self, bus: Link) -> None:
        """Nothing stands twice in the journal, and no attempt was executed twice."""
        journal.check_once(await journal.records(bus))
        journal.check_executions(self.fleet.executions())


def resident_bytes(process: Process) -> int:
    """What a process holds in memory."""
    fields = Path(f"/proc/{process.pid}/statm").read_text().split()
    return int(fields[1]) * 4096


async def until(what: str, holds: Callable[[], Awaitable[bool]], within_s: float = ANSWER_S) -> None:
    """Poll until it holds."""
    deadline = time.monotonic() + within_s
    while not await holds():
        assert time.monotonic() < deadline, f"{what}: not within {within_s:g} s"
        await asyncio.sleep(0.02)
