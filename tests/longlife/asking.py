"""Questions to a measured leader (see `leader.py`), and waiting for what it prints."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from typing import Any

from tests.faults.fleet import Process

ANSWER_S = 60.0
POLL_S = 0.01

_numbers = itertools.count(1)


async def ask(leader: Process, question: str = "look", within_s: float = ANSWER_S) -> dict[str, Any]:
    """What the leader tells: its worst stalls since the last question, and how much its state holds."""
    number = next(_numbers)
    leader.tell(f"{question} {number}")
    line = await line_of(leader, f"told {number} ", within_s)
    found: dict[str, Any] = json.loads(line.split(" ", 2)[2])
    return found


async def line_of(process: Process, start: str, within_s: float) -> str:
    """The first line of a process that starts with this, without blocking the loop."""
    deadline = time.monotonic() + within_s
    while True:
        for line in process.output.splitlines(keepends=True):
            if line.startswith(start) and line.endswith("\n"):
                return line.rstrip()
        assert process.code is None, f"it ended with {process.code} before it said {start!r}:\n{process.output[-3000:]}"
        assert time.monotonic() < deadline, f"{start!r}: not within {within_s:g} s:\n{process.output[-3000:]}"
        await asyncio.sleep(POLL_S)


async def first(process: Process, what: str, within_s: float) -> float:
    """When (by the machine's monotonic clock) something happened first in a leader: `frame`, `assigned`."""
    return float((await line_of(process, f"first {what} ", within_s)).split()[2])


async def until(leader: Process, what: str, holds: Any, within_s: float) -> dict[str, Any]:
    """Ask until an answer holds."""
    deadline = time.monotonic() + within_s
    while True:
        told = await ask(leader)
        if holds(told):
            return told
        assert time.monotonic() < deadline, f"{what}: not within {within_s:g} s, but {told}"
        await asyncio.sleep(0.2)


async def snapshot(leader: Process, within_s: float = 300.0) -> tuple[dict[str, Any], float]:
    """Have a snapshot made; the leader's worst stalls meanwhile, and how long it took."""
    began = time.monotonic()
    before = (await ask(leader, "snapshot"))["snapshots"]
    worst: dict[str, Any] = {"wall_ms": 0.0, "own_ms": 0.0, "gc_ms": 0.0, "over_20": 0, "ticks": 0}
    while True:
        told = await ask(leader)
        for name in ("wall_ms", "own_ms", "gc_ms"):
            worst[name] = max(worst[name], told[name])
        for name in ("over_20", "ticks"):
            worst[name] += told[name]
        if told["snapshots"] > before and not told["snapshot_running"]:
            said = [line for line in leader.output.splitlines() if not line.startswith("told")]
            assert not any("no snapshot was made" in line for line in said), "\n".join(said[-30:])
            return worst | {"helper_rss": told["helper_rss"]}, time.monotonic() - began
        assert time.monotonic() - began < within_s, f"no snapshot within {within_s:g} s"
        await asyncio.sleep(0.1)
