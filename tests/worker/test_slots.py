"""Steps that take several slots: all at once, in their turn, and never more in use than there are."""

from __future__ import annotations

import asyncio
import json
import threading
from collections import defaultdict

import pytest
from msgspec import Raw

from mesh_sdk import Context, Mesh, SpawnError
from mesh_sdk.protocol import records
from mesh_sdk.protocol.records import Accepted, Assign, Done, Failed, Finished, Lent, Resumed, Returned, Spawn, Withdraw
from mesh_sdk.worker import line, parking
from tests.worker.conftest import running
from tests.worker.leader import Leader


class Work:
    """Steps `small`, `big` and so on of one worker with four slots, which run until the test lets them end."""

    def __init__(self, leader: Leader) -> None:
        self.started: list[str] = []
        self._leader = leader
        self._gates: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)

    async def run(self, ctx: Context) -> None:
        self.started.append(ctx.metadata["who"])
        await self._gates[ctx.metadata["who"]].wait()

    def order(self, who: str, action: str) -> Assign:
        return self._leader.assign(action, origin=records.Origin({"who": who}))

    def end(self, who: str) -> None:
        self._gates[who].set()


async def _told(leader: Leader) -> dict[str, int]:
    told: dict[str, int] = json.loads(await leader.bus.request(leader.subjects.control("w-1"), b"", 5))
    return told


async def _come(leader: Leader, **counts: int) -> None:
    """Return when the worker says so of `running` (slots in use) and `holding` (attempts)."""
    async with asyncio.timeout(10):
        while not counts.items() <= (await _told(leader)).items():
            await asyncio.sleep(0.005)


async def _end_child(leader: Leader, run: str) -> None:
    """Return when its parent has heard of it: each answer takes the worker's loop another turn."""
    leader.end("w-1", Done(run, records.SUCCEEDED, Raw(b"null")))
    for _ in range(20):
        await _told(leader)


def _withdraw(order: Assign) -> Withdraw:
    return Withdraw(order.run, order.step, order.attempt, order.token, "no longer wanted")


async def test_a_step_of_three_slots_waits_for_three_and_is_not_overtaken(leader: Leader, mesh: Mesh):
    work = Work(leader)
    small, big = mesh.task(name="small")(work.run), mesh.task(name="big", slots=3)(work.run)
    async with running(mesh.worker("clerk", slots=4, workflows=[small, big], id="w-1"), grace="100ms"):
        await leader.send("w-1", *(work.order(who, "small") for who in ("zero", "one", "two")))
        await _come(leader, running=3)
        await leader.send("w-1", work.order("big", "big"), work.order("three", "small"))
        await _come(leader, holding=5, running=3)
        work.end("zero")
        await _come(leader, holding=4, running=2)
        shared = work.order("four", "small")
        await leader.share("w-1", shared)  # two slots are free, and reserved
        assert work.started == ["zero", "one", "two"]
        work.end("one")
        await _come(leader, running=4)
        assert work.started == ["zero", "one", "two", "big"]
        assert not any(isinstance(record, Accepted) for record in leader.of(shared.token))
        work.end("big")
        async with asyncio.timeout(10):
            while "three" not in work.started:
                await asyncio.sleep(0.005)
        for who in ("two", "three", "four"):
            work.end(who)


async def test_its_slots_are_counted_as_used(leader: Leader, mesh: Mesh):
    """And no message of the shared lane is asked for that could only go back."""
    work = Work(leader)
    small, big = mesh.task(name="small")(work.run), mesh.task(name="big", slots=4)(work.run)
    async with running(mesh.worker("clerk", slots=4, workflows=[small, big], id="w-1"), grace="100ms"):
        await leader.send("w-1", order := work.order("big", "big"))
        await leader.report(Accepted)
        assert (await _told(leader))["running"] == 4
        work.end("big")
        assert isinstance(await leader.last_of(order.token), Finished)
        await _come(leader, running=0)


