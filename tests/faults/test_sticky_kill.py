"""The bound worker of a sticky run dies or drains: SOFT goes on elsewhere, HARD waits for it, until it is back or time is up."""

from __future__ import annotations

import asyncio
import time

import pytest

from mesh_sdk import Mesh, RunTimedOut
from tests.faults.fleet import Fleet
from tests.faults.sticky_fleet import Sticky, ended, waiting

MOVES_S = 3.0
AT_ONCE_S = 1.5
"""Nothing is waited for: neither a lease nor `sticky_timeout`. What remains is a machine that has other work too."""


@pytest.mark.timeout(60)
async def test_soft_finishes_elsewhere_when_its_worker_is_killed(fleet: Fleet) -> None:
    """Class and function style; two steps that start there together rebuild the state once between them."""
    sticky = Sticky(fleet)
    bound = sticky.workers(w0=4, w1=4)["w0"]
    async with Mesh(url=fleet.server.url) as mesh:
        chain = await mesh.start("SoftClass", {"gates": {"second": "chain"}}, sticky_worker="w0")
        twins = await mesh.start("soft_twins", {"gates": {"left": "twins", "right": "twins"}}, sticky_worker="w0")
        for run, step in ((chain, "second"), (twins, "left"), (twins, "right")):
            await sticky.begins(run.run_id, step, "w0")
        killed_at = time.monotonic()
        await asyncio.to_thread(bound.kill)
        again = [
            await sticky.begins(run.run_id, step, "w1")
            for run, step in ((chain, "second"), (twins, "left"), (twins, "right"))
        ]  # fmt: skip
        sticky.open("chain", "twins")
        assert await chain.result() == {"worker": "w1"}
        assert await twins.result() == {"worker": "w1"}
        runs = [await mesh.runs.get(ref.run_id) for ref in (chain, twins)]
    took = max(seen.at for seen in again) - killed_at
    print(f"moved {took:.2f} s after the kill")
    assert took < MOVES_S
    for seen in again:
        assert (seen.attempt, seen.retries, seen.moved) == (2, 0, True), "another attempt, and none of the user's retries"
        assert seen.note in ("rebuilt", "left", "right"), "its local memory was rebuilt before it began"
    for ref in (chain, twins):
        (rebuilt,) = sticky.seen(ref.run_id, what="rebuilt")
        assert rebuilt.worker == "w1"
        assert rebuilt.at < min(seen.at for seen in again if seen.run == ref.run_id)
    assert not any(seen.moved for seen in sticky.seen(worker="w0"))
    assert {step.worker for step in runs[1].steps.values()} == {"w1"}
    assert runs[0].steps["first"].worker == "w0"


@pytest.mark.timeout(60)
async def test_hard_waits_when_its_worker_is_killed_until_it_is_back_or_time_is_up(fleet: Fleet) -> None:
    sticky = Sticky(fleet)
    bound = sticky.workers(w0=4, w1=4)["w0"]
    async with Mesh(url=fleet.server.url) as mesh:
        patient = await mesh.start("hard_chain", {"gates": {"b": "patient"}}, sticky_worker="w0")
        brief = await mesh.start("brief_chain", {"gates": {"b": "brief"}}, sticky_worker="w0")
        for ref in (patient, brief):
            await sticky.begins(ref.run_id, "b", "w0")
        await asyncio.to_thread(bound.kill)
        await asyncio.gather(*[waiting(mesh, ref.run_id, "worker w0") for ref in (patient, brief)])
        with pytest.raises(RunTimedOut, match=r"schedule timeout.*worker w0"):
            await asyncio.wait_for(brief.result(), 10)
        info = await waiting(mesh, patient.run_id, "worker w0")
        assert info.steps["a"].worker == "w0"
        sticky.open("patient", "brief")
        await asyncio.to_thread(sticky.workers, w0=4)
        assert await asyncio.wait_for(patient.result(), 15) == {"worker": "w0"}
        info = await mesh.runs.get(patient.run_id)
        assert {step.worker for step in info.steps.values()} == {"w0"}
        assert (info.steps["b"].attempt, info.waiting) == (2, None)
        assert (await mesh.runs.get(brief.run_id)).status == "timed_out"
    for ref in (patient, brief):
        assert {seen.worker for seen in sticky.seen(ref.run_id)} == {"w0"}
    assert {seen.pid for seen in sticky.begun(brief.run_id)} == {bound.pid}, "it ended, and began nowhere else"
    (again,) = [seen for seen in sticky.begun(patient.run_id, "b") if seen.pid != bound.pid]
    assert (again.retries, again.moved) == (0, False), "the same worker, in a new incarnation"
    assert len(sticky.seen(patient.run_id, what="rebuilt")) == 1, "whose memory is gone, though the run was nowhere else"


