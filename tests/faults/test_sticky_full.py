"""The bound worker is full: SOFT waits for `sticky_timeout` and moves, HARD waits on; a run is in one place at a time."""

from __future__ import annotations

import asyncio

import pytest

from mesh_sdk import Mesh, RunTimedOut
from mesh_sdk.transport.connection import Link
from tests.faults.fleet import Fleet
from tests.faults.sticky_fleet import Sticky, blocked, released, waiting

STICKY_TIMEOUT_S = 1.0
"""Of every SOFT workflow of the program."""
TOLERANCE_S = 0.5
FIRST = 9
"""Blockers get a free slot before the runs that are tested."""


@pytest.mark.timeout(60)
async def test_soft_moves_at_its_timeout_and_hard_waits_on(fleet: Fleet) -> None:
    """Before a run's first step, and in the middle of it."""
    sticky = Sticky(fleet)
    sticky.workers(w0=2, w1=4)
    async with Mesh(url=fleet.server.url) as mesh:
        # In the middle: the run's first step frees a slot, which a blocker takes before its second step is ready.
        middle = await mesh.start("soft_chain", {"gates": {"a": "middle"}}, sticky_worker="w0")
        await sticky.begins(middle.run_id, "a", "w0")
        await blocked(sticky, mesh, "w0", 1, "blockers", FIRST)
        last = await mesh.start("hold", {"gates": {"only": "blockers"}}, sticky_worker="w0", priority=FIRST)
        await waiting(mesh, last.run_id, "worker w0")
        sticky.open("middle")
        await sticky.begins(last.run_id, "only", "w0")
        # Before the first step.
        hard = await mesh.start("hard_chain", {}, sticky_worker="w0")
        first = await mesh.start("soft_chain", {}, sticky_worker="w0")
        stored = asyncio.get_running_loop().time()
        info = await waiting(mesh, first.run_id, "worker w0")
        assert info.steps["a"].worker is None
        assert not sticky.begun(first.run_id)
        moved = [await sticky.begins(middle.run_id, "b"), await sticky.begins(first.run_id, "a")]
        assert [seen.worker for seen in moved] == ["w1", "w1"]
        assert [seen.attempt for seen in moved] == [1, 1], "what waited for a slot was never sent"
        for ref in (middle, first):
            assert await asyncio.wait_for(ref.result(), 10) == {"worker": "w1"}
        assert "full" in str((await waiting(mesh, hard.run_id, "worker w0")).waiting)
        assert not sticky.begun(hard.run_id), "it waits on"
        sticky.open("blockers")
        assert await asyncio.wait_for(hard.result(), 10) == {"worker": "w0"}
    (ready,) = sticky.seen(middle.run_id, "a", "end")
    after = [moved[0].at - ready.at, moved[1].at - stored]
    print(f"moved after {after[0]:.2f} s and {after[1]:.2f} s")
    for waited in after:
        assert STICKY_TIMEOUT_S - TOLERANCE_S <= waited <= STICKY_TIMEOUT_S + TOLERANCE_S
    assert moved[0].moved, "its first step ran on w0"
    assert [len(sticky.seen(middle.run_id, what="rebuilt"))] == [1]


@pytest.mark.timeout(60)
async def test_soft_stays_where_its_own_step_holds_the_only_slot(fleet: Fleet) -> None:
    sticky = Sticky(fleet)
    sticky.workers(w0=1, w1=2)
    async with Mesh(url=fleet.server.url) as mesh:
        twins = await mesh.start("soft_twins", {"gates": {"left": "left", "right": "right"}}, sticky_worker="w0")
        one = await sticky.begins(twins.run_id, worker="w0")
        other = "right" if one.step == "left" else "left"
        await waiting_step(mesh, twins.run_id, other)
        # A run that began to wait for w0 later has moved on: if the twin were to move, it would have.
        clock = await mesh.start("soft_chain", {}, sticky_worker="w0")
        stored = asyncio.get_running_loop().time()
        assert await asyncio.wait_for(clock.result(), 10) == {"worker": "w1"}
        assert not sticky.begun(twins.run_id, other)
        sticky.open(one.step, other)
        assert await asyncio.wait_for(twins.result(), 10) == {"worker": "w0"}
    assert sticky.begun(clock.run_id, "a")[0].at - stored <= STICKY_TIMEOUT_S + TOLERANCE_S, "after the twin's timer, which moved nothing"
    assert {seen.worker for seen in sticky.seen(twins.run_id)} == {"w0"}
    assert not any(seen.moved for seen in sticky.seen(twins.run_id))
    assert not sticky.seen(twins.run_id, what="rebuilt")


@pytest.mark.timeout(60)
async def test_what_lies_in_the_private_lane_of_a_full_worker_is_withdrawn(fleet: Fleet, bus: Link) -> None:
    """The leader took its slot for free: SOFT is asked back at its timeout, HARD begins there when the slot is free."""
    sticky = Sticky(fleet)
    sticky.workers(w0=2, w1=2)
    async with Mesh(url=fleet.server.url) as mesh:
        stuck = [await mesh.start("stuck", {"gate": "stuck"}, sticky_worker="w0") for _ in range(2)]
        for ref in stuck:
            with pytest.raises(RunTimedOut):
                await asyncio.wait_for(ref.result(), 10)
        soft = await mesh.start("soft_chain", {}, sticky_worker="w0")
        hard = await mesh.start("hard_chain", {}, sticky_worker="w0")
        stored = asyncio.get_running_loop().time()
        assert await asyncio.wait_for(soft.result(), 10) == {"worker": "w1"}
        assert not sticky.begun(hard.run_id)
        sticky.open("stuck")
        assert await asyncio.wait_for(hard.result(), 10) == {"worker": "w0"}
    assert [out.worker for out in await released(bus, soft.run_id)] == ["w0", "w1", "w1", "w1"]
    assert {out.worker for out in await released(bus, hard.run_id)} == {"w0"}
    (begun,) = sticky.begun(soft.run_id, "a")
    print(f"withdrawn and begun elsewhere after {begun.at - stored:.2f} s")
    assert STICKY_TIMEOUT_S - TOLERANCE_S <= begun.at - stored <= STICKY_TIMEOUT_S + TOLERANCE_S
    assert (begun.attempt, begun.retries) == (2, 0)


async def waiting_step(mesh: Mesh, run: str, step: str) -> None:
    """Until the mesh knows that this step waits."""
    async with asyncio.timeout(10):
        while (await mesh.runs.get(run)).steps[step].status != "queued":
            await asyncio.sleep(0.01)
