"""Slots while steps await children: lent out, had back ahead of new work, never more in use than there are."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from msgspec import Raw

from mesh_sdk import Context, Mesh, SpawnError, StickyStrategy
from mesh_sdk.protocol import records
from mesh_sdk.protocol.codec import encode
from mesh_sdk.protocol.records import Accepted, Assign, Done, Failed, Finished, Lent, Resumed, Withdraw
from mesh_sdk.worker import parking
from tests.worker.conftest import running
from tests.worker.family import family
from tests.worker.leader import Leader

BOTH = [StickyStrategy.SOFT, StickyStrategy.HARD]


def _done(child: str, output: object) -> Done:
    return Done(child, records.SUCCEEDED, Raw(encode(output)))


async def _output(leader: Leader, order: Assign) -> Any:
    finished = await leader.last_of(order.token, timeout=30)
    assert isinstance(finished, Finished), finished
    return json.loads(bytes(finished.output))


async def _slots_used(leader: Leader) -> int:
    used: int = json.loads(await leader.bus.request(leader.subjects.control("w-1"), b"", 5))["running"]
    return used


async def _free(leader: Leader, used: int = 0) -> None:
    """Return when so many slots are in use: a report is made just before its step's slot is given back."""
    async with asyncio.timeout(10):
        while await _slots_used(leader) != used:
            await asyncio.sleep(0.005)


class Most:
    """How many steps run between their waits, now and at most."""

    def __init__(self) -> None:
        self.now = 0
        self.most = 0

    def __enter__(self) -> None:
        self.now += 1
        self.most = max(self.most, self.now)

    def __exit__(self, *_: object) -> None:
        self.now -= 1


@pytest.mark.parametrize("strategy", BOTH)
async def test_a_sticky_child_finishes_in_the_only_slot(leader: Leader, mesh: Mesh, strategy: StickyStrategy):
    @mesh.task(sticky=strategy)
    async def child(number: int, ctx: Context) -> int:
        return number + 1

    @mesh.task(sticky=strategy)
    async def parent(ctx: Context) -> int:
        return await ctx.spawn_workflow(child, 4, sticky=True).result()

    async with running(mesh.worker("clerk", slots=1, workflows=[parent, child], id="w-1")), family(leader, "w-1"):
        order = leader.assign("parent")
        await leader.send("w-1", order)
        assert await _output(leader, order) == 5
        assert [type(record) for record in leader.of(order.token)] == [Accepted, records.Spawn, Lent, Resumed, Finished] or [
            type(record) for record in leader.of(order.token)
        ] == [records.Spawn, Lent, Resumed, Finished]
        await _free(leader)


@pytest.mark.parametrize("kind", ["async", "sync"])
@pytest.mark.parametrize("strategy", BOTH)
async def test_a_sticky_grandchild_finishes_in_the_only_slot(leader: Leader, mesh: Mesh, strategy: StickyStrategy, kind: str):
    async def youngest(number: int, ctx: Context) -> int:
        return number * 2

    def sync_youngest(number: int, ctx: Context) -> int:
        return number * 2

    grandchild = mesh.task(name="grandchild", sticky=strategy)(youngest if kind == "async" else sync_youngest)

    @mesh.task(sticky=strategy)
    async def child(number: int, ctx: Context) -> int:
        return 1 + await ctx.spawn_workflow(grandchild, number, sticky=True).result()

    @mesh.task(sticky=strategy)
    async def parent(ctx: Context) -> list[int]:
        refs = [ctx.spawn_workflow(child, number, sticky=True) for number in (1, 2)]
        return [await ref.result() for ref in refs]

    async with running(mesh.worker("clerk", slots=1, workflows=[parent, child, grandchild], id="w-1")), family(leader, "w-1"):
        order = leader.assign("parent")
        await leader.send("w-1", order)
        assert await _output(leader, order) == [3, 5]
        await _free(leader)


@pytest.mark.parametrize("slots", [1, 2])
async def test_many_parents_share_few_slots_and_never_use_more(leader: Leader, mesh: Mesh, slots: int):
    busy = Most()

    @mesh.task(sticky=StickyStrategy.HARD)
    async def child(number: int, ctx: Context) -> int:
        with busy:
            await asyncio.sleep(0)
            return number

    @mesh.task(sticky=StickyStrategy.HARD)
    async def parent(number: int, ctx: Context) -> int:
        with busy:
            await asyncio.sleep(0)
            ref = ctx.spawn_workflow(child, number, sticky=True)
        total = await ref.result()
        with busy:
            await asyncio.sleep(0)
            ref = ctx.spawn_workflow(child, number, sticky=True)
        total += await ref.result()
        with busy:
            await asyncio.sleep(0)
            return total

    async with running(mesh.worker("clerk", slots=slots, workflows=[parent, child], id="w-1")), family(leader, "w-1"):
        orders = [leader.assign("parent", number) for number in range(10)]
        await leader.send("w-1", *orders)
        assert [await _output(leader, order) for order in orders] == [2 * number for number in range(10)]
        assert busy.most <= slots
        await _free(leader)