async def test_one_that_is_withdrawn_makes_way(leader: Leader, mesh: Mesh):
    work = Work(leader)
    small, big = mesh.task(name="small")(work.run), mesh.task(name="big", slots=4)(work.run)
    async with running(mesh.worker("clerk", slots=4, workflows=[small, big], id="w-1"), grace="100ms"):
        large = work.order("big", "big")
        await leader.send("w-1", work.order("one", "small"), large, work.order("two", "small"))
        await _come(leader, holding=3, running=1)
        await leader.send("w-1", _withdraw(large))
        returned = await leader.last_of(large.token)
        assert isinstance(returned, Returned)
        await _come(leader, holding=2, running=2)
        work.end("one")
        work.end("two")


async def test_it_lends_all_of_them_and_takes_all_of_them_back(leader: Leader, mesh: Mesh):
    work = Work(leader)
    small = mesh.task(name="small")(work.run)

    @mesh.task(slots=3)
    async def parent(ctx: Context) -> None:
        await ctx.spawn_workflow("child").result()
        await work.run(ctx)

    async with running(mesh.worker("clerk", slots=4, workflows=[small, parent], id="w-1"), grace="100ms"):
        await leader.send("w-1", work.order("parent", "parent"), work.order("one", "small"))
        child = (await leader.report(Spawn)).child
        await leader.report(Lent)
        await _come(leader, running=1)
        await leader.send("w-1", work.order("two", "small"))
        await _come(leader, running=2)
        await _end_child(leader, child)
        await leader.send("w-1", work.order("three", "small"))  # new work comes behind it, although it would fit
        await _come(leader, holding=4, running=2)
        assert work.started == ["one", "two"]
        work.end("one")
        await leader.report(Resumed)
        await _come(leader, running=4)
        assert work.started == ["one", "two", "parent"]
        work.end("parent")
        await _come(leader, running=2)
        work.end("two")
        work.end("three")


async def test_a_parent_that_is_cancelled_while_it_wants_its_slots_back_makes_way(leader: Leader, mesh: Mesh):
    work = Work(leader)
    small = mesh.task(name="small")(work.run)

    @mesh.task(slots=3)
    async def parent(ctx: Context) -> None:
        await ctx.spawn_workflow("child").result()

    async with running(mesh.worker("clerk", slots=4, workflows=[small, parent], id="w-1"), grace="100ms"):
        order = work.order("parent", "parent")
        await leader.send("w-1", order, work.order("one", "small"))
        child = (await leader.report(Spawn)).child
        await leader.report(Lent)
        await leader.send("w-1", work.order("two", "small"))
        await _come(leader, running=2)
        await _end_child(leader, child)
        await leader.send("w-1", work.order("three", "small"))
        await _come(leader, holding=4, running=2)
        await leader.send("w-1", _withdraw(order))
        await leader.last_of(order.token)
        await _come(leader, running=3)
        for who in ("one", "two", "three"):
            work.end(who)


@pytest.mark.parametrize("first", ["child", "big"])
async def test_the_child_that_a_sync_step_waits_for_goes_ahead_of_a_large_one(leader: Leader, mesh: Mesh, first: str):
    """The step keeps its slots: those that the large one needs will not be free before the child has run."""
    work = Work(leader)
    big = mesh.task(name="big", slots=3)(work.run)
    go_on = threading.Event()

    @mesh.task()
    async def child(ctx: Context) -> None: ...

    @mesh.task(slots=2)
    def parent(ctx: Context) -> None:
        ref = ctx.spawn_workflow(child)
        go_on.wait(10)
        ref.result_sync()

    async with running(mesh.worker("clerk", slots=4, workflows=[big, parent, child], id="w-1"), grace="100ms"):
        order, large = work.order("parent", "parent"), work.order("big", "big")
        await leader.send("w-1", order)
        run = (await leader.report(Spawn)).child
        needed = leader.assign("child", run=run)
        if first == "big":
            await leader.send("w-1", large, needed)
            await _come(leader, holding=3, running=2)
            go_on.set()
        else:
            await leader.send("w-1", large)
            await _come(leader, holding=2, running=2)
            go_on.set()
            await leader.send("w-1", needed)
        assert isinstance(await leader.last_of(needed.token), Finished)
        await _end_child(leader, run)
        assert isinstance(await leader.last_of(order.token), Finished)
        await _come(leader, running=3)
        work.end("big")


