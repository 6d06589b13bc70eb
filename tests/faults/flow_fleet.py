"""A fleet whose workers run the flow program under two schedulers, and what a show tells of it.

Rule: what is said of steps comes from the workers that ran them, by the clock that all processes of a machine share.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import sys
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

from tests.faults.fleet import SCHEDULER, Fleet, Process
from tests.faults.sticky_fleet import Seen, Sticky

FLOW_WORKER = (sys.executable, "-m", "mesh.cli", "worker", "tests.faults.flow_program")
LEADS_S = 60.0
LED_S_LEAST = 2.0
_TERM = re.compile(r" leads in term (\d+)")


class Show:
    """One claim, what was measured for it, and what of it does not hold."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.lines: list[str] = []
        self.wrong: list[str] = []

    def tell(self, line: str) -> None:
        self.lines.append(line)

    def claim(self, holds: bool, what: str) -> None:
        """Something that must hold."""
        self.lines.append(f"{'✓' if holds else '✗'} {what}")
        if not holds:
            self.wrong.append(what)

    def __str__(self) -> str:
        return "\n".join([self.title, *(f"  {line}" for line in self.lines)])


class Flow(Sticky):
    """Workers of the flow program, a leader and a standby.

    Attributes:
        kills: when leaders were killed, by the clock of the workers.
    """

    def __init__(self, fleet: Fleet) -> None:
        super().__init__(fleet)
        self._schedulers = [self.scheduler, fleet.scheduler()]
        self.kills: list[float] = []
        self._killed = 0

    def start(self, id: str, slots: int = 10, without: str = "", **labels: object) -> Process:
        """Start a worker; it is not ready yet."""
        environment = {"MESH_WORKER_ID": id, "FLOW_SLOTS": str(slots), "FLOW_LABELS": json.dumps(labels)}
        return self.fleet.start(FLOW_WORKER, STICKY_FOLDER=str(self.folder), **environment)

    def worker(self, id: str, slots: int = 10, **labels: object) -> Process:
        """A worker whose registration the leader has journaled."""
        return self.fleet.ready(self.start(id, slots, **labels))

    @property
    def leader(self) -> Process:
        """The scheduler that has begun the newest term."""
        return max(self._schedulers, key=_term)

    async def kill_leader(self) -> None:
        """Kill it once there is one, and start another scheduler in its place, which gets ready meanwhile."""
        await self._led()
        leader = self.leader
        self._killed = _term(leader)
        self.kills.append(time.monotonic())
        await asyncio.to_thread(leader.kill)
        self._schedulers.remove(leader)
        self._schedulers.append(self.fleet.start(SCHEDULER))

    async def _led(self) -> None:
        """Until somebody leads who has not been killed."""
        await self.until("a leader", lambda: _term(self.leader) > self._killed, LEADS_S)

    @asynccontextmanager
    async def killing(self, every_s: float, times: int | None = None) -> AsyncIterator[None]:
        """Kill whoever leads, again and again, or so many times; on a busy machine later, for each is to get something done."""

        async def kill() -> None:
            last = time.monotonic()
            while times is None or len(self.kills) < times:
                await self._led()
                await asyncio.sleep(max(LED_S_LEAST, last + every_s - time.monotonic()))
                await self.kill_leader()
                last = self.kills[-1]

        task = asyncio.create_task(kill())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])
        if not task.cancelled() and (error := task.exception()):
            raise error


def _term(scheduler: Process) -> int:
    return max(map(int, _TERM.findall(scheduler.output)), default=0)


def most_at_once(seen: Iterable[Seen]) -> int:
    """How many of these steps were executing at one moment."""
    marks = sorted((each.at, 1 if each.what == "begin" else -1) for each in seen if each.what in ("begin", "end"))
    return max(itertools.accumulate(sign for _, sign in marks), default=0)
