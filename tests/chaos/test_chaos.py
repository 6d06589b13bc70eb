"""Real processes, a network and servers that fail by a seeded schedule: all promises are checked afterwards over the whole history.

MESH_CHAOS_SEED repeats a schedule, MESH_CHAOS_SECONDS changes for how long faults are made. `make chaos` runs the long ones;
MESH_CHAOS_TIME says which of several in a row this is.
"""

from __future__ import annotations

import json
import os
import random

import pytest

from tests.chaos import report as reports
from tests.chaos.run import ChaosRun, Plan

QUIET_S = 340
"""What a run may take besides its faults, on a slow machine: starting, coming to rest, checking."""
LONG = [(3, 110.0), (1, 60.0), (3, 110.0), (1, 60.0)]
"""(copies, seconds of faults)."""


def _plan(replicas: int, seconds: float) -> Plan:
    seed = int(os.environ.get("MESH_CHAOS_SEED", random.randrange(1 << 32)))
    return Plan(seed, float(os.environ.get("MESH_CHAOS_SECONDS", seconds)), replicas)


async def _clean(plan: Plan, place: int | None = None) -> None:
    """One run; its report is kept for the tables if it has a place there."""
    print(f"MESH_CHAOS_SEED={plan.seed} MESH_CHAOS_SECONDS={plan.seconds:g}, {plan.replicas} copies")
    report = await ChaosRun(plan).run()
    if place is not None:
        reports.keep(report, int(os.environ.get("MESH_CHAOS_TIME", "1")), place)
    print(json.dumps({name: report.get(name) for name in ("figures", "notes")}))
    where = f"seed {plan.seed}, {plan.replicas} copies; its folder: {report.get('folder')}"
    assert report["clean"], "\n".join([where, *report["findings"], report.get("trace", "")])


@pytest.mark.timeout(30 + QUIET_S)
async def test_a_short_run() -> None:
    await _clean(_plan(3, 30.0))


@pytest.mark.chaos
@pytest.mark.timeout(900)
@pytest.mark.parametrize("place", range(len(LONG)), ids=[f"{place}-{replicas} copies" for place, (replicas, _) in enumerate(LONG)])
async def test_a_long_run(place: int) -> None:
    await _clean(_plan(*LONG[place]), place)
