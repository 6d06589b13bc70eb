"""Children: what is refused before anything is written, what is written, and how a step waits for them."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from msgspec import Raw
from pydantic import BaseModel

from mesh_sdk import Context, Mesh, MeshError, Spawn, SpawnError, StickyChildError, StickyStrategy, WorkerLabel
from mesh_sdk.protocol import ids, records
from mesh_sdk.protocol.codec import encode
from mesh_sdk.protocol.definitions import LabelDefinition
from mesh_sdk.protocol.records import Done, Failed, Finished, Lent, Origin, Resumed
from mesh_sdk.worker import parking
from tests.worker.conftest import running
from tests.worker.leader import Leader


class Order(BaseModel):
    id: int


def _done(child: str, output: object) -> Done:
    return Done(child, records.SUCCEEDED, Raw(encode(output)))


@pytest.mark.parametrize("kind", ["async", "sync"])
async def test_a_child_is_spawned_and_its_result_comes_back(leader: Leader, mesh: Mesh, kind: str):
    @mesh.task()
    async def child(order: Order, ctx: Context) -> int:
        return order.id

    async def parent(ctx: Context) -> list[Any]:
        typed = ctx.spawn_workflow(child, Order(id=1), metadata={"a": "b"}, priority=3, desired_worker_labels={"zone": "eu"})
        named = ctx.spawn_workflow("elsewhere", {"x": 1}, options={"key": "k"})
        assert typed.run_id != named.run_id
        return [await typed.result(), await named.result()]

    def sync_parent(ctx: Context) -> list[Any]:
        typed = Spawn(child, Order(id=1), metadata={"a": "b"}, priority=3, desired_worker_labels={"zone": "eu"})
        refs = ctx.spawn_workflows([typed, Spawn("elsewhere", {"x": 1}, key="k")])
        return [ref.result_sync() for ref in refs]

    task = mesh.task(name="parent")(parent if kind == "async" else sync_parent)
    async with running(mesh.worker("clerk", slots=2, workflows=[task, child], id="w-1")):
        order = leader.assign("parent")
        await leader.share("w-1", order)
        second = await leader.report(records.Spawn, count=2)
        first = await leader.report(records.Spawn)
        assert (first.position, first.workflow, first.priority, first.metadata) == ("child#0", "child", 3, {"a": "b"})
        assert (first.labels, second.labels) == ([LabelDefinition("zone", "eu")], [])
        assert (second.position, second.workflow, bytes(second.input)) == ("key:k", "elsewhere", b'{"x":1}')
        time_ms = ids.run_id_time_ms(order.run)
        assert first.child == ids.derived_run_id(time_ms, order.run, "parent", "child#0")
        leader.end("w-1", _done(second.child, {"y": 2}))
        leader.end("w-1", _done(first.child, 5))
        finished = await leader.last_of(order.token)
        assert isinstance(finished, Finished)
        assert bytes(finished.output) == b'[5,{"y":2}]'
        kinds = [type(record) for record in leader.of(order.token)]
        assert kinds.index(records.Spawn) < kinds.index(Finished)


async def _error_of(leader: Leader, mesh: Mesh, step: Any, *, others: tuple[Any, ...] = (), origin: Origin | None = None) -> Failed:
    task = mesh.task(name="parent")(step)
    async with running(mesh.worker("clerk", slots=2, workflows=[task, *others], id="w-1")):
        order = leader.assign("parent", origin=origin)
        await leader.share("w-1", order)
        failed = await leader.last_of(order.token)
        assert isinstance(failed, Failed), failed
        return failed


async def test_a_sticky_child_must_be_registered_here(leader: Leader, mesh: Mesh):
    async def parent(ctx: Context) -> None:
        ctx.spawn_workflow("Elsewhere", {}, options={"sticky": True})

    failed = await _error_of(leader, mesh, parent)
    assert failed.error.type == StickyChildError.__name__
    assert "'Elsewhere'" in failed.error.message
    assert "'w-1'" in failed.error.message
    assert not [each for each in leader.reports if isinstance(each.record, records.Spawn)]


async def test_a_sticky_child_must_declare_a_strategy(leader: Leader, mesh: Mesh):
    @mesh.task()
    def loose(ctx: Context) -> None: ...

    async def parent(ctx: Context) -> None:
        ctx.spawn_workflow(loose, sticky=True)

    failed = await _error_of(leader, mesh, parent, others=(loose,))
    assert failed.error.type == StickyChildError.__name__
    assert "StickyStrategy" in failed.error.message


async def test_a_sticky_child_that_fits_is_spawned(leader: Leader, mesh: Mesh):
    @mesh.workflow(sticky=StickyStrategy.SOFT)
    class Close:
        @mesh.step()
        def only(self, context: Context) -> None: ...

    @mesh.task()
    def parent(ctx: Context) -> str:
        return ctx.spawn_workflow(Close, sticky=True).run_id

    async with running(mesh.worker("clerk", slots=2, workflows=[parent, Close], id="w-1")):
        order = leader.assign("parent")
        await leader.share("w-1", order)
        spawn = await leader.report(records.Spawn)
        assert spawn.sticky
        assert bytes((await leader.last_of(order.token)).output).decode().strip('"') == spawn.child


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"options": {"stickky": True}}, "stickky"),
        ({"priority": 12}, "12"),
        ({"metadata": {"a": 1}}, "metadata"),
        ({"key": 7}, "7"),
        ({"desired_worker_labels": ["gpu"]}, "desired_worker_labels of child 'Child' is ['gpu']: use a mapping"),
        ({"options": {"desired_worker_labels": {"gpu": WorkerLabel(1, comparator="~")}}}, "comparator of label 'gpu'"),
    ],
    ids=["option", "priority", "metadata", "key", "labels", "comparator"],
)
async def test_what_can_not_be_spawned_is_refused_by_name(leader: Leader, mesh: Mesh, arguments: dict[str, Any], named: str):
    async def parent(ctx: Context) -> None:
        ctx.spawn_workflow("Child", {}, **arguments)

    failed = await _error_of(leader, mesh, parent)
    assert failed.error.type == SpawnError.__name__
    assert named in failed.error.message


async def test_a_retry_that_spawns_something_else_is_refused_naming_key(leader: Leader, mesh: Mesh):
    async def parent(ctx: Context) -> None:
        ctx.spawn_workflow("Child", {"other": "input"})

    failed = await _error_of(leader, mesh, parent, origin=Origin({}, children=[("Child#0", "another digest", "0" * 32)]))
    assert failed.error.type == SpawnError.__name__
    assert "key=" in failed.error.message


async def test_a_retry_finds_the_child_of_the_attempt_before_and_asks_for_its_end(leader: Leader, mesh: Mesh):
    @mesh.task()
    async def parent(ctx: Context) -> Any:
        return await ctx.spawn_workflow("Child", {"n": 1}).result()

    async with running(mesh.worker("clerk", slots=2, workflows=[parent], id="w-1")):
        first = leader.assign("parent")
        await leader.share("w-1", first)
        spawn = await leader.report(records.Spawn)
        leader.results[spawn.child] = _done(spawn.child, 7)
        again = leader.assign("parent", run=first.run, attempt=2, origin=Origin({}, children=[(spawn.position, spawn.digest, spawn.child)]))
        await leader.share("w-1", again)
        assert bytes((await leader.last_of(again.token, timeout=5)).output) == b"7"
        assert not [record for record in leader.of(again.token) if isinstance(record, records.Spawn)]
        leader.end("w-1", _done(spawn.child, 7))
        await leader.last_of(first.token)


async def test_a_retry_finds_its_sticky_child_where_that_is_not_registered_any_more(leader: Leader, mesh: Mesh):
    @mesh.task()
    async def parent(ctx: Context) -> Any:
        return await ctx.spawn_workflow("Child", {"n": 1}, sticky=True).result()

    async with running(mesh.worker("clerk", slots=2, workflows=[parent], id="w-1")):
        child = "0" * 32
        leader.results[child] = _done(child, 7)
        known = ("Child#0", ids.content_digest(b'Child\0{"n":1}'), child)
        again = leader.assign("parent", attempt=2, origin=Origin({}, children=[known]))
        await leader.share("w-1", again)
        assert bytes((await leader.last_of(again.token, timeout=5)).output) == b"7"


async def test_the_slot_is_lent_while_an_async_step_waits(leader: Leader, mesh: Mesh):
    let_go = asyncio.Event()

    @mesh.task()
    async def parent(ctx: Context) -> list[Any]:
        refs = [ctx.spawn_workflow("Child", number) for number in range(2)]
        return await asyncio.gather(*(ref.result() for ref in refs))

    @mesh.task()
    async def other(ctx: Context) -> None:
        await let_go.wait()

    async with running(mesh.worker("clerk", slots=1, workflows=[parent, other], id="w-1")):
        order = leader.assign("parent")
        await leader.share("w-1", order)
        await leader.report(Lent)
        filler, late = leader.assign("other"), leader.assign("other")
        await leader.send("w-1", filler, late)
        spawns = [await leader.report(records.Spawn, count=count) for count in (1, 2)]
        await leader.report(records.Accepted, lambda record: record.token == filler.token)
        for spawn in spawns:
            leader.end("w-1", _done(spawn.child, 1))
        await leader.bus.request(leader.subjects.control("w-1"), b"", 5)
        assert not [record for record in leader.of(order.token) if isinstance(record, Resumed)], "no slot is free"
        let_go.set()
        assert isinstance(await leader.last_of(order.token), Finished)
        assert [type(record) for record in leader.of(order.token)].count(Lent) == 1
        order_of_reports = [each.record.token for each in leader.reports if isinstance(each.record, Finished)]
        await leader.last_of(late.token)
        assert order_of_reports.index(order.token) < 2
        resumed = next(place for place, each in enumerate(leader.reports) if isinstance(each.record, Resumed))
        ended = next(place for place, each in enumerate(leader.reports) if getattr(each.record, "token", "") == late.token)
        assert resumed < ended, "a step that goes on comes before new work"


async def test_a_wait_that_could_never_end_is_refused(leader: Leader, mesh: Mesh, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(parking, "STUCK_AFTER_S", 0.2)

    @mesh.task()
    def parent(ctx: Context) -> Any:
        return ctx.spawn_workflow("child", 1).result_sync()

    @mesh.task()
    def child(ctx: Context) -> int:
        return 1

    async with running(mesh.worker("clerk", slots=2, workflows=[parent, child], id="w-1")):
        leader.pools["child"] = ["w-1"]
        orders = [leader.assign("parent"), leader.assign("parent")]
        await leader.send("w-1", *orders)
        failed = await leader.report(Failed)
        assert failed.error.type == SpawnError.__name__
        assert "all 2 slots" in failed.error.message
        spawn = await leader.report(records.Spawn, lambda record: record.token != failed.token)
        leader.end("w-1", _done(spawn.child, 3))
        finished = await leader.report(Finished)
        assert bytes(finished.output) == b"3"


async def test_a_sync_wait_is_not_refused_while_another_worker_could_run_the_child(
    leader: Leader, mesh: Mesh, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(parking, "STUCK_AFTER_S", 0.05)
    asked = threading.Event()

    @mesh.task()
    def parent(ctx: Context) -> Any:
        return ctx.spawn_workflow("child", 1).result_sync()

    look = parking.Parking._look

    def looked(self: parking.Parking) -> None:
        look(self)
        asked.set()

    monkeypatch.setattr(parking.Parking, "_look", looked)
    async with running(mesh.worker("clerk", slots=1, workflows=[parent], id="w-1")):
        leader.pools["child"] = ["w-1", "w-2"]
        order = leader.assign("parent")
        await leader.share("w-1", order)
        spawn = await leader.report(records.Spawn)
        assert await asyncio.to_thread(asked.wait, 5)
        leader.end("w-1", _done(spawn.child, 3))
        assert isinstance(await leader.last_of(order.token), Finished)


async def test_a_sync_step_that_waits_is_woken_by_its_withdrawal(leader: Leader, mesh: Mesh):
    @mesh.task()
    def parent(ctx: Context) -> Any:
        return ctx.spawn_workflow("child", 1).result_sync()

    async with running(mesh.worker("clerk", slots=1, workflows=[parent], id="w-1")):
        order = leader.assign("parent")
        await leader.send("w-1", order)
        await leader.report(records.Spawn)
        await leader.report(records.Accepted)
        await leader.send("w-1", records.Withdraw(order.run, order.step, order.attempt, order.token, "enough"))
        assert (await leader.last_of(order.token)).kind == records.FAILED_CANCELLED


async def test_result_sync_on_the_loop_says_what_to_await(leader: Leader, mesh: Mesh):
    async def parent(ctx: Context) -> Any:
        return ctx.spawn_workflow("child", 1).result_sync()

    failed = await _error_of(leader, mesh, parent)
    assert failed.error.type == MeshError.__name__
    assert "await ref.result" in failed.error.message
