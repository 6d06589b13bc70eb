"""Key functions: called outside of slots whatever the worker is busy with, answered like steps, and nothing else than that."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from mesh_sdk import Context, Mesh, key_function
from mesh_sdk.protocol import records
from mesh_sdk.protocol.records import Accepted, Assign, Draining, Failed, Finished, Origin, Returned, Steered
from mesh_sdk.worker.runtime import KEY_THREADS
from tests.worker.conftest import running
from tests.worker.leader import Leader

KINDS = ["async", "sync"]
QUICK_MS = 200
"""The timeout of a key function, where one is waited for."""


def _limited(mesh: Mesh, kind: str, key: Callable[[Context], Any], *, name: str = "limited") -> object:
    """A workflow whose runs are limited by what `key` gives."""
    flow = mesh.workflow(name=name)

    async def in_loop(ctx: Context) -> str:
        given = key(ctx)
        named: str = await given if isinstance(given, Awaitable) else given
        return named

    def in_thread(ctx: Context) -> str:
        given: str = key(ctx)
        return given

    flow.concurrency(max_runs=1)(in_loop if kind == "async" else in_thread)

    @flow.step()
    async def work(ctx: Context) -> None: ...

    return flow


def _ask(leader: Leader, kind: str, input: object = None, *, name: str = "limited", **more: Any) -> Assign:
    return leader.assign(f"{name}:{'in_loop' if kind == 'async' else 'in_thread'}", input, **more)


async def _key(leader: Leader, order: Assign) -> str:
    finished = await leader.last_of(order.token)
    assert isinstance(finished, Finished), finished
    key: str = json.loads(bytes(finished.output))
    return key


@pytest.mark.parametrize("kind", KINDS)
async def test_a_worker_that_is_full_and_paused_answers_a_key_function(leader: Leader, mesh: Mesh, kind: str):
    """Every slot and every thread for steps is taken."""
    go_on = threading.Event()

    @mesh.task()
    def busy(released: bool, ctx: Context) -> None:
        if released:
            ctx.release_slot()
        go_on.wait(20)

    flow = _limited(mesh, kind, lambda ctx: f"user-{ctx.workflow_input()['user']}")
    async with running(mesh.worker("clerk", slots=1, workflows=[busy, flow], id="w-1"), grace="5s"):
        orders = [leader.assign("busy", True), leader.assign("busy", False), leader.assign("busy", False)]
        await leader.send("w-1", *orders)
        await leader.report(Accepted, count=2)
        told = json.loads(await leader.bus.request(leader.subjects.control("w-1"), b"", 5))
        assert (told["running"], told["holding"]) == (1, 3)
        await leader.send("w-1", Steered(records.PAUSE))
        order = _ask(leader, kind, {"user": 7})
        await leader.send("w-1", order)
        assert await _key(leader, order) == "user-7"
        assert len(leader.of(order.token)) == 1
        go_on.set()


@pytest.mark.parametrize("kind", KINDS)
async def test_it_knows_its_run_and_is_answered_once(leader: Leader, mesh: Mesh, kind: str):
    """It takes no slot, so nobody is told that it has begun, however long it takes."""
    calls = []
    in_thread, in_loop = threading.Event(), asyncio.Event()

    def named(ctx: Context) -> str:
        return f"{ctx.metadata['tenant']}/{ctx.workflow_input()}/{ctx.step_name}/{ctx.worker.name()}"

    async def named_late(ctx: Context) -> str:
        await in_loop.wait()
        return named(ctx)

    def key(ctx: Context) -> Any:
        calls.append(1)
        return named_late(ctx) if kind == "async" else in_thread.wait(10) and named(ctx)

    @mesh.task()
    async def step(ctx: Context) -> None:
        await in_loop.wait()

    async with running(mesh.worker("clerk", slots=1, workflows=[_limited(mesh, kind, key), step], id="w-1")):
        order = _ask(leader, kind, 5, origin=Origin({"tenant": "ada"}))
        await leader.send("w-1", order)
        await leader.share("w-1", leader.assign("step"))
        await leader.report(Accepted)  # of the step, in the only slot, which began later
        await leader.send("w-1", order)
        in_loop.set()
        in_thread.set()
        assert await _key(leader, order) == f"ada/5/{order.name}/clerk"
        await leader.send("w-1", order)
        again = await leader.report(Finished, lambda finished: finished.token == order.token, count=2)
        assert json.loads(bytes(again.output)) == f"ada/5/{order.name}/clerk"
        assert {type(record) for record in leader.of(order.token)} == {Finished}
    assert len(calls) == 1


@pytest.mark.parametrize(
    ("value", "told"), [(None, "None"), (7, "int (7)"), ("", "an empty text"), ("x" * 2_000_000, "2,000,000 characters")]
)
@pytest.mark.parametrize("kind", KINDS)
async def test_what_is_no_key_fails_with_the_reason(leader: Leader, mesh: Mesh, kind: str, value: object, told: str):
    async with running(mesh.worker("clerk", slots=1, workflows=[_limited(mesh, kind, lambda _: value)], id="w-1")):
        await leader.send("w-1", order := _ask(leader, kind))
        failed = await leader.last_of(order.token)
        assert isinstance(failed, Failed)
        assert failed.retry == records.RETRY_NEVER
        for said in (f"key function {order.name!r} of workflow 'limited'", told, "return a text of 1 to 512 characters"):
            assert said in failed.error.message
        assert len(failed.error.message) < 500


@pytest.mark.parametrize("kind", KINDS)
async def test_an_error_of_its_own_is_told(leader: Leader, mesh: Mesh, kind: str):
    async with running(mesh.worker("clerk", workflows=[_limited(mesh, kind, lambda ctx: ctx.workflow_input()["user"])], id="w-1")):
        await leader.send("w-1", order := _ask(leader, kind, {}))
        failed = await leader.last_of(order.token)
        assert isinstance(failed, Failed)
        assert (failed.error.type, failed.error.message) == ("KeyError", "'user'")


async def test_one_that_hangs_times_out(leader: Leader, mesh: Mesh, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(key_function, "TIMEOUT_MS", QUICK_MS)
    flow = mesh.workflow(name="limited")

    @flow.concurrency()
    async def endless(ctx: Context) -> str:
        await asyncio.Event().wait()
        return ""

    @flow.step()
    async def work(ctx: Context) -> None: ...

    async with running(mesh.worker("clerk", workflows=[flow], id="w-1")):
        await leader.send("w-1", order := leader.assign("limited:endless"))
        failed = await leader.last_of(order.token)
        assert isinstance(failed, Failed)
        assert failed.kind == records.FAILED_TIMEOUT
        assert failed.error.message.startswith("key function 'endless' ran for 0.2")


async def test_those_that_hang_in_threads_keep_no_step_from_running(leader: Leader, mesh: Mesh, monkeypatch: pytest.MonkeyPatch):
    """They have threads of their own, and only so many."""
    monkeypatch.setattr(key_function, "TIMEOUT_MS", QUICK_MS)
    go_on = threading.Event()

    def hang(ctx: Context) -> str:
        go_on.wait(20)
        return "late"

    @mesh.task()
    def step(ctx: Context) -> int:
        return threading.active_count()

    async with running(mesh.worker("clerk", slots=1, workflows=[_limited(mesh, "sync", hang), step], id="w-1"), grace="2s"):
        orders = [_ask(leader, "sync") for _ in range(KEY_THREADS + 1)]
        await leader.send("w-1", *orders)
        found = [await leader.last_of(order.token) for order in orders]
        assert {(type(failed), failed.kind) for failed in found} == {(Failed, records.FAILED_TIMEOUT)}
        assert "ran for" in found[0].error.message
        assert "waited for a thread, behind others that hang" in found[-1].error.message
        await leader.send("w-1", order := leader.assign("step"))
        assert isinstance(await leader.last_of(order.token), Finished)
        go_on.set()
        await leader.send("w-1", order := _ask(leader, "sync"))
        assert await _key(leader, order) == "late"


@pytest.mark.parametrize(
    ("call", "used"),
    [
        (lambda ctx: ctx.spawn_workflow("other"), "spawn_workflow()"),
        (lambda ctx: ctx.release_slot(), "release_slot()"),
        (lambda ctx: ctx.put_stream("chunk"), "put_stream()"),
        (lambda ctx: ctx.refresh_timeout("1h"), "refresh_timeout()"),
        (lambda ctx: ctx.local, "local"),
    ],
)
@pytest.mark.parametrize("kind", KINDS)
async def test_what_only_steps_can_do_is_refused(leader: Leader, mesh: Mesh, kind: str, call: Callable[[Context], Any], used: str):
    async with running(mesh.worker("clerk", slots=1, workflows=[_limited(mesh, kind, call)], id="w-1")):
        await leader.send("w-1", order := _ask(leader, kind))
        failed = await leader.last_of(order.token)
        assert isinstance(failed, Failed)
        assert f"key function {order.name!r} of workflow 'limited' used context.{used}" in failed.error.message
        assert "do this in a step" in failed.error.message
        assert len(leader.of(order.token)) == 1


async def test_a_draining_worker_ends_those_that_run_and_hands_others_back(leader: Leader, mesh: Mesh):
    go_on, began = threading.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def key(ctx: Context) -> str:
        loop.call_soon_threadsafe(began.set)
        go_on.wait(10)
        return "key"

    async with running(mesh.worker("clerk", slots=1, workflows=[_limited(mesh, "sync", key)], id="w-1"), grace="10s") as end:
        running_, late = _ask(leader, "sync"), _ask(leader, "sync")
        await leader.send("w-1", running_)
        await began.wait()
        ending = asyncio.ensure_future(end())
        await leader.report(Draining)
        await leader.send("w-1", late)
        returned = await leader.last_of(late.token)
        assert isinstance(returned, Returned)
        assert returned.reason == records.RETURNED_DRAINING
        go_on.set()
        assert await _key(leader, running_) == "key"
        await asyncio.wait_for(ending, 10)


async def test_outputs_of_steps_are_not_there_yet(leader: Leader, mesh: Mesh):
    flow = _limited(mesh, "sync", lambda ctx: ctx.step_output("work"))
    async with running(mesh.worker("clerk", workflows=[flow], id="w-1")):
        await leader.send("w-1", order := _ask(leader, "sync"))
        failed = await leader.last_of(order.token)
        assert isinstance(failed, Failed)
        assert "'work' has no output yet: key function 'in_thread' runs before all steps" in failed.error.message
