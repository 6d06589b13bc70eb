"""Starting runs and getting their results, against a scripted scheduler on a real server."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from pydantic import BaseModel

from mesh_sdk import (
    ConnectionFailed,
    Context,
    InvalidInput,
    Mesh,
    MeshError,
    PayloadTooLarge,
    RunCancelled,
    RunFailed,
    RunNotFound,
    RunTimedOut,
    Unavailable,
    UnknownWorkflow,
    leader,
    unstored,
)
from mesh_sdk.protocol.records import Cancel
from tests.contract.servers import Server, free_port
from tests.sdk.conftest import until
from tests.sdk.scheduler import Scheduler


class Order(BaseModel):
    id: int
    total: float


class Receipt(BaseModel):
    order_id: int
    charged: float


async def test_run_by_name_gives_plain_json(mesh: Mesh):
    assert await mesh.run("echo", {"user_id": 7}) == {"user_id": 7}


async def test_a_task_validates_its_input_and_reads_its_output(mesh: Mesh, scheduler: Scheduler):
    @mesh.task(name="typed", priority=4)
    async def charge(order: Order, ctx: Context) -> Receipt:
        return Receipt(order_id=order.id, charged=order.total)

    assert await charge.run(Order(id=7, total=9.5)) == Receipt(order_id=7, charged=9.5)
    assert scheduler.priorities == [4]
    with pytest.raises(InvalidInput, match="total: Field required"):
        await charge.run({"id": 7})  # type: ignore[call-overload]
    assert len(scheduler.starts) == 1


BINDING = {"sticky": "HARD", "here": True, "known": True}


async def test_start_gives_a_reference_and_all_options_travel(mesh: Mesh, scheduler: Scheduler):
    scheduler.answers["workers.binding"] = lambda body: {"ok": BINDING}
    ref = await mesh.start("sticky one", [1], priority=3, metadata={"tenant": "a"}, delay="10m", sticky_worker="w-3")
    [(_, start)] = scheduler.starts or await _first(scheduler)
    assert start.run == ref.run_id
    assert (start.priority, start.metadata, start.delay_ms, start.worker) == (3, {"tenant": "a"}, 600_000, "w-3")
    assert scheduler.priorities == [3]
    assert await ref.result() == [1]
    assert await ref.result() == [1], "the result may be asked for again"


async def _first(scheduler: Scheduler) -> list:
    await until(lambda: bool(scheduler.starts))
    return scheduler.starts


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"priority": 10}, "10"),
        ({"priority": True}, "True"),
        ({"metadata": {"a": 1}}, "{'a': 1}"),
        ({"delay": "soon"}, "'soon'"),
        ({"key": ""}, "''"),
        ({"sticky_worker": 5}, "5"),
    ],
)
async def test_a_start_option_that_cannot_be_is_refused(mesh: Mesh, scheduler: Scheduler, options: dict, said: str):
    with pytest.raises(InvalidInput) as refused:
        await mesh.start("echo", 1, **options)
    assert said in str(refused.value)
    assert not scheduler.starts


@pytest.mark.parametrize(
    ("binding", "said"),
    [
        ({"sticky": ""}, "the workflow is not sticky"),
        ({"lacks": ["echo:a"], "others": ["w-2", "w-3"], "others_have_it": True}, "does not register echo:a; these have it: w-2, w-3"),
        ({"known": False, "others": [f"w-{n}" for n in range(6)]}, "there are: w-0, w-1, w-2, w-3, w-4, …"),
        ({"known": False}, "no worker is there to be named"),
    ],
)
async def test_a_worker_that_a_run_cannot_be_bound_to_is_refused(mesh: Mesh, scheduler: Scheduler, binding: dict, said: str):
    scheduler.answers["workers.binding"] = lambda body: {"ok": {**BINDING, **binding}}
    scheduler.answers["runs.list"] = lambda body: {"ok": {"runs": [], "next": None}}
    with pytest.raises(InvalidInput) as refused:
        await mesh.start("echo", 1, sticky_worker="w-1")
    assert said in str(refused.value)
    lost = mesh.start_nowait("echo", 1, sticky_worker="w-1")
    assert await mesh.run("echo", 2) == 2
    with pytest.raises(InvalidInput, match="w-1"):
        await lost.accepted()
    assert [bytes(start.input) for _, start in scheduler.starts] == [b"2"]


async def test_a_worker_that_a_run_was_on_is_no_stranger(mesh: Mesh, scheduler: Scheduler):
    """The slots bucket of a lone server that was restarted has no row of it."""
    scheduler.answers["workers.binding"] = lambda body: {"ok": {**BINDING, "here": False, "known": False}}
    scheduler.answers["runs.list"] = lambda body: {"ok": {"runs": [{}], "next": None}}
    assert await mesh.run("echo", 1, sticky_worker="w-1") == 1
    assert scheduler.calls[-1] == ("runs.list", {"worker": "w-1", "limit": 1})


async def test_many_runs_on_one_worker_are_checked_once(mesh: Mesh, scheduler: Scheduler):
    scheduler.answers["workers.binding"] = lambda body: {"ok": BINDING}
    assert await mesh.run_many("echo", range(20), sticky_worker="w-1") == list(range(20))
    assert scheduler.calls == [("workers.binding", {"worker": "w-1", "workflow": "echo"})]
    assert await mesh.run_many("echo", [], sticky_worker="w-1") == []
    scheduler.answers["workers.binding"] = lambda body: {"ok": []}
    with pytest.raises(MeshError, match="are both of one version"):
        await mesh.run("echo", 1, sticky_worker="w-1")


async def test_an_unknown_start_option_is_a_type_error(mesh: Mesh):
    with pytest.raises(TypeError, match="prio"):
        await mesh.start("echo", 1, prio=3)  # type: ignore[call-overload]


async def test_how_runs_end_badly(mesh: Mesh):
    with pytest.raises(RunFailed) as failed:
        await mesh.run("fails")
    text = str(failed.value)
    assert "step 'first': ValueError: no such thing (attempt 2)" in text
    assert "step 'second': KeyError: 'x'" in text
    assert [(each.step, each.type, each.traceback) for each in failed.value.errors] == [
        ("first", "ValueError", "Traceback…"),
        ("second", "KeyError", ""),
    ]
    with pytest.raises(RunCancelled, match=r"^not wanted any more$"):
        await mesh.run("cancelled")
    with pytest.raises(RunTimedOut, match="took more than 60 s"):
        await mesh.run("slow")
    with pytest.raises(UnknownWorkflow, match="no worker has 'refused'"):
        await mesh.run("refused")


async def test_a_workflow_that_nobody_registered_is_unknown(mesh: Mesh, scheduler: Scheduler):
    with pytest.raises(UnknownWorkflow, match="'nowhere'"):
        await mesh.run("nowhere", {})
    await scheduler.register("nowhere")
    assert await mesh.run("nowhere", 5) == 5, "a no is not remembered"


async def test_a_namespace_without_scheduler_is_told(server: Server):
    async with Mesh(url=server.url, namespace="nobody") as mesh:
        with pytest.raises(Unavailable, match="no scheduler has set up the namespace 'nobody'"):
            await mesh.run("echo")
        with pytest.raises(Unavailable, match="no scheduler has set up the namespace 'nobody'"):
            await mesh.events.publish("a", 1)


async def test_no_server_names_the_url():
    url = f"nats://127.0.0.1:{free_port()}"
    mesh = Mesh(url=url, connect_timeout=0.2)
    with pytest.raises(ConnectionFailed, match=url):
        await mesh.run("echo")


async def test_an_input_over_the_limit_is_refused(mesh: Mesh, scheduler: Scheduler):
    with pytest.raises(PayloadTooLarge, match=r"524,288"):
        await mesh.run("echo", "x" * 600_000)
    assert not scheduler.starts


async def test_run_many_keeps_the_order(mesh: Mesh, scheduler: Scheduler):
    assert await mesh.run_many("echo", range(3_000)) == list(range(3_000))
    ends = await mesh.run_many("fails", [1, 2], return_exceptions=True)
    assert [type(end) for end in ends] == [RunFailed, RunFailed]
    with pytest.raises(RunFailed):
        await mesh.run_many("fails", [1, 2])


async def test_a_key_gives_the_same_run(mesh: Mesh, scheduler: Scheduler):
    first = await mesh.start("echo", "once", key="k")
    with pytest.raises(MeshError, match="accepted"):
        _ = first.run_id
    assert await first.accepted() == first.run_id
    second = await mesh.start("echo", "again", key="k")
    assert await second.result() == "once"
    assert second.run_id == first.run_id
    assert await mesh.run("echo", "more", key="k") == "once"


async def test_an_idempotency_key_holds_for_every_way_to_start(mesh: Mesh, scheduler: Scheduler):
    @mesh.task(name="echo", idempotency_key="input.id")
    def by_path(order: Order, ctx: Context) -> Order:
        return order

    @mesh.task(name="silent", idempotency_key=lambda order: f"order-{order.id}")
    def by_function(order: Order, ctx: Context) -> Order:
        return order

    await by_path.start(Order(id=1, total=1))
    await mesh.start("echo", {"id": 2, "total": 1})
    await by_path.start(Order(id=1, total=1), key="own")
    await by_function.start({"id": 3, "total": 1})  # type: ignore[call-overload]
    await until(lambda: len(scheduler.starts) == 4)
    assert [start.key for _, start in scheduler.starts] == ["1", "2", "own", "order-3"]
    with pytest.raises(InvalidInput, match="'id'"):
        await mesh.start("echo", {"total": 1})


async def test_start_nowait_is_plain_and_accepted_tells_when(mesh: Mesh, scheduler: Scheduler):
    ref = mesh.start_nowait("echo", {"a": 1})
    assert await ref.accepted() == ref.run_id
    await until(lambda: [start.run for _, start in scheduler.starts] == [ref.run_id])
    assert await ref.result() == {"a": 1}
    lost = mesh.start_nowait("nowhere")
    with pytest.raises(UnknownWorkflow):
        await lost.accepted()
    with pytest.raises(UnknownWorkflow):
        await lost.result()


async def test_first_starts_that_come_at_once_ask_once_for_their_workflow(mesh: Mesh, monkeypatch: pytest.MonkeyPatch):
    """Ten thousand questions took a busy server longer than anybody waits."""
    leader, asked = mesh.clients.here().leader, []
    persist = leader.persist

    async def counted(ask: Any, what: str) -> Any:
        asked.append(what)
        return await persist(ask, what)

    monkeypatch.setattr(leader, "persist", counted)
    first = asyncio.create_task(mesh.run("echo", 0))
    others = [asyncio.create_task(mesh.run("echo", number)) for number in range(1, 50)]
    await until(lambda: bool(asked))
    first.cancel()
    assert await asyncio.gather(*others) == list(range(1, 50)), "who asked first may go"
    assert len(asked) == 1
    ends = await asyncio.gather(*[mesh.run("nowhere") for _ in range(2)], return_exceptions=True)
    assert [type(end) for end in ends] == [UnknownWorkflow] * 2
    with pytest.raises(UnknownWorkflow):
        await mesh.run("nowhere")
    assert len(asked) == 3, "a no is not remembered"


async def test_the_timeout_ends_the_waiting_only(mesh: Mesh, scheduler: Scheduler):
    ref = await mesh.start("held", 1)
    with pytest.raises(TimeoutError):
        await ref.result(timeout=0.02)
    other = asyncio.ensure_future(ref.result())
    given_up = asyncio.ensure_future(ref.result())
    await asyncio.sleep(0)
    given_up.cancel()
    await until(lambda: bool(scheduler.starts))
    scheduler.release()
    assert await other == 1


async def test_cancel_is_stored_with_its_reason(mesh: Mesh, scheduler: Scheduler):
    ref = await mesh.start("held", 1)
    await ref.cancel("why")
    scheduler.answers["runs.get"] = lambda body: {"ok": {"run_id": body["run_id"], "workflow": "held", "status": "running"}}
    await mesh.runs.cancel(ref.run_id, "again")
    await until(lambda: len(scheduler.cancels) == 2)
    assert [(cancel.run, cancel.reason) for cancel in scheduler.cancels] == [(ref.run_id, "why"), (ref.run_id, "again")]


@pytest.mark.parametrize("run_id", ["nope", "", "0" * 31, "0" * 31 + "g", "A" * 32, None])
async def test_a_cancel_of_what_is_no_run_id_is_refused_and_not_stored(mesh: Mesh, scheduler: Scheduler, run_id: Any):
    for cancel in (mesh.runs.cancel, lambda run_id: mesh.ref(run_id).cancel()):
        with pytest.raises(RunNotFound, match=rf"there is no run {run_id!r}: the id of a run is 32 hex digits"):
            await cancel(run_id)
    await mesh.start("echo", 1)
    await until(lambda: bool(scheduler.starts))
    assert not scheduler.cancels


async def test_a_cancel_of_a_run_that_the_leader_does_not_know_is_stored_and_told(mesh: Mesh, scheduler: Scheduler):
    with pytest.raises(RunNotFound, match=r"no run .*00000"):
        await mesh.runs.cancel("0" * 32, "why")
    await until(lambda: bool(scheduler.cancels))
    assert scheduler.cancels == [Cancel("0" * 32, "why")]
    scheduler.answers["runs.get"] = lambda body: {"error": {"type": "PayloadTooLarge", "message": "it is there, and too large"}}
    await mesh.runs.cancel("1" * 32, "why")


async def test_a_cancel_is_stored_while_nobody_leads(mesh: Mesh, scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch):
    await mesh.start("echo", 1)
    monkeypatch.setattr(leader, "FAILOVER_S", 0.2)
    await scheduler.close()
    await mesh.runs.cancel("0" * 32, "why")
    successor = await Scheduler(scheduler.url, scheduler.subjects.namespace).start()
    try:
        await until(lambda: successor.cancels == [Cancel("0" * 32, "why")])
    finally:
        await successor.close()


async def test_results_come_in_whatever_was_not_awaited_when_they_did(mesh: Mesh, scheduler: Scheduler):
    refs = [await mesh.start("echo", number) for number in range(20)]
    client = mesh.clients.here()
    await until(lambda: all(client.awaited.knows(ref.run_id) for ref in refs))
    assert [await ref.result(timeout=1) for ref in refs] == list(range(20))


async def test_start_nowait_has_a_limit(mesh: Mesh, scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(unstored, "UNSTORED_MAX", 10)
    refs = [mesh.start_nowait("echo", number) for number in range(10)]
    with pytest.raises(Unavailable, match="10 starts wait to be stored already"):
        mesh.start_nowait("echo", 11)
    assert [await ref.result() for ref in refs] == list(range(10))
    assert await mesh.start_nowait("echo", 12).result() == 12
