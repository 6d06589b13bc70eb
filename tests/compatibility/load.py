"""A load of every kind, and what must be true of it afterwards, whoever was stopped or is of which version meanwhile."""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
from collections import Counter
from typing import NamedTuple

from mesh.core import records as facts
from mesh_sdk import Mesh
from mesh_sdk.protocol.codec import encode
from mesh_sdk.transport.connection import Link
from tests.faults import journal
from tests.faults.fleet import Fleet, Process

WORKER = (sys.executable, "-m", "mesh.cli", "worker", "tests.compatibility.program")
KINDS = ("one", "chain", "soft", "hard", "parent", "limited", "called")
LANES_OF_EACH = 2
"""How many runs of a kind are under way at any time."""
PAUSE_S = 0.01
EVENT_S = 0.03
ENDS_S = 20.0


class Began(NamedTuple):
    """What a step wrote down."""

    workflow: str
    run: str
    step: str
    worker: str


class Load:
    """Runs of every kind and events, until `stop`; whatever is acknowledged is counted."""

    def __init__(self, mesh: Mesh, bus: Link, ms: int = 20) -> None:
        self.mesh = mesh
        self.bus = bus
        self.ms = ms
        self.ended: Counter[str] = Counter()
        self.events = 0
        self._numbers = itertools.count()
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        """Until `stop`, and to the end of everything that was begun."""
        loops = [self._runs(kind) for kind in KINDS for _ in range(LANES_OF_EACH)]
        async with asyncio.TaskGroup() as group:
            for loop in (*loops, self._publish()):
                group.create_task(loop)

    def stop(self) -> None:
        self._stopping.set()

    async def more(self, runs: int = 30) -> None:
        """Until so many runs more have ended, some of each kind."""
        before = self.ended.copy()
        async with asyncio.timeout(ENDS_S):
            while sum(self.ended.values()) < sum(before.values()) + runs or any(self.ended[kind] == before[kind] for kind in KINDS):
                await asyncio.sleep(PAUSE_S)

    async def _runs(self, kind: str) -> None:
        while not self._stopping.is_set():
            n = next(self._numbers)
            assert await self.mesh.run(kind, {"n": n, "ms": self.ms}) == n + 1
            self.ended[kind] += 1

    async def _publish(self) -> None:
        while not self._stopping.is_set():
            await self.bus.append(journal.NAMES.event("upgrade:now"), encode({"n": self.events}))
            self.events += 1
            await asyncio.sleep(EVENT_S)


async def settled(mesh: Mesh) -> None:
    """Until no run is under way."""
    async with asyncio.timeout(ENDS_S):
        while [info for info in await mesh.runs.list(limit=1_000) if info.finished_at is None]:
            await asyncio.sleep(PAUSE_S)


def worker(fleet: Fleet, id: str, **environment: str) -> Process:
    """Start a worker; it is not ready yet."""
    return fleet.start(WORKER, MESH_WORKER_ID=id, **environment)


def began(fleet: Fleet) -> list[Began]:
    """Every step that began, by the workers' own accounts."""
    lines = [line for file in sorted(fleet.executed.iterdir()) for line in file.read_text().splitlines()]
    return [Began(*json.loads(line)) for line in lines]


def check(load: Load, steps: list[Began], found: list[facts.Fact]) -> None:
    """Everything that was acknowledged has ended well, once; HARD runs stayed where they were."""
    journal.check_once(found)
    # A worker that is slow to answer on a busy machine has its message delivered again; that nothing ran twice is checked below.
    failed = [record for record in found if isinstance(record, facts.StepFailed) and not record.error.message.startswith("delivered twice")]
    assert not failed, failed[:3]
    ends = [record for record in found if isinstance(record, facts.RunFinished)]
    assert {record.status for record in ends} == {"succeeded"}
    starts = Counter(record.workflow for record in found if isinstance(record, facts.RunStarted))
    assert starts["heard"] == load.events
    assert starts == {**load.ended, "heard": load.events, "one": load.ended["one"] + load.ended["parent"]}
    assert len(ends) == sum(starts.values())
    twice = [step for step, count in Counter(step[:3] for step in steps).items() if count > 1]
    assert not twice, f"executed more than once: {twice[:5]}"
    places: dict[str, set[str]] = {}
    for step in steps:
        if step.workflow == "hard":
            places.setdefault(step.run, set()).add(step.worker)
    assert len(places) == load.ended["hard"]
    assert not [run for run, workers in places.items() if len(workers) > 1], "HARD has moved"
