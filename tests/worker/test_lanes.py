"""Lanes: repeats, redeliveries, withdrawals, unknown and unreadable assignments."""

from __future__ import annotations

import asyncio

import pytest

from mesh_sdk import Context, Mesh
from mesh_sdk.protocol import records
from mesh_sdk.protocol.codec import encode
from mesh_sdk.protocol.records import VERSION, Failed, Finished, LaneFrame, Returned, Withdraw
from mesh_sdk.transport.bus import LaneMessage
from mesh_sdk.worker.loop import StepLoop
from tests.worker.conftest import running
from tests.worker.leader import Leader


def _withdraw(order: records.Assign) -> Withdraw:
    return Withdraw(order.run, order.step, order.attempt, order.token, "no longer wanted")


async def test_a_message_delivered_again_is_not_run(leader: Leader, mesh: Mesh, monkeypatch: pytest.MonkeyPatch):
    """Delivered before to somebody who has not answered: here, to a worker that was deaf to its first delivery."""
    ran = []

    @mesh.task()
    async def once(ctx: Context) -> None:
        ran.append(ctx.run_id)

    heed = StepLoop.on_shared

    def deaf_once(loop: StepLoop, message: LaneMessage, stalled: bool) -> None:
        if message.deliveries > 1:
            heed(loop, message, stalled)

    monkeypatch.setattr(StepLoop, "on_shared", deaf_once)
    async with running(mesh.worker("clerk", slots=2, workflows=[once], id="w-1")):
        orders = [leader.assign("once"), leader.assign("once")]
        await leader.share("w-1", *orders)
        for order in orders:
            returned = await leader.last_of(order.token)
            assert isinstance(returned, Returned)
            assert returned.reason == records.RETURNED_REDELIVERED
        await leader.acknowledged("w-1")
    assert not ran


async def test_a_repeat_gets_the_same_answer_and_runs_nothing(leader: Leader, mesh: Mesh):
    ran = []

    @mesh.task()
    async def once(ctx: Context) -> int:
        ran.append(ctx.run_id)
        return len(ran)

    async with running(mesh.worker("clerk", slots=2, workflows=[once], id="w-1")):
        order = leader.assign("once")
        await leader.send("w-1", order)
        await leader.last_of(order.token)
        await leader.send("w-1", order)
        repeated = await leader.report(Finished, count=2)
        assert repeated.token == order.token
        assert bytes(repeated.output) == b"1"
    assert len(ran) == 1


async def test_a_running_step_is_withdrawn(leader: Leader, mesh: Mesh):
    started = asyncio.Event()

    @mesh.task()
    async def endless(ctx: Context) -> None:
        started.set()
        await asyncio.Event().wait()

    async with running(mesh.worker("clerk", slots=1, workflows=[endless], id="w-1")):
        order, waiting = leader.assign("endless"), leader.assign("endless")
        await leader.send("w-1", order, waiting)
        await started.wait()
        await leader.send("w-1", _withdraw(waiting), _withdraw(order))
        failed = await leader.last_of(order.token)
        assert isinstance(failed, Failed)
        assert (failed.kind, failed.error.message) == (records.FAILED_CANCELLED, "no longer wanted")
        returned = await leader.last_of(waiting.token)
        assert isinstance(returned, Returned)
        assert returned.reason == "withdrawn"


async def test_what_was_withdrawn_before_it_came_is_not_run(leader: Leader, mesh: Mesh):
    ran = []

    @mesh.task()
    async def never(ctx: Context) -> None:
        ran.append(1)

    async with running(mesh.worker("clerk", slots=1, workflows=[never], id="w-1")):
        order = leader.assign("never")
        await leader.send("w-1", _withdraw(order))
        await leader.send("w-1", order)
        assert (await leader.report(Returned, count=2)).reason == "withdrawn"
    assert not ran


async def test_a_step_cancelled_in_the_moment_it_starts_is_answered(leader: Leader, mesh: Mesh):
    ran = []

    @mesh.task()
    async def never(ctx: Context) -> None:
        ran.append(1)

    async with running(mesh.worker("clerk", slots=1, workflows=[never], id="w-1")):
        order = leader.assign("never")
        await leader.send("w-1", order, _withdraw(order))
        assert (await leader.last_of(order.token)).kind == records.FAILED_CANCELLED
    assert not ran


async def test_an_action_that_is_not_registered_goes_back(leader: Leader, mesh: Mesh):
    @mesh.task()
    async def known(ctx: Context) -> None: ...

    async with running(mesh.worker("clerk", slots=1, workflows=[known], id="w-1")):
        order = leader.assign("unknown")
        await leader.share("w-1", order)
        assert (await leader.last_of(order.token)).reason == records.RETURNED_UNKNOWN_ACTION


async def test_what_can_not_be_read_is_set_aside_alone(leader: Leader, mesh: Mesh):
    @mesh.task()
    async def known(ctx: Context) -> int:
        return 1

    async with running(mesh.worker("clerk", slots=2, workflows=[known], id="w-1")):
        order = leader.assign("known")
        lane = leader.subjects.worker_lane("w-1", leader.workers["w-1"].incarnation)
        await leader.bus.append(lane, b"rubbish")
        await leader.bus.append(lane, encode(LaneFrame(VERSION, 1, [["assign", 7], order])))  # type: ignore[list-item]
        assert isinstance(await leader.last_of(order.token), Finished)
        dead = await leader.bus.read(leader.subjects.dead_stream, leader.subjects.all_dead)
        assert len(dead) == 2
        assert b"rubbish" in dead[0].data
