"""The processes of the demo: schedulers and workers, each started as a user would, killed by pid, ended in order.

Rule: none outlives the demo, however that ends; what they log goes to files, to be shown when something is wrong.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from socket import socket

from mesh.server.spawn import spawn
from mesh_sdk.errors import MeshError

NAMESPACE = "demo"
READY_S = 20.0
GRACE_S = 10.0
_LOG_LINES = 12
_ID = re.compile(r"^ready (?:worker )?(\S+)")


@dataclass
class Process:
    """One scheduler or worker.

    Attributes:
        name: as shown, e.g. `worker-2`; a worker's id too.
        id: as the process itself says; a scheduler's is new at each start.
        port: of its metrics.
        killed: by the demo.
    """

    name: str
    port: int
    popen: subprocess.Popen[bytes]
    log: Path
    id: str = ""
    killed: bool = False

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.popen.pid

    @property
    def metrics(self) -> str:
        """Where its metrics are."""
        return f"127.0.0.1:{self.port}"

    def kill(self) -> None:
        """End it as a power cut would."""
        self.killed = True
        os.kill(self.pid, signal.SIGKILL)
        self.popen.wait()

    def tail(self) -> str:
        """The last lines of its log."""
        lines = self.log.read_text(errors="replace").splitlines()
        return "\n".join(f"  {self.name} | {line}" for line in lines[-_LOG_LINES:])

    async def ready(self) -> None:
        """Wait for its line `ready …`, which tells its id.

        Raises:
            MeshError: when it ends instead, or takes too long.
        """
        assert self.popen.stdout is not None
        try:
            async with asyncio.timeout(READY_S):
                line = await asyncio.to_thread(self.popen.stdout.readline)
        except TimeoutError:
            self.popen.kill()  # which also ends the thread that reads
            line = b""
        found = _ID.match(line.decode(errors="replace"))
        if found is None:
            raise MeshError(f"{self.name} did not become ready within {READY_S:g} s; what it said stands above")
        self.id = found[1]


class Processes:
    """All of them, by the order of their start.

    Args:
        url: of the NATS server.
        folder: of their logs.
        metrics_port: of the first one's metrics, the others follow; None for free ones.
        count: how many there will be.
    """

    def __init__(self, url: str, folder: Path, metrics_port: int | None, count: int) -> None:
        self._url = url
        self._folder = folder
        self._ports = _free_ports(count) if metrics_port is None else list(range(metrics_port, metrics_port + count))
        self.all: list[Process] = []

    @property
    def schedulers(self) -> list[Process]:
        """The schedulers, the killed ones too."""
        return [each for each in self.all if each.name.startswith("scheduler")]

    @property
    def workers(self) -> list[Process]:
        """The workers, the killed ones too."""
        return [each for each in self.all if each.name.startswith("worker")]

    def scheduler(self, number: int) -> Process:
        """Start a scheduler."""
        return self._start(f"scheduler-{number}", "scheduler")

    def worker(self, number: int) -> Process:
        """Start a worker."""
        return self._start(f"worker-{number}", "worker", "mesh.demo.workflows:worker")

    def _start(self, name: str, *arguments: str) -> Process:
        port = self._ports[len(self.all)]
        where = ["--url", self._url, "--namespace", NAMESPACE, "--metrics-port", str(port)]
        log = self._folder / f"{name}.log"
        with log.open("wb") as sink:
            popen = spawn(
                [sys.executable, "-m", "mesh.cli", *arguments, *where],
                environment=os.environ | {"MESH_WORKER_ID": name},
                stdout=subprocess.PIPE,
                stderr=sink,
            )
        process = Process(name, port, popen, log)
        self.all.append(process)
        return process

    def end(self) -> list[str]:
        """SIGTERM to the workers, then to the schedulers, SIGKILL to what has not drained in time.

        Returns:
            Those that did not end with 0, with their exit codes; the ones that the demo killed are not asked.
        """
        wrong = []
        for group in (self.workers, self.schedulers):
            living = [each for each in group if not each.killed]
            for each in living:
                each.popen.terminate()
            deadline = time.monotonic() + GRACE_S
            wrong += [f"{each.name} ended with {code}" for each in living if (code := _await_end(each.popen, deadline)) != 0]
        for each in self.all:
            if each.popen.stdout is not None:
                each.popen.stdout.close()
        return wrong


def _await_end(popen: subprocess.Popen[bytes], deadline: float) -> int:
    try:
        return popen.wait(max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        popen.kill()
        return popen.wait()


def _free_ports(count: int) -> list[int]:
    # Held open together, so that they differ.
    with ExitStack() as held:
        sockets = [held.enter_context(socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