async def test_a_large_one_goes_back_when_only_waiting_steps_keep_the_slots(leader: Leader, mesh: Mesh, monkeypatch: pytest.MonkeyPatch):
    """The leader counts the free slots as promised to it, and would send no child there."""
    monkeypatch.setattr(line, "STUCK_LOOKS", 1)
    work = Work(leader)
    big = mesh.task(name="big", slots=3)(work.run)

    @mesh.task()
    async def child(ctx: Context) -> None: ...

    @mesh.task(slots=2)
    def parent(ctx: Context) -> None:
        ctx.spawn_workflow(child).result_sync()

    async with running(mesh.worker("clerk", slots=4, workflows=[big, parent, child], id="w-1"), grace="100ms"):
        order, large = work.order("parent", "parent"), work.order("big", "big")
        await leader.send("w-1", order, large)
        run = (await leader.report(Spawn)).child
        returned = await leader.last_of(large.token)
        assert isinstance(returned, Returned)
        assert returned.reason == records.RETURNED_FULL
        await leader.share("w-1", needed := leader.assign("child", run=run))
        assert isinstance(await leader.last_of(needed.token), Finished)
        await _end_child(leader, run)
        assert isinstance(await leader.last_of(order.token), Finished)


@pytest.mark.parametrize("others", [[], ["w-2"]], ids=["only here", "also elsewhere"])
async def test_a_wait_for_a_child_that_can_not_get_its_slots_is_refused(
    leader: Leader, mesh: Mesh, monkeypatch: pytest.MonkeyPatch, others: list[str]
):
    """There are enough of them, but the step that waits keeps one."""
    monkeypatch.setattr(parking, "STUCK_AFTER_S", 0.1)
    asked = threading.Event()
    look = parking.Parking._look

    def looked(self: parking.Parking) -> None:
        look(self)
        asked.set()

    monkeypatch.setattr(parking.Parking, "_look", looked)

    @mesh.task(slots=4)
    async def child(ctx: Context) -> None: ...

    @mesh.task()
    def parent(ctx: Context) -> None:
        ctx.spawn_workflow(child).result_sync()

    async with running(mesh.worker("clerk", slots=4, workflows=[parent, child], id="w-1"), grace="100ms"):
        leader.pools["child"] = ["w-1", *others]
        await leader.send("w-1", order := leader.assign("parent"))
        run = (await leader.report(Spawn)).child
        if not others:
            failed = await leader.last_of(order.token)
            assert isinstance(failed, Failed)
            assert failed.error.type == SpawnError.__name__
            assert "the child takes 4 slots, and steps that wait so keep 1 of the 4 slots of this worker" in failed.error.message
            assert "make the step async" in failed.error.message
            return
        assert await asyncio.to_thread(asked.wait, 5)
        await _end_child(leader, run)
        assert isinstance(await leader.last_of(order.token), Finished)


async def test_a_step_that_needs_more_slots_than_the_worker_has_takes_all_of_them(leader: Leader, mesh: Mesh):
    """The leader sends none that its definition says so of; a run of an older definition may still come."""
    work = Work(leader)
    huge = mesh.task(name="huge", slots=9)(work.run)
    async with running(mesh.worker("clerk", slots=4, workflows=[huge], id="w-1"), grace="100ms"):
        await leader.send("w-1", work.order("huge", "huge"))
        await _come(leader, running=4)
        work.end("huge")
