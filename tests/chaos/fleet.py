"""The processes of a chaos run, each in a place of its own: what ends there is started again, as any supervisor would.

Rule: whoever makes a fault of a process holds its place's lock meanwhile; only then may it be down or stopped.
"""

from __future__ import annotations

import asyncio
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.chaos.clocks import Clocks
from tests.chaos.history import FOLDER_VARIABLE, ROLE_VARIABLE, History
from tests.chaos.network import Network
from tests.chaos.workload import WORKERS
from tests.faults.fleet import Process

SCHEDULERS = ("scheduler-0", "scheduler-1")
CLIENTS = ("client-0", "client-1")
READY_S = 60.0
DRAIN_S = 45.0
"""A worker has 30 s for its steps."""
WATCH_S = 0.2
AGAIN_S = 0.5
ANSWERS = {"stop": "quiet", "tail": "tail "}
"""What a client says when it has done what it was told."""
READY = re.compile(r"^ready (\w+)", re.MULTILINE)
LEADS = re.compile(r"scheduler (\w+) leads in term (\d+)")
COMMANDS = {
    "scheduler": (sys.executable, "-m", "tests.chaos.scheduler"),
    "w": (sys.executable, "-m", "mesh.cli", "worker", "tests.chaos.program"),
    "client": (sys.executable, "-m", "tests.chaos.client"),
}


class Place:
    """Where one process after the other runs, under one name."""

    def __init__(self, name: str, folder: Path, environment: dict[str, str]) -> None:
        self.name = name
        self.lock = asyncio.Lock()
        self.starts = 0
        self.pids: list[int] = []
        """Of all that ran here."""
        self._folder = folder
        self._environment = environment
        self._process: Process | None = None

    @property
    def process(self) -> Process:
        assert self._process is not None
        return self._process

    def start(self) -> None:
        if self._process is not None:
            self._process.kill()  # it has ended: this frees what is left of it
        self.starts += 1
        command = COMMANDS[self.name.partition("-")[0]]
        seed = f"{self._environment['CHAOS_SEED']}-{self.name}-{self.starts}"
        self._process = Process(command, self._folder / f"{self.name}.{self.starts}.log", self._environment | {"CHAOS_SEED": seed})
        self.pids.append(self._process.pid)

    async def end(self) -> int | None:
        """SIGTERM, and its exit code; None when it had to be killed."""
        process = self.process
        if process.code is None:
            process.send(signal.SIGCONT)
            process.send(signal.SIGTERM)
        try:
            return await asyncio.to_thread(process.wait, DRAIN_S)
        except subprocess.TimeoutExpired:
            await asyncio.to_thread(process.kill)
            return None

    async def ready(self, within_s: float = READY_S) -> bool:
        """Until the process says so; one that gives up first is started again."""
        end = time.monotonic() + within_s
        while time.monotonic() < end:
            if any(line.startswith("ready") for line in self.process.output.splitlines()):
                return True
            if self.process.code is not None:
                await asyncio.to_thread(self.start)
            await asyncio.sleep(WATCH_S)
        return False


class Fleet:
    """Two schedulers, four workers with fixed ids, two clients.

    Args:
        folder: of the run.
        history: of the run, and its folder.
        network: between them and the servers.
        clocks: that they see.
        environment: for all.
    """

    def __init__(self, folder: Path, history: History, network: Network, clocks: Clocks, environment: dict[str, str]) -> None:
        self._history = history
        self._clocks = clocks
        self.places: dict[str, Place] = {}
        for name in (*SCHEDULERS, *WORKERS, *CLIENTS):
            own = {"MESH_URL": network.url(name), FOLDER_VARIABLE: str(folder / "history"), ROLE_VARIABLE: name}
            if name in WORKERS:
                own["MESH_WORKER_ID"] = name
            self.places[name] = Place(name, folder / "logs", environment | own | clocks.environment(name))

    async def start(self) -> None:
        """Start all, in the order in which they need one another."""
        for group in (SCHEDULERS, WORKERS, CLIENTS):
            for name in group:
                self.places[name].start()
            ready = await asyncio.gather(*[self.places[name].ready() for name in group])
            assert all(ready), f"{group} are not ready within {READY_S:g} s"

    async def watch(self) -> None:
        """Start again what ends of its own accord, for ever."""
        while True:
            for place in self.places.values():
                if not place.lock.locked() and place.process.code is not None:
                    self._history.say("exit", name=place.name, code=place.process.code, log=str(place.process.log))
                    await asyncio.sleep(AGAIN_S)
                    place.start()
            await asyncio.sleep(WATCH_S)

    def leader(self) -> str | None:
        """The scheduler that leads, by what the two of them have logged."""
        ids: dict[str, str] = {}
        terms = [(0, "")]
        for name in SCHEDULERS:
            output = self.places[name].process.output
            ids |= dict.fromkeys(READY.findall(output), name)
            terms += [(int(term), id) for id, term in LEADS.findall(output)]
        return ids.get(max(terms)[1])

    async def ask(self, name: str, order: str, within_s: float) -> str | None:
        """Tell a process something, and its successor too, until one answers with a line that begins so; that line."""
        place = self.places[name]
        told, end = 0, time.monotonic() + within_s
        while time.monotonic() < end:
            if told != place.starts and place.process.code is None:
                told = place.starts
                place.process.tell(order)
            answer = ANSWERS[order]
            for line in place.process.output.splitlines():
                if line.startswith(answer):
                    return line
            await asyncio.sleep(WATCH_S)
        return None

    async def end(self) -> dict[str, int | None]:
        """SIGTERM to all but the servers, clients first; their exit codes."""
        codes: dict[str, int | None] = {}
        for group in (CLIENTS, WORKERS, SCHEDULERS):
            ended = await asyncio.gather(*[self.places[name].end() for name in group])
            codes |= dict(zip(group, ended, strict=True))
        return codes

    def kill(self) -> None:
        """End whatever is left."""
        for place in self.places.values():
            if place.starts:
                place.process.kill()
            self._clocks.forget(place.pids)
