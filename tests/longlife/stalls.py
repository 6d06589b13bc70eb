"""How long an event loop stood still, and how much of that was its own doing.

A loop that is not scheduled by the system has stood still too, without a fault of its own: so each stall is told with the
CPU time that its thread spent in it. On a machine with nothing else to do the two agree.
"""

from __future__ import annotations

import asyncio
import gc
import time
from dataclasses import dataclass

TICK_S = 0.002


@dataclass
class Stalls:
    """The worst since the last look, in milliseconds."""

    wall_ms: float = 0.0
    """Longest time between two rounds of the loop beyond the tick."""
    own_ms: float = 0.0
    """Most CPU time of the loop's thread between two rounds: what it computed without looking up."""
    over_20: int = 0
    """Rounds in which the thread itself computed for more than 20 ms."""
    ticks: int = 0
    gc_ms: float = 0.0
    """The garbage collector's longest pass, by CPU time."""


class StallMeter:
    """Ticks on the running loop."""

    def __init__(self) -> None:
        self._worst = Stalls()
        self._collecting = 0.0
        gc.callbacks.append(self._collected)

    def _collected(self, phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            self._collecting = time.thread_time()
        else:
            self._worst.gc_ms = max(self._worst.gc_ms, (time.thread_time() - self._collecting) * 1000)

    async def run(self) -> None:
        """Tick for ever."""
        wall, own = time.perf_counter(), time.thread_time()
        while True:
            await asyncio.sleep(TICK_S)
            now, spent = time.perf_counter(), time.thread_time()
            worst = self._worst
            own_ms = (spent - own) * 1000
            worst.ticks += 1
            worst.wall_ms = max(worst.wall_ms, (now - wall - TICK_S) * 1000)
            worst.own_ms = max(worst.own_ms, own_ms)
            worst.over_20 += own_ms > 20
            wall, own = now, spent

    def look(self) -> Stalls:
        """The worst since the last look."""
        worst, self._worst = self._worst, Stalls()
        return worst
