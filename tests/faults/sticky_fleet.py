"""A fleet whose workers run the sticky program: gates to hold its steps, and what the steps wrote down, by their own clocks.

Rule: what is told of a step comes from the worker that ran it, not from the mesh. All processes read one monotonic clock.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple, TypeVar

from mesh.core import records as facts
from mesh_sdk import Mesh
from mesh_sdk.protocol.records import VERSION
from mesh_sdk.reads import RunInfo
from mesh_sdk.refs import RunRef
from mesh_sdk.transport.connection import Link
from tests.faults import journal
from tests.faults.fleet import Fleet, Process

STICKY_WORKER = (sys.executable, "-m", "mesh.cli", "worker", "tests.faults.sticky_program")
WITHIN_S = 15.0
POLL_S = 0.01
ENDED = ("succeeded", "failed", "cancelled", "timed_out")

Found = TypeVar("Found")


class Seen(NamedTuple):
    """What a step wrote down at one moment."""

    run: str
    workflow: str
    step: str
    attempt: int
    retries: int
    moved: bool
    worker: str
    pid: int
    what: str
    note: Any
    at: float


class Span(NamedTuple):
    """One attempt, from its begin to its end."""

    begin: Seen
    until: float
    ended: bool
    """It said so itself; else its process was killed."""


class Sticky:
    """Workers of the sticky program in a fleet."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.folder = fleet.folder / "sticky"
        self.folder.mkdir()
        self.scheduler = fleet.scheduler()
        self._bodies: dict[str, list[Seen]] = {}
        self._read: dict[str, int] = {}

    def start(self, id: str, slots: int = 2, without: str = "") -> Process:
        """Start a worker; it is not ready yet."""
        return self.fleet.start(
            STICKY_WORKER, MESH_WORKER_ID=id, STICKY_FOLDER=str(self.folder), STICKY_SLOTS=str(slots), STICKY_WITHOUT=without
        )

    def workers(self, **slots: int) -> dict[str, Process]:
        """Start workers (`w0=2` is worker w0 with two slots), all at once, and await them."""
        processes = {id: self.start(id, count) for id, count in slots.items()}
        for process in processes.values():
            self.fleet.ready(process)
        return processes

    def open(self, *gates: str) -> None:
        """Let whoever stands at these gates pass, now and later."""
        for name in gates:
            (self.folder / f"{name}.gate").touch()

    def seen(self, run: str = "", step: str = "", what: str = "", worker: str = "") -> list[Seen]:
        """What steps wrote down, in the order of their clocks; all that match."""
        found: list[Seen] = []
        for file in self.folder.glob("*.seen"):
            known = self._bodies.setdefault(file.name, [])
            with file.open("rb") as body:
                body.seek(self._read.get(file.name, 0))
                for line in body:
                    if line.endswith(b"\n"):
                        known.append(Seen(**json.loads(line)))
                        self._read[file.name] = self._read.get(file.name, 0) + len(line)
            found += [
                seen
                for seen in known
                if run in ("", seen.run) and step in ("", seen.step) and what in ("", seen.what) and worker in ("", seen.worker)
            ]
        return sorted(found, key=lambda seen: seen.at)

    def begun(self, run: str, step: str = "", worker: str = "") -> list[Seen]:
        return self.seen(run, step, "begin", worker)

    def spans(self, killed: dict[int, float] | None = None) -> list[Span]:
        """Every attempt; those of a killed process (pid → when) that did not end lasted until then."""
        ends = {(seen.pid, seen.run, seen.step, seen.attempt): seen.at for seen in self.seen() if seen.what in ("end", "fail")}
        found = []
        for seen in self.seen(what="begin"):
            key = (seen.pid, seen.run, seen.step, seen.attempt)
            found.append(Span(seen, ends.get(key, (killed or {}).get(seen.pid, seen.at)), key in ends))
        return found

    # ---- waiting ------------------------------------------------------------------------------------------------------

    async def until(self, what: str, found: Callable[[], Found], within_s: float = WITHIN_S) -> Found:
        """Poll until something is true of what was written down."""
        end = time.monotonic() + within_s
        while not (value := found()):
            assert time.monotonic() < end, f"{what}: not within {within_s:g} s; seen: {_last(self.seen())}"
            await asyncio.sleep(POLL_S)
        return value

    async def begins(self, run: str, step: str = "", worker: str = "", within_s: float = WITHIN_S) -> Seen:
        """Until a step of the run begins (there)."""
        found = await self.until(
            f"{step or 'a step'} of {run} on {worker or 'any worker'}", lambda: self.begun(run, step, worker), within_s
        )
        return found[0]


async def until_true(what: str, ask: Callable[[], Awaitable[Found]], within_s: float = WITHIN_S) -> Found:
    """Poll the mesh until an answer is true."""
    end = time.monotonic() + within_s
    while not (value := await ask()):
        assert time.monotonic() < end, f"{what}: not within {within_s:g} s"
        await asyncio.sleep(2 * POLL_S)
    return value


async def waiting(mesh: Mesh, run: str, told: str, within_s: float = WITHIN_S) -> RunInfo:
    """Until the run waits for a reason that has this in it."""
    latest: list[RunInfo] = []

    async def ask() -> RunInfo | None:
        info = await mesh.runs.get(run)
        latest[:] = [info]
        return info if info.status == "waiting" and told in str(info.waiting) else None

    try:
        found = await until_true(f"run {run} waits for {told!r}", ask, within_s)
    except AssertionError as error:
        raise AssertionError(f"{error}; it is {latest[0].status}, {latest[0].waiting}") from None
    assert found is not None
    return found


async def ended(mesh: Mesh, ref: RunRef[Any], within_s: float = WITHIN_S) -> RunInfo:
    """Until the run has ended, however it ended."""

    async def ask() -> RunInfo | None:
        info = await mesh.runs.get(ref.run_id)
        return info if info.status in ENDED else None

    found = await until_true(f"the end of {ref.run_id}", ask, within_s)
    assert found is not None
    return found


async def blocked(sticky: Sticky, mesh: Mesh, worker: str, slots: int, gate: str, priority: int = 1) -> list[RunRef[Any]]:
    """Fill slots of one worker until the gate is opened."""
    refs = [await mesh.start("hold", {"gates": {"only": gate}}, sticky_worker=worker, priority=priority) for _ in range(slots)]
    for ref in refs:
        await sticky.begins(ref.run_id, worker=worker)
    return refs


async def report(bus: Link, worker: str, incarnation: str, record: object) -> None:
    """Store a record that was made by hand, in the worker's name."""
    await bus.append(journal.NAMES.report, journal.encode([VERSION, worker, incarnation, [record]]))


async def released(bus: Link, run: str) -> list[facts.StepReleased]:
    """Every attempt of the run that was given out."""
    return [record for record in await journal.records(bus) if isinstance(record, facts.StepReleased) and record.run == run]


def _last(seen: list[Seen]) -> str:
    return "; ".join(f"{one.worker} {one.workflow}:{one.step}#{one.attempt} {one.what}" for one in seen[-12:])