async def test_waits_side_by_side_claim_one_slot_between_them(leader: Leader, mesh: Mesh):
    """One goes on to another child while the other still waits for the slot: one slot, and nobody is left waiting for it."""
    filler_begun, filler_ends, first_done, go_on = (asyncio.Event() for _ in range(4))

    @mesh.task()
    async def parent(ctx: Context) -> list[Any]:
        one, two = ctx.spawn_workflow("Child", 1), ctx.spawn_workflow("Child", 2)

        async def twice() -> Any:
            await one.result()
            first_done.set()
            await go_on.wait()
            return await ctx.spawn_workflow("Child", 3).result()

        return await asyncio.gather(twice(), two.result())

    @mesh.task()
    async def filler(ctx: Context) -> None:
        filler_begun.set()
        await filler_ends.wait()

    async with running(mesh.worker("clerk", slots=1, workflows=[parent, filler], id="w-1")):
        order = leader.assign("parent")
        await leader.send("w-1", order)
        await leader.report(Lent)
        fill = leader.assign("filler")
        await leader.send("w-1", fill)
        await filler_begun.wait()
        one, two = [await leader.report(records.Spawn, count=count) for count in (1, 2)]
        leader.end("w-1", _done(one.child, 1))
        await first_done.wait()
        leader.end("w-1", _done(two.child, 2))
        assert await _slots_used(leader) == 1  # the answer comes after what was sent before: the second wait is over
        go_on.set()
        three = await leader.report(records.Spawn, count=3)
        leader.end("w-1", _done(three.child, 3))
        assert await _slots_used(leader) == 1
        assert not [record for record in leader.of(order.token) if isinstance(record, Resumed)]
        filler_ends.set()
        assert await _output(leader, order) == [3, 2]
        await _free(leader)
        again = leader.assign("filler")
        await leader.send("w-1", again)
        await _output(leader, again)
        kinds = [type(record) for record in leader.of(order.token)]
        assert (kinds.count(Lent), kinds.count(Resumed)) == (1, 1)


async def test_a_step_cancelled_while_it_waits_for_its_slot_takes_none(leader: Leader, mesh: Mesh):
    filler_ends = asyncio.Event()

    @mesh.task()
    async def parent(ctx: Context) -> None:
        await ctx.spawn_workflow("Child", 1).result()

    @mesh.task()
    async def filler(ctx: Context) -> None:
        await filler_ends.wait()

    async with running(mesh.worker("clerk", slots=1, workflows=[parent, filler], id="w-1")):
        order, fill = leader.assign("parent"), leader.assign("filler")
        await leader.send("w-1", order)
        await leader.report(Lent)
        await leader.send("w-1", fill)
        await leader.report(Accepted, lambda record: record.token == fill.token)
        spawn = await leader.report(records.Spawn)
        leader.end("w-1", _done(spawn.child, 1))
        await leader.bus.request(leader.subjects.control("w-1"), b"", 5)
        await leader.send("w-1", Withdraw(order.run, order.step, order.attempt, order.token, "enough"))
        assert (await leader.last_of(order.token)).kind == records.FAILED_CANCELLED
        assert await _slots_used(leader) == 1
        filler_ends.set()
        await _output(leader, fill)
        await _free(leader)
        assert not [record for record in leader.of(order.token) if isinstance(record, Resumed)]


async def test_a_wait_that_the_step_itself_gives_up_has_the_slot_back_first(leader: Leader, mesh: Mesh):
    filler_ends = asyncio.Event()
    waits: list[asyncio.Future[Any]] = []
    went_on: list[int] = []

    @mesh.task()
    async def parent(ctx: Context) -> str:
        waits.append(asyncio.ensure_future(ctx.spawn_workflow("Child", 1).result()))
        try:
            await waits[0]
        except asyncio.CancelledError:
            went_on.append(1)
            return "without it"
        return "with it"

    @mesh.task()
    async def filler(ctx: Context) -> None:
        await filler_ends.wait()

    async with running(mesh.worker("clerk", slots=1, workflows=[parent, filler], id="w-1")):
        order, fill = leader.assign("parent"), leader.assign("filler")
        await leader.send("w-1", order)
        await leader.report(Lent)
        await leader.send("w-1", fill)
        await leader.report(Accepted, lambda record: record.token == fill.token)
        for _ in range(2):
            waits[0].cancel()
            assert await _slots_used(leader) == 1
            assert not went_on
        filler_ends.set()
        assert await _output(leader, order) == "without it"
        await _free(leader)


@pytest.mark.parametrize("strategy", BOTH)
async def test_a_sync_wait_for_a_sticky_child_in_the_only_slot_is_refused(
    leader: Leader, mesh: Mesh, monkeypatch: pytest.MonkeyPatch, strategy: StickyStrategy
):
    monkeypatch.setattr(parking, "STUCK_AFTER_S", 0.2)

    @mesh.task(sticky=strategy)
    def child(number: int, ctx: Context) -> int:
        return number

    @mesh.task(sticky=strategy)
    def parent(ctx: Context) -> Any:
        return ctx.spawn_workflow(child, 1, sticky=True).result_sync()

    async with running(mesh.worker("clerk", slots=1, workflows=[parent, child], id="w-1")), family(leader, "w-1"):
        leader.pools["child"] = ["w-1"]
        order = leader.assign("parent")
        await leader.send("w-1", order)
        failed = await leader.last_of(order.token)
        assert isinstance(failed, Failed)
        assert failed.error.type == SpawnError.__name__
        for said in ("step parent:parent", "'child'", "result_sync()", "make the step async", "more slots"):
            assert said in failed.error.message
        await leader.report(Finished)
        await _free(leader)
