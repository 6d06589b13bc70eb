"""`make failover`: how long the mesh stands still when something dies, many times over. Prints a table; ends with 1 if a promise is broken.

Measured from just before the signal to the first run that was started after it and has ended (schedulers, servers), or to the moment at
which the last of the worker's steps has begun elsewhere, by the steps' own words (workers). What may not happen twice is held against
everything that was executed and, at the end, against the journal.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from mesh.core import records as facts
from mesh_sdk import Mesh
from mesh_sdk.transport.connection import connect
from tests.cluster import Cluster
from tests.faults import journal
from tests.faults.failover_servers import ServerDeaths
from tests.faults.fleet import SCHEDULER, Fleet, Process, await_that

STEPS = 4
"""That the worker has in its hands when it dies, and its slots."""
IN_ITS_HANDS_S = 0.25
"""How long a worker is stopped for, so that steps lie before it which it has not begun."""
WITHIN_S = 15.0


class Row:
    """One kind of death, and what was promised for it.

    Args:
        name: of the row.
        p50_s, most_s: what was promised; None: nothing.
    """

    def __init__(self, name: str, p50_s: float | None, most_s: float | None) -> None:
        self.name, self.p50_s, self.most_s = name, p50_s, most_s
        self.took: list[float] = []

    def kept(self) -> bool:
        """Whether the promise holds."""
        most = self.most_s is None or max(self.took) < self.most_s
        return most and (self.p50_s is None or statistics.median(self.took) < self.p50_s)

    def __str__(self) -> str:
        promised = [f"{name}< {limit:g} s" for name, limit in (("p50 ", self.p50_s), ("", self.most_s)) if limit is not None]
        found = f"p50 {statistics.median(self.took):6.3f} s   max {max(self.took):6.3f} s"
        return f"{self.name:<78} {len(self.took):>3} times   {found}   {', '.join(promised):<22} {'✓' if self.kept() else '✗'}"


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

    async def worker_killed(self, number: int) -> float:
        """Kill a worker that is full; how long until all its steps have begun on another one."""
        first = await asyncio.to_thread(self.fleet.worker, f"k-{number}-a", STEPS)
        refs = [await self.mesh.start("slow", {"ms": 60_000}) for _ in range(STEPS)]
        await self._begun(first, STEPS)
        second = await asyncio.to_thread(self.fleet.worker, f"k-{number}-b", STEPS)
        began = time.monotonic()
        await asyncio.to_thread(first.kill)
        await self._begun(second, STEPS)
        took = time.monotonic() - began
        for ref in refs:
            await ref.cancel("measured")
        await asyncio.to_thread(second.end)
        return took

    async def worker_stopped(self, number: int) -> float:
        """SIGTERM for a worker that runs a step and has others before it; how long until every one of those has begun."""
        second = await asyncio.to_thread(self.fleet.worker, f"s-{number}-b", STEPS)
        full = [await self.mesh.start("slow", {"ms": 60_000}) for _ in range(STEPS)]
        await self._begun(second, STEPS)
        first = await asyncio.to_thread(self.fleet.worker, f"s-{number}-a", STEPS + 1)
        running = await self.mesh.start("slow", {"ms": 1_000})
        await self._begun(first, 1)
        await asyncio.sleep(IN_ITS_HANDS_S)  # until it has asked for more
        first.send(signal.SIGSTOP)
        refs = [await self.mesh.start("slow", {"ms": 1}) for _ in range(STEPS)]  # nobody else has room: they are given to it
        await asyncio.sleep(IN_ITS_HANDS_S)
        for ref in full:
            await ref.cancel("there is room")
        await asyncio.gather(*[ref.result() for ref in full], return_exceptions=True)
        began = time.monotonic()
        first.send(signal.SIGTERM)
        first.send(signal.SIGCONT)  # after the other one, which is the first thing that it finds
        ending = asyncio.create_task(asyncio.to_thread(first.wait, WITHIN_S))
        await asyncio.to_thread(await_that, "all steps begin", lambda: self._runs() >= {ref.run_id for ref in refs}, WITHIN_S)
        took = time.monotonic() - began
        assert await ending == 0, "a worker that is told to stop ends with 0"
        assert await running.result() == {"worker": f"s-{number}-a"}, "what runs is finished where it runs"
        for ref in refs:
            await ref.result()
        await asyncio.to_thread(second.end)
        return took

    def _runs(self) -> set[str]:
        return {run for run, _, _, what, _ in self.fleet.executions() if what == "start"}

    async def _begun(self, process: Process, steps: int) -> None:
        def begun() -> bool:
            return sum(pid == process.pid and what == "start" for _, _, _, what, pid in self.fleet.executions()) >= steps

        await asyncio.to_thread(await_that, f"{steps} steps in {process.pid}", begun, WITHIN_S)


def _terms(process: Process) -> int:
    return process.output.count(" leads in term")


async def _check(fleet: Fleet, url: str) -> int:
    """Nothing was executed or recorded twice; how many attempts were handed back."""
    journal.check_executions(fleet.executions())
    bus = await connect(url.split(","), name="failover")
    try:
        found = await journal.records(bus)
    finally:
        await bus.close()
    journal.check_once(found)
    return sum(isinstance(record, facts.StepReturned) for record in found)


async def processes(folder: Path, times: int) -> list[Row]:
    """Deaths of schedulers and workers, so many times each, on one server."""
    killed = Row("scheduler kill -9 → a new run's result", 1.0, 2.0)
    stopped = Row("scheduler SIGTERM → a new run's result", None, 0.2)
    lost = Row("worker kill -9 → its steps run elsewhere", None, 3.0)
    left = Row("worker SIGTERM → what it has not begun runs elsewhere", None, 0.5)
    with Fleet(folder) as fleet:
        async with Mesh(url=fleet.server.url) as mesh:
            at_work = Measure(fleet, mesh)
            for number in range(times):
                lost.took.append(await at_work.worker_killed(number))
                left.took.append(await at_work.worker_stopped(number))
            left.name += f" ({await _check(fleet, fleet.server.url)} handed back)"
            fleet.worker("w-last", 10)
            for _ in range(times):
                killed.took.append(await at_work.scheduler(Process.kill))
                stopped.took.append(await at_work.scheduler(Process.end))
        await _check(fleet, fleet.server.url)
    return [killed, stopped, lost, left]


async def servers(folder: Path, times: int) -> list[Row]:
    """Deaths of servers of a cluster, so many times each: of the one that leads the journal, without the lanes and with them."""
    rows: list[Row] = []
    cluster = Cluster(folder / "nats")
    with Fleet(folder, cluster) as fleet:
        for _ in range(2):
            fleet.scheduler()
            fleet.worker()
        async with Mesh(url=cluster.url) as mesh:
            for lanes, p50_s, later_s in ((False, 0.5, 3.0), (True, 1.0, 3.0)):
                name = f"server kill -9, leads the journal{' and holds the lanes' if lanes else ''}"
                accepts, result = Row(f"{name} → writes accepted", None, None), Row(f"{name} → a new run's result", None, None)
                later = Row(f"{name} → the result after that", p50_s, later_s)
                deaths = ServerDeaths(cluster, mesh)
                for _ in range(times):
                    accepted_s, took_s = await deaths.kill(lanes)
                    accepts.took.append(accepted_s)
                    result.took.append(took_s)
                    later.took.append(max(0.0, took_s - accepted_s))
                rows += [accepts, result, later]
        await _check(fleet, cluster.url)
    return rows


async def measure(folder: Path, times: int, server_times: int) -> list[Row]:
    """Every kind of death."""
    rows = []
    for part, count in ((processes, times), (servers, server_times)):
        own = folder / part.__name__
        own.mkdir()
        rows += await part(own, count) if count else []
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=20, help="deaths of each kind of process")
    parser.add_argument("--server-times", type=int, default=5, help="deaths of servers, of each kind")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = asyncio.run(measure(Path(folder), given.times, given.server_times))
    for row in rows:
        print(row)
    return 0 if all(row.kept() for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
