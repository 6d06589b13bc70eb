"""A scheduler as `mesh scheduler` starts it, that also measures itself.

A line on its standard input is a question: `look` tells the worst stalls since the last look and what the state holds, as
one line of JSON after `told`; `snapshot` has a snapshot made now, as if it were due.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
import threading
import time
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from mesh import engine
from mesh.cli.process import run, until_signal
from mesh.core import finished
from mesh.core import records as facts
from mesh.engine import Engine
from mesh.scheduler import free
from mesh.scheduler.term import Term
from mesh.store import slots
from mesh.store.topology import Limits, Topology
from tests.longlife.house import rss
from tests.longlife.stalls import StallMeter


class Measured:
    """The engine, its meter, and when things happened first."""

    def __init__(self) -> None:
        self.engine = Engine(os.environ["MESH_URL"], probe=self._probe, finished_runs_max=engine.FINISHED_RUNS_MAX)
        self.meter = StallMeter()
        self.first: dict[str, float] = {}
        self.loop: asyncio.AbstractEventLoop | None = None
        self._snapshot: asyncio.Task[None] | None = None
        self._snapshots = 0
        self._helper_peak = 0

    def _probe(self, phase: str, records: list[facts.Fact]) -> None:
        self._once("frame")
        if "assigned" not in self.first and phase == "notice" and any(isinstance(r, facts.StepReleased) for r in records):
            self._once("assigned")

    def _once(self, what: str) -> None:
        if what not in self.first:
            self.first[what] = time.monotonic()  # one clock for all processes of a machine
            print(f"first {what} {self.first[what]:.4f}", flush=True)

    async def main(self, say: Any) -> None:
        self.loop = asyncio.get_running_loop()
        metering = asyncio.create_task(self.meter.run())
        threading.Thread(target=self._listen, daemon=True).start()
        try:
            await until_signal(lambda stop: self.engine.run(say, stop))
        finally:
            metering.cancel()

    def _helpers(self) -> dict[str, int]:
        """How many snapshots were begun, and how big the helper processes have been."""
        task = self.engine._term.freeing._snapshot if self.engine._term is not None else None
        if task is not None and task is not self._snapshot:
            self._snapshot, self._snapshots = task, self._snapshots + 1
        running = task is not None and not task.done()
        return {"snapshots": self._snapshots, "snapshot_running": int(running), "helper_rss": self._helper_rss()}

    def _helper_rss(self) -> int:
        children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
        self._helper_peak = max([self._helper_peak, *(rss(int(pid)) for pid in children)])
        return self._helper_peak

    def _listen(self) -> None:
        assert self.loop is not None
        for line in sys.stdin:
            self.loop.call_soon_threadsafe(self._answer, line.strip())

    def _answer(self, question: str) -> None:
        word, _, number = question.partition(" ")
        term = self.engine._term
        told: dict[str, Any] = asdict(self.meter.look()) | self._helpers()
        if term is not None:
            if word == "snapshot":
                term.freeing._snapshot_at = -2 * free.SNAPSHOT_FRAMES
            told |= lengths(term)
        print(f"told {number} {json.dumps(told)}", flush=True)


def lengths(term: Term) -> dict[str, int]:
    """How much everything holds that could grow."""
    state, loop = term.state, term.loop
    ended = state.finished
    return {
        "runs": len(state.runs),
        "waiting": state.waiting,
        "attempts": len(state.attempts),
        "workers": len(state.workers),
        "pools": len(state.pools),
        "versions": len(state.versions),
        "routes": sum(len(pool.actions) for pool in state.pools.values()),
        "finished": len(ended.window),
        "kept": len(ended.kept),
        "forgotten": len(ended.forgotten) + len(ended.forgotten_before),
        "keys": len(state.keys),
        "repeats": len(state.repeats),
        "awaited": len(state.awaited),
        "away": sum(len(queue) for queue in state.away.values()),
        "timers": sum(len(queue.timers) for queue in state.timers._queues.values()),
        "timer_lengths": len(state.timers._queues),
        "timer_heap": len(state.timers._heap),
        "changed_workers": len(state.changed_workers),
        "lanes": sum(len(lane) for lane in vars(term.lanes).values() if isinstance(lane, dict)),
        "inbox": sum(len(source.waiting) for source in loop.inbox.sources),
        "frame_bytes": loop.frame_bytes,
        "sequence": loop.journal.sequence,
    }


def limit_streams(text: str) -> None:
    """Have this process make streams of these sizes, like `triggers=65536 events=65536`."""
    limits = msgspec.structs.replace(Limits(), **{name: int(value) for name, _, value in (part.partition("=") for part in text.split())})
    engine.Topology = partial(Topology, limits=limits)  # type: ignore[misc,assignment]


def make_small() -> None:
    """Have what is remembered reach its limits within minutes."""
    engine.FINISHED_RUNS_MAX = 2_000
    finished.IDS_MAX = 4_000
    free.EVENTS_KEPT = 1_000
    slots.GONE_TTL_S = 60.0


def main() -> None:
    """Run as a program."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    if os.environ.get("LONGLIFE_SNAPSHOT_FRAMES"):
        free.SNAPSHOT_FRAMES = int(os.environ["LONGLIFE_SNAPSHOT_FRAMES"])
    if os.environ.get("LONGLIFE_SMALL"):
        make_small()
    slots.GONE_TTL_S = float(os.environ.get("LONGLIFE_GONE_TTL_S", slots.GONE_TTL_S))
    limit_streams(os.environ.get("LONGLIFE_LIMITS", ""))
    measured = Measured()
    run(measured.main)


if __name__ == "__main__":
    main()
