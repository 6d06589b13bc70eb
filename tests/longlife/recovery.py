"""`python -m tests.longlife.recovery`: how long it takes to lead again with 100,000 live runs, and what a snapshot costs the leader.

Times are from just before the process is started (cold), or the leader killed (warm), to the first journal frame of the new
leader and to its first assignment; a worker with one slot, busy with short steps, is there all the while.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from mesh.core.image import digest
from mesh.core.records import TermStarted
from mesh.core.state import State
from mesh.store.snapshots import Snapshots
from mesh_sdk.transport.bus import Bus
from mesh_sdk.transport.connection import connect
from tests.faults.fleet import Process
from tests.faults.journal import NAMES, frames
from tests.longlife.asking import ask, first, line_of, snapshot, until
from tests.longlife.house import House, peak_rss, rss
from tests.longlife.starts import Publisher

WITHIN_S = 120.0
FINISHED_MAX = 10_000
STEP_MS = 300
MIB = 1 << 20


async def build(house: House, bus: Bus, runs: int) -> Process:
    """A leader with `runs` live runs, and one worker with one slot."""
    leader = house.scheduler()
    house.worker("w0", slots=1)
    publisher = Publisher(bus, "held", ms=STEP_MS)
    await publisher.publish(runs, "x" * 64)
    await publisher.close()
    await until(leader, f"{runs} live runs", lambda told: told["runs"] >= runs * 0.99, WITHIN_S)
    return leader


async def cold(house: House, old: Process) -> tuple[Process, dict[str, float]]:
    """Kill the only scheduler, start another."""
    old.kill()
    began = time.monotonic()
    leader = house.begin_scheduler()
    led, assigned = await first(leader, "frame", WITHIN_S), await first(leader, "assigned", WITHIN_S)
    return leader, {"leads_s": led - began, "assigns_s": assigned - began}


async def warm(house: House, old: Process) -> tuple[Process, dict[str, float]]:
    """Kill the leader while a standby follows it."""
    standby = house.begin_scheduler()
    await line_of(standby, "ready", WITHIN_S)
    began = time.monotonic()
    old.kill()
    led, assigned = await first(standby, "frame", WITHIN_S), await first(standby, "assigned", WITHIN_S)
    return standby, {"leads_s": led - began, "assigns_s": assigned - began}


async def replayed(bus: Bus, sequence: int) -> str:
    """The digest of a replay from the first frame, without any snapshot, up to exactly this sequence."""
    state = State(FINISHED_MAX)
    for at, frame in await frames(bus):
        if at > sequence:
            break
        state.now = frame.at
        for record in frame.records:
            if type(record) is TermStarted:
                state.term = at
            state.apply(record)
    return digest(state)


async def measure(folder: Path, runs: int, quiet_s: float = 3.0) -> dict[str, Any]:
    """All figures of one house.

    Args:
        runs: live ones.
        quiet_s: how long the leader is watched without a snapshot, for comparison.
    """
    found: dict[str, Any] = {"runs": runs}
    with House(folder, live_runs=2 * runs) as house:
        bus = await connect([house.server.url], name="recovery")
        try:
            leader = await build(house, bus, runs)
            journal = await bus.stream_state(NAMES.journal_stream)
            assert journal is not None
            found["journal"] = {"bytes": journal.bytes, "frames": journal.messages}
            found["leader_rss"] = rss(leader.pid)
            leader, found["cold, journal alone"] = await cold(house, leader)
            found["snapshots"] = []
            await ask(leader)
            await asyncio.sleep(quiet_s)
            found["stalls without a snapshot"] = stalls(await ask(leader))
            told, took = await snapshot(leader)
            found["snapshots"].append(stalls(told) | {"took_s": took, "helper_rss": told["helper_rss"]})
            sequence = (await Snapshots(bus, NAMES).sequences())[-1]
            stored = await Snapshots(bus, NAMES).read(sequence, FINISHED_MAX)
            assert stored is not None
            found["same digest as a cold replay"] = digest(stored.state) == await replayed(bus, sequence)
            found["snapshot under load"] = await under_load(house, bus, leader, quiet_s)
            journal = await bus.stream_state(NAMES.journal_stream)
            kept = await Snapshots(bus, NAMES).sequences()
            assert journal is not None
            found["journal after two snapshots"] = {"first": journal.first, "snapshots": kept, "bytes": journal.bytes}
            leader, found["cold, snapshot and journal"] = await cold(house, leader)
            leader, found["warm"] = await warm(house, leader)
            found["leader_peak_rss"] = peak_rss(leader.pid)
            found["live at the end"] = (await ask(leader))["runs"]
        finally:
            await bus.close()
    return found


async def under_load(house: House, bus: Bus, leader: Process, quiet_s: float) -> dict[str, Any]:
    """A second snapshot while short runs of high priority go through."""
    loading = asyncio.create_task(load(bus))
    house.worker("w1", slots=20)
    await ask(leader)
    await asyncio.sleep(quiet_s)
    without = stalls(await ask(leader))
    told, took = await snapshot(leader)
    loading.cancel()
    done = await asyncio.gather(loading, return_exceptions=True)
    assert isinstance(done[0], asyncio.CancelledError)
    return {"without": without, "with": stalls(told), "took_s": took, "helper_rss": told["helper_rss"]}


async def load(bus: Bus) -> None:
    """About 1,000 starts a second of high priority, until cancelled."""
    publisher = Publisher(bus, "one", priority=9)
    try:
        while True:
            await publisher.publish(100)
            await asyncio.sleep(0.1)
    finally:
        await publisher.close()


def stalls(told: dict[str, Any]) -> dict[str, Any]:
    """The part of an answer that is about stalls."""
    return {name: round(told[name], 1) for name in ("wall_ms", "own_ms", "gc_ms", "over_20", "ticks")}


def main() -> None:
    """Run as a program."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=100_000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="longlife") as folder:
        found = asyncio.run(measure(Path(folder), arguments.runs))
    for name, value in found.items():
        print(f"{name}: {json.dumps(value)}")


if __name__ == "__main__":
    main()
