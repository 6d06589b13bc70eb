"""`make failover`: how long the mesh stands still when something dies, many times over. Prints a table; ends with 1 if a promise is broken.

Measured from just before the signal to the first run that was started after it and has ended (schedulers), or to the moment at which
the last of the dead worker's steps has begun elsewhere, by the steps' own clocks (workers).
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from mesh_sdk import Mesh
from tests.faults.fleet import SCHEDULER, Fleet, Process, await_that

STEPS = 4
"""That the worker has in its hands when it dies."""
WITHIN_S = 15.0


class Row:
    """One kind of death, and what was promised for it."""

    def __init__(self, name: str, p50_s: float | None, most_s: float) -> None:
        self.name, self.p50_s, self.most_s = name, p50_s, most_s
        self.took: list[float] = []

    def kept(self) -> bool:
        """Whether the promise holds."""
        return max(self.took) < self.most_s and (self.p50_s is None or statistics.median(self.took) < self.p50_s)

    def __str__(self) -> str:
        asked = f"< {self.most_s:g} s" if self.p50_s is None else f"p50 < {self.p50_s:g} s, < {self.most_s:g} s"
        found = f"p50 {statistics.median(self.took):6.3f} s   max {max(self.took):6.3f} s"
        return f"{self.name:<44} {len(self.took):>3} times   {found}   {asked:<22} {'✓' if self.kept() else '✗'}"


class Measure:
    """Kills, and waits, on one fleet."""

    def __init__(self, fleet: Fleet, mesh: Mesh) -> None:
        self.fleet, self.mesh = fleet, mesh
        self.leader, self.standby = fleet.scheduler(), fleet.scheduler()

    async def scheduler(self, end: Callable[[Process], object]) -> float:
        """End the leader; how long until a run that was started afterwards has ended."""
        await self.mesh.run("once", {"n": 0})
        old, led = self.leader, _terms(self.standby)
        began = time.monotonic()
        ending = asyncio.create_task(asyncio.to_thread(end, old))
        async with asyncio.timeout(WITHIN_S):
            while _terms(self.standby) == led:
                await self.mesh.run("once", {"n": 1})
            took = time.monotonic() - began
        await ending
        self.leader, self.standby = self.standby, await asyncio.to_thread(lambda: self.fleet.ready(self.fleet.start(SCHEDULER)))
        await asyncio.sleep(1.0)  # a candidate that has just come counts silence from then on
        return took

    async def worker(self, end: Callable[[Process], object], number: int) -> float:
        """End a worker that is full; how long until all its steps have begun on another one."""
        first = await asyncio.to_thread(self.fleet.worker, f"w-{number}-a", STEPS)
        refs = [await self.mesh.start("slow", {"ms": 60_000}) for _ in range(STEPS)]
        await self._begun(first)
        second = await asyncio.to_thread(self.fleet.worker, f"w-{number}-b", STEPS)
        began = time.monotonic()
        await asyncio.to_thread(end, first)
        await self._begun(second)
        took = time.monotonic() - began
        for ref in refs:
            await ref.cancel("measured")
        await asyncio.to_thread(second.end)
        return took

    async def _begun(self, process: Process) -> None:
        def begun() -> bool:
            return sum(pid == process.pid and what == "start" for _, _, _, what, pid in self.fleet.executions()) >= STEPS

        await asyncio.to_thread(await_that, f"{STEPS} steps in {process.pid}", begun, WITHIN_S)


def _terms(process: Process) -> int:
    return process.output.count(" leads in term")


async def measure(folder: Path, times: int) -> list[Row]:
    """Every kind of death, so many times."""
    killed = Row("scheduler kill -9 → a new run's result", 1.0, 2.0)
    stopped = Row("scheduler SIGTERM → a new run's result", None, 0.2)
    lost = Row("worker kill -9 → its steps run elsewhere", None, 3.0)
    with Fleet(folder) as fleet:
        async with Mesh(url=fleet.server.url) as mesh:
            at_work = Measure(fleet, mesh)
            for number in range(max(1, times // 2)):
                lost.took.append(await at_work.worker(Process.kill, number))
            fleet.worker("w-last", 10)
            for _ in range(times):
                killed.took.append(await at_work.scheduler(Process.kill))
                stopped.took.append(await at_work.scheduler(Process.end))
    return [killed, stopped, lost]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=20)
    with tempfile.TemporaryDirectory() as folder:
        rows = asyncio.run(measure(Path(folder), parser.parse_args().times))
    for row in rows:
        print(row)
    return 0 if all(row.kept() for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
