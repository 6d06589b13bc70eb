"""Two hundred HARD runs over four busy workers: each stays on one of them, and each worker gets its share."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest

from mesh_sdk import Mesh
from tests.faults.fleet import Fleet
from tests.faults.sticky_fleet import Span, Sticky

RUNS = 200
STEP_MS = 400
SLOTS = {"w0": 8, "w1": 8, "w2": 8, "w3": 8}
IN_FLIGHT = 40
"""Of each kind: together two and a half times what the slots hold."""
WITHIN_S = 40.0
BUSY_MIN = 0.9
UNEVEN_MAX = 0.2


@pytest.mark.timeout(75)
async def test_hard_runs_spread_over_busy_workers_and_stay(fleet: Fleet) -> None:
    sticky = Sticky(fleet)
    sticky.workers(**SLOTS)
    numbers = iter(range(RUNS))
    async with Mesh(url=fleet.server.url) as mesh, asyncio.timeout(WITHIN_S):
        other = asyncio.Event()

        async def hard() -> None:
            for _ in numbers:
                await mesh.run("hard_twins", {"ms": STEP_MS})

        async def unsticky() -> None:
            while not other.is_set():
                await mesh.run("busy", {"ms": STEP_MS})

        loaded = [asyncio.create_task(unsticky()) for _ in range(IN_FLIGHT)]
        await asyncio.gather(*[hard() for _ in range(IN_FLIGHT)])
        other.set()
        await asyncio.gather(*loaded)
        told = await _told(mesh)
    spans = sticky.spans()
    hard_spans = [span for span in spans if span.begin.workflow == "hard_twins"]
    where = {run: {span.begin.worker for span in hard_spans if span.begin.run == run} for run in {span.begin.run for span in hard_spans}}
    assert len(where) == RUNS
    assert all(len(workers) == 1 for workers in where.values()), "each run's steps are on one worker"
    assert {run: frozenset(workers) for run, workers in where.items()} == told, "the mesh says the same"
    assert Counter(span.begin.step for span in hard_spans) == {"left": RUNS, "right": RUNS, "join": RUNS}
    assert all(span.begin.attempt == 1 for span in hard_spans)
    spread = Counter(next(iter(workers)) for workers in where.values())
    busy = busy_fraction(spans, hard_spans)
    print(f"runs per worker {dict(sorted(spread.items()))}, slots full {busy:.1%}, {len(spans) - len(hard_spans)} unsticky steps")
    assert busy >= BUSY_MIN
    even = RUNS / len(SLOTS)
    assert all(abs(spread[worker] - even) <= UNEVEN_MAX * even for worker in SLOTS), spread


def busy_fraction(spans: list[Span], during: list[Span]) -> float:
    """The part of the slots that was in use while these steps ran, by the steps' own clocks."""
    begin, end = min(span.begin.at for span in during), max(span.until for span in during)
    used = sum(max(0.0, min(span.until, end) - max(span.begin.at, begin)) for span in spans)
    return used / (sum(SLOTS.values()) * (end - begin))


async def _told(mesh: Mesh) -> dict[str, frozenset[Any]]:
    """Where each HARD run was, as the mesh has it."""
    page = await mesh.runs.list(workflow="hard_twins", limit=RUNS)
    return {run.run_id: frozenset(step.worker for step in run.steps.values()) for run in page}
