"""Parents that await children while parents take every slot: all of them end."""

from __future__ import annotations

import asyncio

from mesh_sdk import Mesh
from mesh_sdk.transport.connection import Link
from tests.faults import journal
from tests.faults.fleet import Fleet

PARENTS = 50
CHILDREN = 5
WITHIN_S = 20.0


async def test_parents_in_every_slot_do_not_wait_for_ever(fleet: Fleet, bus: Link) -> None:
    fleet.scheduler()
    for _ in range(2):
        fleet.worker(slots=5)
    async with Mesh(url=fleet.server.url) as mesh, asyncio.timeout(WITHIN_S):
        results = await asyncio.gather(*[mesh.run("parent", {"children": CHILDREN}) for _ in range(PARENTS)])
        assert results == [sum(range(CHILDREN))] * PARENTS
        rows = await mesh.workers.list()
        assert all(row.used <= row.slots for row in rows)
    journal.check_once(await journal.records(bus))
    journal.check_executions(fleet.executions())


async def test_children_are_started_once_when_their_parents_worker_dies(fleet: Fleet, bus: Link) -> None:
    fleet.scheduler()
    first = fleet.worker("w-0", slots=5)
    async with Mesh(url=fleet.server.url) as mesh, asyncio.timeout(WITHIN_S):
        waiting = [asyncio.create_task(mesh.run("slow_parent", {"children": CHILDREN, "ms": 300})) for _ in range(5)]
        while not any(step == "slow" for _, step, _, _, _ in fleet.executions()):
            await asyncio.sleep(0.02)
        await asyncio.to_thread(first.kill)
        await asyncio.to_thread(fleet.worker, "w-1", 5)
        assert await asyncio.gather(*waiting) == [CHILDREN] * 5
        assert len(await mesh.runs.list(workflow="slow")) == 5 * CHILDREN
    journal.check_once(await journal.records(bus))
    journal.check_executions(fleet.executions())
