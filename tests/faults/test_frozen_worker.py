"""A worker that stands still past its lease and wakes: its steps ran elsewhere, and it comes back as another incarnation."""

from __future__ import annotations

import asyncio
import signal

from mesh.core import records as facts
from mesh_sdk import Mesh
from mesh_sdk.transport.connection import Link
from tests.faults import journal
from tests.faults.fleet import Fleet

GIVEN_UP_S = 12.0
BACK_S = 10.0


async def test_a_worker_that_wakes_starts_over(fleet: Fleet, bus: Link) -> None:
    fleet.scheduler()
    frozen = fleet.worker("w-0", slots=4)
    async with Mesh(url=fleet.server.url) as mesh:
        refs = [await mesh.start("slow", {"ms": 500}) for _ in range(4)]
        async with asyncio.timeout(BACK_S):
            while sum(row.used for row in await mesh.workers.list()) < 4:
                await asyncio.sleep(0.02)
        frozen.send(signal.SIGSTOP)
        (old,) = [row.incarnation for row in await mesh.workers.list()]
        await asyncio.to_thread(fleet.worker, "w-1", 4)
        async with asyncio.timeout(GIVEN_UP_S):
            assert [await ref.result() for ref in refs] == [{"worker": "w-1"}] * 4
        frozen.send(signal.SIGCONT)
        async with asyncio.timeout(BACK_S):
            while {row.id: row.incarnation for row in await mesh.workers.list()}.get("w-0", old) == old:
                await asyncio.sleep(0.05)
            results = await asyncio.gather(*[mesh.run("slow", {"ms": 100}) for _ in range(8)])
        assert {result["worker"] for result in results} == {"w-0", "w-1"}
    found = await journal.records(bus)
    journal.check_once(found)
    journal.check_executions(fleet.executions())
    assert {record.worker for record in found if isinstance(record, facts.StepFinished) and record.run in {ref.run_id for ref in refs}} == {
        "w-1"
    }


async def test_a_worker_that_was_given_up_by_mistake_starts_over(fleet: Fleet, bus: Link) -> None:
    """It never lost its licence: the leader tells it."""
    fleet.scheduler()
    fleet.worker("w-0", slots=4)
    async with Mesh(url=fleet.server.url) as mesh:
        (row,) = await mesh.workers.list()
        left = [1, "w-0", row.incarnation, [["left"]]]
        await bus.append(journal.NAMES.report, journal.encode(left))
        async with asyncio.timeout(BACK_S):
            while [known.incarnation for known in await mesh.workers.list()] in ([], [row.incarnation]):
                await asyncio.sleep(0.02)
            assert await mesh.run("once", {"n": 1}) == {"n": 1}
