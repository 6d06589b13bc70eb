"""How long the mesh stands still when something dies: the promises of the design, measured from the signal."""

from __future__ import annotations

import asyncio
import time

import pytest

from mesh_sdk import Mesh
from tests.faults import journal
from tests.faults.failover import Measure
from tests.faults.fleet import Fleet, Process, await_that

WORK_MOVES_S = 3.0
LEADER_KILLED_S = 2.0
AT_ONCE_S = 0.7
"""No timeout is waited for: what remains is the work itself, on a machine that has other work too."""
WITHIN_S = 15.0


@pytest.mark.parametrize(("how", "within_s"), [("kill", LEADER_KILLED_S), ("end", AT_ONCE_S)])
async def test_a_leader_that_goes(fleet: Fleet, how: str, within_s: float) -> None:
    """SIGKILL: the next result within two seconds. SIGTERM: at once."""
    schedulers = [fleet.scheduler(), fleet.scheduler()]
    fleet.worker()
    async with Mesh(url=fleet.server.url) as mesh:
        await mesh.run("once", {"n": 0})
        began = time.monotonic()
        ending = asyncio.create_task(asyncio.to_thread(getattr(schedulers[0], how)))
        async with asyncio.timeout(WITHIN_S):
            while " leads in term" not in schedulers[1].output.split("ready", 1)[-1]:
                assert await mesh.run("once", {"n": 1}) == {"n": 1}
            assert await mesh.run("once", {"n": 2}) == {"n": 2}
        took = time.monotonic() - began
        code = await ending
    assert took < within_s
    assert how == "kill" or code == 0


async def test_a_workers_steps_run_elsewhere_after_its_kill(fleet: Fleet) -> None:
    fleet.scheduler()
    first = fleet.worker("w-0", slots=4)
    async with Mesh(url=fleet.server.url) as mesh:
        refs = [await mesh.start("slow", {"ms": 60_000}) for _ in range(4)]
        await _executed_by(fleet, first, 4)
        second = await asyncio.to_thread(fleet.worker, "w-1", 8)
        await asyncio.to_thread(first.kill)
        took = await _executed_by(fleet, second, 4)
        for ref in refs:
            await ref.cancel("the test is over")
    assert took < WORK_MOVES_S


async def test_a_workers_steps_are_handed_back_at_its_sigterm(fleet: Fleet) -> None:
    """What runs is finished; what waited for a place there runs elsewhere at once; the process ends with 0."""
    fleet.scheduler()
    first = fleet.worker("w-0", slots=4)
    async with Mesh(url=fleet.server.url) as mesh:
        running = [await mesh.start("slow", {"ms": 1_500}) for _ in range(4)]
        await _executed_by(fleet, first, 4)
        second = await asyncio.to_thread(fleet.worker, "w-1", 8)
        began = time.monotonic()
        ending = asyncio.create_task(asyncio.to_thread(first.end))
        for n in range(20):
            assert await mesh.run("once", {"n": n}) == {"n": n}
        assert time.monotonic() - began < AT_ONCE_S
        assert await ending == 0
        for ref in running:
            assert await ref.result() == {"worker": "w-0"}
        assert {step for _, step, _, _, pid in fleet.executions() if pid == second.pid} == {"once"}
    journal.check_executions(fleet.executions())


async def test_what_lies_before_a_worker_at_its_sigterm_runs_elsewhere(fleet: Fleet) -> None:
    """It was assigned and not begun; what it runs it finishes."""
    async with Mesh(url=fleet.server.url) as mesh:
        assert await Measure(fleet, mesh).worker_stopped(0) < AT_ONCE_S
    journal.check_executions(fleet.executions())


async def _executed_by(fleet: Fleet, process: Process, steps: int) -> float:
    """Until this many steps have begun in a process; how long that took."""

    def begun() -> bool:
        return sum(pid == process.pid and what == "start" for _, _, _, what, pid in fleet.executions()) >= steps

    return await asyncio.to_thread(await_that, f"{steps} steps in {process.pid}", begun, WITHIN_S)
