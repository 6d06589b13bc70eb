"""The NATS server is killed under load and started again on the same store: nothing acknowledged is lost."""

from __future__ import annotations

import asyncio

import pytest

from mesh.core import records as facts
from mesh_sdk import Mesh
from mesh_sdk.refs import RunRef
from mesh_sdk.transport.connection import Link
from tests.faults import journal
from tests.faults.fleet import Fleet

RUNS = 300
RESULT_S = 30.0
KILLS = 3


async def test_a_server_killed_under_load_loses_nothing(fleet: Fleet, bus: Link) -> None:
    for _ in range(2):
        fleet.scheduler()
    for id in ("w-0", "w-1"):
        fleet.worker(id)
    async with Mesh(url=fleet.server.url) as mesh:
        refs: list[RunRef[object]] = []
        waiting: list[asyncio.Task[object]] = []

        async def begin(first: int) -> None:
            for n in range(first, first + RUNS):
                ref = await mesh.start("Chain", {"n": n, "ms": 20})
                refs.append(ref)
                waiting.append(asyncio.create_task(ref.result()))  # type: ignore[arg-type]

        async with asyncio.timeout(RESULT_S * KILLS):
            for kill in range(KILLS):
                starting = asyncio.create_task(begin(kill * RUNS))
                while len(refs) < kill * RUNS + RUNS // 2:
                    await asyncio.sleep(0.01)
                await asyncio.to_thread(fleet.server.kill)
                await asyncio.to_thread(fleet.server.restart)
                await starting
            assert await asyncio.gather(*waiting) == [n + 3 for n in range(KILLS * RUNS)]
    await _check(fleet, bus, {ref.run_id for ref in refs})


@pytest.mark.parametrize("held", [True, False])
async def test_what_was_on_its_way_when_the_lanes_were_lost_still_runs(fleet: Fleet, bus: Link, held: bool) -> None:
    """Nothing else happens that would make the leader write to the lanes and notice; steps that run are not run again."""
    scheduler = fleet.scheduler()
    worker = fleet.worker("w-0", slots=4)
    async with Mesh(url=fleet.server.url) as mesh:
        if held:
            refs = [await mesh.start("slow", {"ms": 1500}) for _ in range(6)]  # four run, two wait for a place
            async with asyncio.timeout(RESULT_S):
                while sum(row.used for row in await mesh.workers.list()) < 4:
                    await asyncio.sleep(0.02)
        else:
            worker.kill()
            refs = [await mesh.start("slow", {"ms": 10}) for _ in range(6)]  # four are on the lane, and nobody pulls
        await asyncio.to_thread(fleet.server.kill)
        await asyncio.to_thread(fleet.server.restart)
        if not held:
            await asyncio.to_thread(fleet.worker, "w-1", 4)
        async with asyncio.timeout(RESULT_S):
            for ref in refs:
                await ref.result()
        runs = {ref.run_id for ref in refs}
    assert "the lanes were lost and made again" in scheduler.output
    await _check(fleet, bus, runs)
    if held:
        assert {attempt for run, _, attempt, _, _ in fleet.executions() if run in runs} == {1}


async def _check(fleet: Fleet, bus: Link, runs: set[str]) -> None:
    found = await journal.records(bus)
    journal.check_once(found)
    journal.check_executions(fleet.executions())
    assert {record.run for record in found if isinstance(record, facts.RunStarted)} == runs
    assert {record.run for record in found if isinstance(record, facts.RunFinished)} == runs
