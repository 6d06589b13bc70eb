"""`make soak`: an hour of steady work of every kind while workers come and go; at the end, whether anything has grown.

Rule of the verdict: the last third of a curve against its middle third. The first third is for everything that has a limit to
reach it: those of finished runs, remembered ids and kept events are made small for this, else they would take a day.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import random
import tempfile
import time
from pathlib import Path

from mesh_sdk import Mesh, MeshError
from mesh_sdk.transport.bus import Bus
from mesh_sdk.transport.connection import connect
from tests.faults.fleet import Process
from tests.faults.journal import NAMES
from tests.longlife.asking import ask
from tests.longlife.curves import draw
from tests.longlife.house import House, rss
from tests.longlife.load import Load
from tests.longlife.sampling import Curve, Sampler

MIB = 1 << 20
ASK_S = 2.0
CHURN_S = 6.0
LIFE_S = 15.0
RELATIVE = 0.10
"""By how much the last third may lie above the middle third…"""
ABSOLUTE = {"MiB": 3.0, "bytes": 1.5 * MIB, "count": 400.0}
"""…and by how much at least, before it counts as growth."""
NO_QUANTITIES = ("ticks", "sequence", "frame_bytes", "snapshots", "snapshot_running", "over_20", "helper_rss")
SMALL = {"LONGLIFE_SMALL": "1", "LONGLIFE_SNAPSHOT_FRAMES": "4000"}


class Soak:
    """One soak.

    Args:
        house: where.
        seconds: how long.
        rate: starts a second.
        seed: of the churn and the mix.
    """

    def __init__(self, house: House, seconds: float, rate: float, seed: int) -> None:
        self.house, self.seconds = house, seconds
        self.random = random.Random(seed)
        self.sampler = Sampler(1.0)
        self.load = Load(rate, self.random)
        self.units: dict[str, str] = {}
        self.leaders = 0
        """How often somebody began to lead."""
        self._leader: Process | None = None
        self.kills = 0
        self.ends = 0
        self._churned: list[Process] = []

    async def run(self) -> None:
        """Soak."""
        schedulers = [self.house.ready(self.house.begin_scheduler(**SMALL)) for _ in range(2)]
        worker = self.house.worker("home")
        bus = await connect([self.house.server.url], name="soak")
        for number, scheduler in enumerate(schedulers, 1):
            self._watch(f"scheduler {number}", scheduler.pid)
        self._watch("worker", worker.pid)
        self._watch("client", os.getpid())
        self._watch("nats-server", self.house.server.pid)
        with self.sampler:
            async with Mesh(url=self.house.server.url) as mesh:
                parts = [self.load.run(mesh), self._churn(), self._ask(schedulers), self._streams(bus)]
                tasks = [asyncio.create_task(part) for part in parts]
                done, _ = await asyncio.wait(tasks, timeout=self.seconds, return_when=asyncio.FIRST_EXCEPTION)
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                for task in done:
                    task.result()  # a part that has ended has failed
                await self.load.settle()
        await bus.close()

    def _watch(self, name: str, pid: int) -> None:
        self.units[name] = "MiB"
        self.sampler.watch(name, lambda: rss(pid) / MIB)

    async def _churn(self) -> None:
        """Workers come, work for a while, and leave in order or die."""
        for number in itertools.count():
            process = await asyncio.to_thread(self.house.worker, f"churn-{number}", 20)
            self._churned.append(process)
            if len(self._churned) > LIFE_S / CHURN_S:
                leaving = self._churned.pop(0)
                if self.random.random() < 0.5:
                    leaving.kill()
                    self.kills += 1
                else:
                    await asyncio.to_thread(leaving.end)
                    self.ends += 1
                self.house.processes.remove(leaving)
                leaving.log.unlink()
            await asyncio.sleep(CHURN_S)

    async def _ask(self, schedulers: list[Process]) -> None:
        """What the leader holds, whichever it is: on a busy machine the lead changes."""
        while True:
            for scheduler in schedulers:
                told = await ask(scheduler)
                if "runs" not in told:
                    continue
                if scheduler is not self._leader:
                    self.leaders += 1
                    self._leader = scheduler
                    self.sampler.mark(f"scheduler {schedulers.index(scheduler) + 1} leads")
                for name, value in told.items():
                    if name not in NO_QUANTITIES:
                        self._add(f"leader {name}", value, "ms" if name.endswith("_ms") else "count")
            await asyncio.sleep(ASK_S)

    async def _streams(self, bus: Bus) -> None:
        """What the server holds."""
        streams = [NAMES.events_stream, NAMES.triggers_stream, NAMES.reports_stream, NAMES.journal_stream, NAMES.lanes_stream]
        streams += [NAMES.dead_stream, f"OBJ_{NAMES.snapshots_bucket}"]
        streams += [f"KV_{bucket}" for bucket in (NAMES.slots_bucket, NAMES.workers_bucket, NAMES.workflows_bucket, NAMES.leader_bucket)]
        while True:
            for stream in streams:
                state = await bus.stream_state(stream)
                if state is not None:
                    self._add(f"{stream} bytes", state.bytes, "bytes")
                    self._add(f"{stream} messages", state.messages, "count")
            self._add("consumers of lanes", len(await bus.consumers(NAMES.lanes_stream)), "count")
            self._add("store files", await asyncio.to_thread(self.house.store_bytes), "bytes")
            await asyncio.sleep(ASK_S)

    def _add(self, name: str, value: float, unit: str) -> None:
        self.units[name] = unit
        self.sampler.add(name, value)


class Verdict:
    """The last third of a curve against its middle third."""

    def __init__(self, curve: Curve, unit: str, seconds: float) -> None:
        self.name, self.unit = curve.name, unit
        self.middle, self.last = (_mean(curve.between(seconds * part / 3, seconds * (part + 1) / 3)) for part in (1, 2))
        self.most = max(value for _, value in curve.points)

    @property
    def grows(self) -> bool:
        """Whether it has grown by more than chance allows. Stalls are no quantity that could."""
        return self.unit != "ms" and self.last - self.middle > max(ABSOLUTE[self.unit], RELATIVE * self.middle)

    def __str__(self) -> str:
        scale = MIB if self.unit == "bytes" else 1
        unit = "MiB" if self.unit == "bytes" else self.unit
        figures = f"{self.middle / scale:12,.2f} {self.last / scale:12,.2f} {self.most / scale:12,.2f} {unit}"
        return f"{self.name:34}{figures}{'   GROWS' if self.grows else ''}"


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def verdicts(soak: Soak) -> list[Verdict]:
    """One of each curve."""
    return [Verdict(curve, soak.units[name], soak.seconds) for name, curve in sorted(soak.sampler.curves.items()) if curve.points]


async def soak_for(folder: Path, seconds: float, rate: float, seed: int) -> Soak:
    """A whole soak in a house of its own.

    Args:
        folder: for logs and the store.
    """
    with House(folder) as house:
        soak = Soak(house, seconds, rate, seed)
        await soak.run()
    return soak


def main() -> int:
    """Run as a program."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--rate", type=float, default=60.0, help="starts a second")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--pictures", type=Path)
    parser.add_argument("--curves", type=Path, help="all curves as JSON")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="soak", ignore_cleanup_errors=True) as folder:
        soak = asyncio.run(soak_for(Path(folder), arguments.minutes * 60, arguments.rate, arguments.seed))
    found = verdicts(soak)
    print(f"seed {arguments.seed}: {soak.load}; workers killed {soak.kills}, ended {soak.ends}; {soak.leaders} terms")
    print(f"{'':34}{'middle third':>12} {'last third':>12} {'most':>12}")
    for verdict in found:
        print(verdict)
    if arguments.curves:
        arguments.curves.write_text(json.dumps({name: curve.points for name, curve in soak.sampler.curves.items()}))
    if arguments.pictures:
        _draw(arguments.pictures, soak)
    grown = [verdict.name for verdict in found if verdict.grows]
    print(f"GROWS: {', '.join(grown)}" if grown else "flat")
    return int(bool(grown) or bool(soak.load.wrong))


def _draw(folder: Path, soak: Soak) -> None:
    curves = soak.sampler.curves
    with contextlib.suppress(KeyError):
        draw(
            folder / "soak-memory.svg",
            "Resident memory",
            "MiB",
            [curves[n] for n in ("scheduler 1", "scheduler 2", "worker", "client", "nats-server")],
        )
        streams = [NAMES.journal_stream, f"OBJ_{NAMES.snapshots_bucket}", NAMES.events_stream, NAMES.reports_stream]
        shown = [curves["store files"], *(curves[f"{stream} bytes"] for stream in streams)]
        draw(folder / "soak-storage.svg", "Files of the server, and what streams hold", "MiB", shown, scale=1 / MIB)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt, MeshError):
        raise SystemExit(main())
