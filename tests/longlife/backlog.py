"""`python -m tests.longlife.backlog`: a million starts wait on disk, and the scheduler's memory with them; then they run.

In order: idle; the window of live runs full; the backlog grows to its size; it stands; workers drain it. The journal is read
along the way: every start that was stored is a run that starts once and ends once.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from mesh.core import records as facts
from mesh.engine import LIVE_RUNS_MAX
from mesh.scheduler.journal import decode_frame
from mesh_sdk.transport.bus import Bus, Delivery
from mesh_sdk.transport.connection import connect
from tests.faults.journal import NAMES
from tests.longlife.asking import ask, until
from tests.longlife.curves import draw
from tests.longlife.house import House, rss
from tests.longlife.sampling import Sampler
from tests.longlife.starts import Publisher

MIB = 1 << 20
WITHIN_S = 300.0
IDLE_S = 3.0


class Tally:
    """Counts what the journal says of runs, each by its id, while it is written."""

    def __init__(self, bus: Bus) -> None:
        self._reader = bus.reader(NAMES.journal_stream, NAMES.journal, 1, self._take, window=256)
        self._live: set[str] = set()
        self.started = 0
        self.ended = 0
        self.wrong: list[str] = []

    def _take(self, delivery: Delivery) -> None:
        for record in decode_frame(delivery.data).records:
            if type(record) is facts.RunStarted:
                self.started += 1
                if record.run in self._live:
                    self.wrong.append(f"{record.run} started twice")
                self._live.add(record.run)
            elif type(record) is facts.RunFinished:
                self.ended += 1
                if record.run not in self._live:
                    self.wrong.append(f"{record.run} ended twice, or never began")
                self._live.discard(record.run)
                if record.status != "succeeded":
                    self.wrong.append(f"{record.run} {record.status}: {record.reason}")

    @property
    def live(self) -> int:
        return len(self._live)

    async def __aenter__(self) -> Tally:
        await self._reader.start()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._reader.close()


async def measure(folder: Path, count: int, window: int, drain: int, sampler: Sampler) -> dict[str, Any]:
    """All figures of one backlog.

    Args:
        count: starts.
        window: live runs.
        drain: how many of them are run.
    """
    found: dict[str, Any] = {"starts": count, "window": window}
    with House(folder, live_runs=window) as house, sampler:
        bus, reading = await connect([house.server.url], name="backlog"), await connect([house.server.url], name="tally")
        publisher = Publisher(bus, "one")
        try:
            leader = house.scheduler()
            house.worker("w0").end()  # so that the workflow is known; nobody works yet
            sampler.watch("scheduler", lambda: rss(leader.pid))
            sampler.watch("nats-server", lambda: rss(house.server.pid))
            async with Tally(reading) as tally:
                await _fill(found, sampler, publisher, leader, count, window)
                state = await bus.stream_state(NAMES.triggers_stream)
                assert state is not None
                found["triggers"] = {"bytes": state.bytes, "messages": state.messages, "limit": state.limit_bytes}
                await _drain(found, sampler, house, tally, drain, count)
            if drain >= count:
                state = await bus.stream_state(NAMES.triggers_stream)
                assert state is not None
                found["triggers at the end"] = {"bytes": state.bytes, "messages": state.messages}
            found["leader at the end"] = await ask(leader)
        finally:
            await publisher.close()
            await reading.close()
            await bus.close()
    found["most"] = max(value for _, value in sampler.curves["scheduler"].points) / MIB
    found["times idle+window"] = round(found["most"] / found["window_mib"], 2)
    return found


async def _fill(found: dict[str, Any], sampler: Sampler, publisher: Publisher, leader: Any, count: int, window: int) -> None:
    sampler.mark("idle")
    await asyncio.sleep(IDLE_S)
    found["idle_mib"] = rss(leader.pid) / MIB
    sampler.mark("window")
    await publisher.publish(window)
    await until(leader, "the window is full", lambda told: told["runs"] >= window, WITHIN_S)
    await asyncio.sleep(IDLE_S)
    found["window_mib"] = rss(leader.pid) / MIB
    sampler.mark("backlog grows")
    began = sampler.now
    took = await publisher.publish(count - window)
    found["stored_per_s"] = round((count - window) / took)
    sampler.mark("stands")
    await asyncio.sleep(IDLE_S)
    found["growing_mib"] = statistics.fmean(sampler.curves["scheduler"].between(began, sampler.now)) / MIB
    found["top_mib"] = rss(leader.pid) / MIB
    found["at the top"] = await ask(leader)


async def _drain(found: dict[str, Any], sampler: Sampler, house: House, tally: Tally, drain: int, count: int) -> None:
    sampler.mark("drains")
    began, at = time.monotonic(), sampler.now
    house.worker("w1", slots=100)
    while tally.ended < drain:
        assert time.monotonic() - began < WITHIN_S + drain / 500, f"{tally.ended} of {drain} runs have ended"
        await asyncio.sleep(0.2)
    found["runs_per_s"] = round(tally.ended / (time.monotonic() - began))
    found["draining_mib"] = statistics.fmean(sampler.curves["scheduler"].between(at, sampler.now)) / MIB
    found["counts"] = {"started": tally.started, "ended": tally.ended, "live": tally.live, "wrong": tally.wrong[:3]}
    assert tally.started == tally.ended + tally.live
    assert not tally.wrong
    if drain >= count:
        assert (tally.started, tally.live) == (count, 0), found["counts"]


def main() -> None:
    """Run as a program."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--starts", type=int, default=1_000_000)
    parser.add_argument("--window", type=int, default=LIVE_RUNS_MAX)
    parser.add_argument("--drain", type=int, default=0, help="how many are run; all unless given")
    parser.add_argument("--picture", type=Path)
    arguments = parser.parse_args()
    sampler = Sampler()
    with tempfile.TemporaryDirectory(prefix="longlife") as folder:
        drain = arguments.drain or arguments.starts
        found = asyncio.run(measure(Path(folder), arguments.starts, arguments.window, drain, sampler))
    for name, value in found.items():
        print(f"{name}: {json.dumps(value)}")
    if arguments.picture:
        curves = [sampler.curves["scheduler"], sampler.curves["nats-server"]]
        draw(arguments.picture, f"Memory with a backlog of {arguments.starts:,} starts", "MiB", curves, sampler.marks, 1 / MIB)


if __name__ == "__main__":
    main()
