"""What a worker lives through: a server that dies, lanes that are lost, touch that is lost."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from mesh_sdk import Context, Mesh, Task
from mesh_sdk.protocol import ids, records
from mesh_sdk.protocol.codec import encode
from mesh_sdk.protocol.records import VERSION, Accepted, Assign, Finished, Holding, LaneFrame, Register, Returned
from mesh_sdk.transport.connection import connect
from mesh_sdk.worker.demand import MESSAGES_ASKED_MAX
from mesh_sdk.worker.presence import Presence
from tests.contract.servers import Server
from tests.worker.conftest import running
from tests.worker.leader import Leader


@pytest.fixture
async def own_leader(own_server: Server, namespace: str) -> AsyncIterator[Leader]:
    leader = await Leader(own_server.url, namespace).start()
    yield leader
    await leader.close()


@pytest.fixture
async def own_mesh(own_server: Server, namespace: str) -> AsyncIterator[Mesh]:
    mesh = Mesh(url=own_server.url, namespace=namespace)
    yield mesh
    await mesh.close()


async def test_a_report_survives_the_death_of_the_server(own_server: Server, own_leader: Leader, own_mesh: Mesh):
    go_on, ended = asyncio.Event(), asyncio.Event()

    @own_mesh.task()
    async def slow(ctx: Context) -> int:
        await go_on.wait()
        ended.set()
        return 7

    async with running(own_mesh.worker("clerk", slots=2, workflows=[slow], id="w-1")):
        shared, private = own_leader.assign("slow"), own_leader.assign("slow")
        await own_leader.share("w-1", shared)
        await own_leader.send("w-1", private)
        await own_leader.report(Accepted, count=2)
        own_server.kill()
        go_on.set()
        await ended.wait()
        own_server.start()
        await own_leader.make_memory()
        for order in (shared, private):
            assert isinstance(await own_leader.last_of(order.token, timeout=20), Finished)
        after = own_leader.assign("slow")
        await own_leader.share("w-1", after)
        assert isinstance(await own_leader.last_of(after.token, timeout=20), Finished)


async def test_lost_lanes_are_answered_with_what_is_held(leader: Leader, mesh: Mesh):
    go_on = threading.Event()

    @mesh.task()
    def slow(ctx: Context) -> None:
        go_on.wait(10)

    async with running(mesh.worker("clerk", slots=1, workflows=[slow], id="w-1")):
        running_, waiting = leader.assign("slow"), leader.assign("slow")
        await leader.send("w-1", running_, waiting)
        await leader.report(Accepted)
        await leader.bus.request(leader.subjects.control("w-1"), b'{"ask":"holding"}', 5)
        holding = await leader.report(Holding)
        assert sorted(holding.attempts) == sorted((each.run, each.step, each.attempt, each.token) for each in (running_, waiting))
        leader.bus.publish(leader.subjects.control_all, b'{"ask":"holding"}')
        await leader.report(Holding, count=2)
        go_on.set()
        assert isinstance(await leader.last_of(waiting.token), Finished)


async def test_a_worker_that_lost_touch_stops_everything_and_comes_back_as_another(
    leader: Leader, mesh: Mesh, monkeypatch: pytest.MonkeyPatch
):
    cancelled, go_on, threads = asyncio.Event(), threading.Event(), []

    @mesh.task()
    async def endless(ctx: Context) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    @mesh.task()
    def stubborn(ctx: Context) -> None:
        go_on.wait(10)
        threads.append(ctx.cancelled)

    @mesh.task()
    def quick(ctx: Context) -> int:
        return 1

    made: list[Presence] = []
    start = Presence.start

    def keep(presence: Presence) -> None:
        made.append(presence)
        start(presence)

    monkeypatch.setattr(Presence, "start", keep)
    async with running(mesh.worker("clerk", slots=2, workflows=[endless, stubborn, quick], id="w-1")):
        orders = [leader.assign("endless"), leader.assign("stubborn")]
        await leader.send("w-1", *orders)
        await leader.report(Accepted, count=2)
        async with asyncio.timeout(5):
            while not cancelled.is_set():
                made[0].confirmed_until = 0.0  # again and again: a heartbeat under way confirms it once more
                await asyncio.sleep(0.01)
        await leader.report(Register, count=2)
        first, second = [each.incarnation for each in leader.reports if isinstance(each.record, Register)]
        assert second > first
        blocked, after = leader.assign("quick"), leader.assign("quick")
        await leader.send("w-1", blocked, after)
        assert isinstance(await leader.last_of(after.token), Finished)
        assert b'"running": 1' in await leader.bus.request(leader.subjects.control("w-1"), b"", 5), "the thread keeps its slot"
        go_on.set()
    assert threads == [True]
    for order in orders:
        assert all(isinstance(record, Accepted) for record in leader.of(order.token)), "nothing is answered for what was given up"


def blocked_while_orders_come(leader: Leader, mesh: Mesh, late: list[Assign]) -> list[Task[Any, Any]]:
    """Two workflows: `block` stalls the loop, and meanwhile these orders come to the shared lane; `quick` is what they are for."""
    pool = ids.pool_id(["block:block", "quick:quick"])

    async def send_late() -> None:
        bus = await connect([leader.url], name="late")
        for order in late:
            await bus.append(leader.subjects.shared_lane(pool), encode(LaneFrame(VERSION, 1, [order])))
        await bus.close()

    @mesh.task()
    async def block(ctx: Context) -> None:
        sender = threading.Thread(target=lambda: asyncio.run(send_late()))
        sender.start()
        sender.join()
        time.sleep(0.8)

    @mesh.task()
    async def quick(ctx: Context) -> int:
        return 1

    return [block, quick]


async def test_a_stalled_loop_returns_what_may_have_gone_to_another(leader: Leader, mesh: Mesh):
    late = leader.assign("quick")
    async with running(mesh.worker("clerk", slots=4, workflows=blocked_while_orders_come(leader, mesh, [late]), id="w-1")):
        blocker = leader.assign("block")
        await leader.share("w-1", blocker)
        returned = await leader.last_of(late.token)
        assert isinstance(returned, records.Returned)
        assert returned.reason == records.RETURNED_STALLED
        assert isinstance(await leader.last_of(blocker.token), Finished)


async def test_after_a_stall_nothing_goes_to_and_fro(leader: Leader, mesh: Mesh):
    """What came meanwhile goes back, and is given out again at once: to the only worker there is."""
    late = [leader.assign("quick") for _ in range(3)]
    async with running(mesh.worker("clerk", slots=4, workflows=blocked_while_orders_come(leader, mesh, late), id="w-1")):
        await leader.share("w-1", leader.assign("block"))
        open = {order.token for order in late}
        returned = 0
        while open:
            last: Finished | Returned = await leader.report(Finished | Returned, lambda record: record.token in open)
            open.remove(last.token)
            if isinstance(last, Returned):
                assert last.reason == records.RETURNED_STALLED
                returned += 1
                again = leader.assign("quick")
                open.add(again.token)
                await leader.share("w-1", again)
    assert returned <= 2 * MESSAGES_ASKED_MAX, "each of what it had asked for before the stall, at most"


async def test_a_worker_that_the_leader_gave_up_starts_over(leader: Leader, mesh: Mesh):
    @mesh.task()
    async def quick(ctx: Context) -> int:
        return 1

    async with running(mesh.worker("clerk", workflows=[quick], id="w-1")):
        first = leader.workers["w-1"].incarnation
        ask = {"ask": "register", "incarnation": first}
        await leader.bus.request(leader.subjects.control("w-1"), encode({**ask, "incarnation": "another"}), 5)
        await leader.bus.request(leader.subjects.control("w-1"), encode(ask), 5)
        await leader.report(Register, count=2)
        assert leader.workers["w-1"].incarnation > first
        order = leader.assign("quick")
        await leader.send("w-1", order)
        assert isinstance(await leader.last_of(order.token), Finished)