@pytest.mark.timeout(60)
async def test_a_worker_that_drains_finishes_its_step_and_soft_moves_at_once_while_hard_waits(fleet: Fleet) -> None:
    sticky = Sticky(fleet)
    bound = sticky.workers(w0=4, w1=4)["w0"]
    async with Mesh(url=fleet.server.url) as mesh:
        soft = await mesh.start("soft_chain", {"gates": {"b": "go"}}, sticky_worker="w0")
        hard = await mesh.start("hard_chain", {"gates": {"b": "go"}}, sticky_worker="w0")
        twins = await mesh.start("soft_twins", {"gates": {"left": "go"}}, sticky_worker="w0")
        for ref, step in ((soft, "b"), (hard, "b"), (twins, "left")):
            await sticky.begins(ref.run_id, step, "w0")
        await sticky.until("the other root ends", lambda: sticky.seen(twins.run_id, "right", "end"))
        ending = asyncio.create_task(asyncio.to_thread(bound.end))
        await _drains(mesh, "w0")
        queued = await mesh.start("soft_chain", {}, sticky_worker="w0")
        assert (await sticky.begins(queued.run_id, "a")).worker == "w1", "it is bound elsewhere while w0 still runs other steps"
        assert not sticky.seen(what="end", step="b", worker="w0"), "none has moved while one of its attempts was live there"
        sticky.open("go")
        assert await asyncio.wait_for(soft.result(), 10) == {"worker": "w1"}
        assert await asyncio.wait_for(twins.result(), 10) == {"worker": "w1"}
        assert await ending == 0
        await waiting(mesh, hard.run_id, "worker w0")
        await asyncio.to_thread(sticky.workers, w0=4)
        assert await asyncio.wait_for(hard.result(), 10) == {"worker": "w0"}
    (b,) = sticky.seen(soft.run_id, "b", "end")
    (c,) = sticky.begun(soft.run_id, "c")
    assert b.worker == "w0"
    assert c.at - b.at < AT_ONCE_S
    assert (c.attempt, c.retries, c.moved) == (1, 0, True)
    assert len(sticky.seen(soft.run_id, what="rebuilt")) == 1
    assert {seen.worker for seen in sticky.seen(hard.run_id)} == {"w0"}


@pytest.mark.timeout(60)
async def test_a_step_that_waits_at_a_draining_worker_moves_when_its_sibling_there_has_ended(fleet: Fleet) -> None:
    sticky = Sticky(fleet)
    bound = sticky.workers(w0=1, w1=2)["w0"]
    async with Mesh(url=fleet.server.url) as mesh:
        twins = await mesh.start("soft_twins", {"gates": {"left": "left"}}, sticky_worker="w0")
        left = await sticky.begins(twins.run_id, "left", "w0")
        ending = asyncio.create_task(asyncio.to_thread(bound.end))
        await _drains(mesh, "w0")
        later = await mesh.start("soft_twins", {}, sticky_worker="w0")
        assert await asyncio.wait_for(later.result(), 10) == {"worker": "w1"}
        assert not sticky.begun(twins.run_id, "right"), "one place at a time"
        sticky.open("left")
        assert (await ended(mesh, twins)).status == "succeeded"
        assert await ending == 0
    (right,) = sticky.begun(twins.run_id, "right")
    (left_end,) = sticky.seen(twins.run_id, "left", "end")
    assert left.worker == left_end.worker == "w0"
    assert right.worker == "w1"
    assert 0 < right.at - left_end.at < AT_ONCE_S


@pytest.mark.timeout(60)
async def test_hard_children_of_what_runs_on_a_draining_worker_are_begun_there(fleet: Fleet) -> None:
    """They can go nowhere else: their parents would wait for the whole grace, in vain. Theirs as well; the SOFT one goes elsewhere."""
    sticky = Sticky(fleet)
    bound = sticky.workers(w0=1, w1=2)["w0"]
    stick = {"sticky": True}
    children = [["child_soft", {}, stick], ["parent_hard", {"children": [["child_hard", {}, stick], ["child_hard", {}, stick]]}, stick]]
    async with Mesh(url=fleet.server.url) as mesh:
        parent = await mesh.start("parent_hard", {"first": "spawn", "children": children}, sticky_worker="w0")
        await sticky.begins(parent.run_id, worker="w0")
        ending = asyncio.create_task(asyncio.to_thread(bound.end))
        await _drains(mesh, "w0")
        sticky.open("spawn")
        child = {"worker": "w0", "children": [{"worker": "w0"}, {"worker": "w0"}]}
        assert await asyncio.wait_for(parent.result(), 10) == {"worker": "w0", "children": [{"worker": "w1"}, child]}
        assert await asyncio.wait_for(ending, 10) == 0
    assert {seen.attempt for seen in sticky.seen()} == {1}


async def _drains(mesh: Mesh, worker: str) -> None:
    async with asyncio.timeout(10):
        while not any(row.id == worker and row.state == "draining" for row in await mesh.workers.list()):
            await asyncio.sleep(0.01)
