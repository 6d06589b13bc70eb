"""The straight way: registered, assigned, run, reported, acknowledged."""

from __future__ import annotations

import asyncio
import threading

from pydantic import BaseModel

from mesh_sdk import Context, Mesh
from mesh_sdk.protocol.records import Accepted, Finished, Left, Register, Returned
from tests.worker.conftest import running
from tests.worker.leader import Leader


class Order(BaseModel):
    id: int


async def test_registers_with_everything_it_can_run(leader: Leader, mesh: Mesh):
    @mesh.task()
    async def charge(order: Order, ctx: Context) -> int:
        return order.id

    async with running(mesh.worker("clerk", slots=3, workflows=[charge], labels={"gpu": "a100"}, id="w-1")):
        register = await leader.report(Register)
        assert (register.name, register.slots, register.labels) == ("clerk", 3, {"gpu": "a100"})
        assert [workflow.name for workflow in register.workflows] == ["charge"]
    assert await leader.report(Left)


async def test_runs_shared_and_private_steps_sync_and_async(leader: Leader, mesh: Mesh):
    threads = set()

    @mesh.task()
    async def double(order: Order, ctx: Context) -> int:
        return 2 * order.id

    @mesh.task()
    def triple(order: Order, ctx: Context) -> int:
        threads.add(threading.current_thread().name)
        return 3 * order.id

    async with running(mesh.worker("clerk", slots=4, workflows=[double, triple], id="w-1")):
        orders = [leader.assign(name, {"id": 7}) for name in ("double:double", "triple:triple", "double:double", "triple:triple")]
        await leader.share("w-1", *orders[:2])
        await leader.send("w-1", *orders[2:])
        outputs = [bytes((await leader.last_of(order.token)).output) for order in orders]
        assert outputs == [b"14", b"21", b"14", b"21"]
        await leader.acknowledged("w-1")
    assert all(name.startswith("mesh-step-") for name in threads)
    assert not [each for each in leader.reports if isinstance(each.record, Accepted)]


async def test_what_runs_on_is_accepted_and_acknowledged(leader: Leader, mesh: Mesh):
    go_on = asyncio.Event()

    @mesh.task()
    async def slow(ctx: Context) -> str:
        await go_on.wait()
        return ctx.worker.id()

    async with running(mesh.worker("clerk", slots=2, workflows=[slow], id="w-1")):
        order = leader.assign("slow:slow")
        await leader.share("w-1", order)
        await leader.report(Accepted, lambda record: record.token == order.token)
        await leader.acknowledged("w-1")
        go_on.set()
        finished = await leader.last_of(order.token)
        assert isinstance(finished, Finished)
        assert bytes(finished.output) == b'"w-1"'


async def test_returns_what_there_is_no_room_for(leader: Leader, mesh: Mesh):
    go_on = asyncio.Event()

    @mesh.task()
    async def slow(ctx: Context) -> None:
        await go_on.wait()

    async with running(mesh.worker("clerk", slots=2, workflows=[slow], id="w-1")):
        orders = [leader.assign("slow:slow") for _ in range(4)]
        await leader.share("w-1", *orders)
        returned = await leader.report(Returned, count=2)
        assert returned.reason == "full"
        private = leader.assign("slow:slow")
        await leader.send("w-1", private)
        go_on.set()
        assert isinstance(await leader.last_of(private.token), Finished)
        await leader.acknowledged("w-1")
