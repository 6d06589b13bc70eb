"""`on_moved`: called before a step whose run's state is missing, once for all that begin together, inside the attempt."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import Any

import pytest

from mesh_sdk import Context, Mesh, NonRetryable, SpawnError, StickyStrategy
from mesh_sdk.protocol import records
from mesh_sdk.protocol.records import Accepted, Assign, Failed, Finished, Origin, Returned, Withdraw
from mesh_sdk.worker.loop import StepLoop
from tests.worker.conftest import running
from tests.worker.leader import Leader

MOVED = Origin({}, moved=True)
KINDS = ["async", "sync"]


class Rebuild:
    """What the next calls of `on_moved` do, in order: return, raise, or wait for `open`; then they return."""

    def __init__(self, *acts: BaseException | str) -> None:
        self.acts = list(acts)
        self.calls: list[dict[str, Any]] = []
        self.begun = threading.Event()
        self.open = threading.Event()
        self.async_open = asyncio.Event()

    def note(self, context: Context) -> BaseException | str:
        self.calls.append({"run": context.run_id, "thread": threading.current_thread() is not threading.main_thread()})
        act = self.acts.pop(0) if self.acts else "return"
        self.begun.set()
        if isinstance(act, BaseException):
            raise act
        return act

    def here(self, context: Context) -> None:
        if self.note(context) == "wait":
            assert self.open.wait(20)
        self.fill(context)

    async def there(self, context: Context) -> None:
        if self.note(context) == "wait":
            await self.async_open.wait()
        self.fill(context)

    def fill(self, context: Context) -> None:
        context.local["built"] = [context.moved, context.workflow_input(), context.step_output("load"), context.step_name]

    def let_go(self) -> None:
        self.open.set()
        self.async_open.set()

    async def began(self) -> None:
        assert await asyncio.to_thread(self.begun.wait, 10)
        self.begun.clear()


def session(mesh: Mesh, rebuild: Rebuild, kind: str, timeout: str = "20s") -> type:
    if kind == "async":

        class Hook:
            @mesh.on_moved()
            async def restore(self, context: Context) -> None:
                await rebuild.there(context)

    else:

        class Hook:  # type: ignore[no-redef]
            @mesh.on_moved()
            def restore(self, context: Context) -> None:
                rebuild.here(context)

    @mesh.workflow(name="Session", sticky=StickyStrategy.SOFT)
    class Session(Hook):
        @mesh.step()
        def load(self, context: Context) -> Any:
            return dict(context.local)

        @mesh.step(parents=["load"], timeout=timeout)
        async def ask_async(self, context: Context) -> Any:
            return context.local.get("built")

        @mesh.step(parents=["load"])
        def ask_sync(self, context: Context) -> Any:
            return context.local.get("built")

    return Session


def step(leader: Leader, name: str, run: str | None = None, **more: Any) -> Assign:
    return leader.assign(f"Session:{name}", {"in": 1}, run=run, parents={} if name == "load" else {"load": 7}, **more)


async def output(leader: Leader, order: Assign) -> Any:
    finished = await leader.last_of(order.token)
    assert isinstance(finished, Finished), finished
    return json.loads(bytes(finished.output))


async def failure(leader: Leader, order: Assign) -> Failed:
    failed = await leader.last_of(order.token)
    assert isinstance(failed, Failed), failed
    return failed


@pytest.mark.parametrize("of_step", KINDS)
@pytest.mark.parametrize("kind", KINDS)
async def test_a_run_that_arrives_is_rebuilt_before_its_step(leader: Leader, mesh: Mesh, kind: str, of_step: str):
    rebuild = Rebuild()
    async with running(mesh.worker("clerk", slots=2, workflows=[session(mesh, rebuild, kind)], id="w-1")):
        first = step(leader, f"ask_{of_step}", origin=MOVED)
        await leader.send("w-1", first)
        assert await output(leader, first) == [True, {"in": 1}, 7, f"ask_{of_step}"]
        assert rebuild.calls == [{"run": first.run, "thread": kind == "sync"}]
        for name in ("ask_sync", "ask_async"):
            later = step(leader, name, first.run, origin=MOVED)
            await leader.send("w-1", later)
            assert await output(leader, later) == [True, {"in": 1}, 7, f"ask_{of_step}"]
        assert len(rebuild.calls) == 1


async def test_a_run_that_was_here_before_is_rebuilt_too_and_one_that_begins_is_not(leader: Leader, mesh: Mesh):
    rebuild = Rebuild()
    async with running(mesh.worker("clerk", slots=2, workflows=[session(mesh, rebuild, "sync")], id="w-1")):
        first = step(leader, "load")
        await leader.send("w-1", first)
        assert await output(leader, first) == {}
        beside = step(leader, "ask_sync", first.run)
        await leader.send("w-1", beside)
        assert await output(leader, beside) is None
        assert not rebuild.calls, "the entry was there, however empty"
        await leader.send("w-1", records.Forget(first.run, records.FORGET_ENDED))
        again = step(leader, "ask_sync", first.run)
        await leader.send("w-1", again)
        assert await output(leader, again) == [False, {"in": 1}, 7, "ask_sync"]


@pytest.mark.parametrize("kind", KINDS)
async def test_steps_that_begin_together_wait_for_one_call(leader: Leader, mesh: Mesh, kind: str):
    rebuild = Rebuild("wait")
    async with running(mesh.worker("clerk", slots=3, workflows=[session(mesh, rebuild, kind)], id="w-1")):
        first = step(leader, "ask_sync", origin=MOVED)
        orders = [first, *(step(leader, name, first.run, origin=MOVED) for name in ("ask_async", "ask_sync"))]
        await leader.send("w-1", *orders)
        await rebuild.began()
        await leader.report(Accepted, count=3)
        assert not any(isinstance(each.record, Finished | Failed) for each in leader.reports)
        rebuild.let_go()
        assert [await output(leader, order) for order in orders] == [[True, {"in": 1}, 7, "ask_sync"]] * 3
        assert len(rebuild.calls) == 1


@pytest.mark.parametrize("raised", [ValueError, SystemExit, NonRetryable])
@pytest.mark.parametrize("kind", KINDS)
async def test_what_it_raises_fails_all_that_waited(leader: Leader, mesh: Mesh, kind: str, raised: type[BaseException]):
    class Late(Rebuild):
        def fill(self, context: Context) -> None:
            if len(self.calls) == 1:
                raise raised("no model")
            super().fill(context)

    rebuild = Late("wait")
    async with running(mesh.worker("clerk", slots=2, workflows=[session(mesh, rebuild, kind)], id="w-1")):
        first = step(leader, "ask_sync", origin=MOVED)
        second = step(leader, "ask_async", first.run, origin=MOVED)
        await leader.send("w-1", first, second)
        await rebuild.began()
        await leader.report(Accepted, count=2)
        rebuild.let_go()
        for order in (first, second):
            failed = await failure(leader, order)
            assert (failed.error.type, failed.error.message) == (raised.__name__, "no model")
            assert failed.kind == records.FAILED_ERROR
            assert failed.retry == (records.RETRY_NEVER if raised is NonRetryable else records.RETRY_ALLOWED)
            assert "restore" in failed.error.traceback
            assert "execute.py" not in failed.error.traceback
        again = step(leader, "ask_async", first.run, attempt=2, origin=MOVED)
        await leader.send("w-1", again)
        assert await output(leader, again) == [True, {"in": 1}, 7, "ask_async"]
        assert len(rebuild.calls) == 2


@pytest.mark.parametrize("kind", KINDS)
async def test_it_has_the_time_of_its_step_and_the_next_in_line_calls_it_anew(leader: Leader, mesh: Mesh, kind: str):
    rebuild = Rebuild("wait")
    async with running(mesh.worker("clerk", slots=2, workflows=[session(mesh, rebuild, kind, "300ms")], id="w-1")):
        first = step(leader, "ask_async", origin=MOVED)
        second = step(leader, "ask_sync", first.run, origin=MOVED)
        await leader.send("w-1", first, second)
        assert (await failure(leader, first)).kind == records.FAILED_TIMEOUT
        assert await output(leader, second) == [True, {"in": 1}, 7, "ask_sync"]
        assert len(rebuild.calls) == 2
        rebuild.let_go()
        third = step(leader, "ask_async", first.run, attempt=2, origin=MOVED)
        await leader.send("w-1", third)
        assert await output(leader, third) == [True, {"in": 1}, 7, "ask_sync"], "what was rebuilt stays, though a call ended late"


async def test_a_thread_keeps_its_slot_until_it_returns(leader: Leader, mesh: Mesh):
    rebuild = Rebuild("wait")
    async with running(mesh.worker("clerk", slots=1, workflows=[session(mesh, rebuild, "sync", "100ms")], id="w-1")):
        first, second = step(leader, "ask_async", origin=MOVED), step(leader, "load")
        await leader.send("w-1", first, second)
        assert (await failure(leader, first)).kind == records.FAILED_TIMEOUT
        about = json.loads(await leader.bus.request(leader.subjects.control("w-1"), b"", 5))
        assert (about["running"], about["holding"]) == (1, 1)
        rebuild.let_go()
        assert await output(leader, second) == {}
        assert not isinstance(leader.of(first.token)[-1], Finished)


@pytest.mark.parametrize("kind", KINDS)
async def test_who_waits_for_it_is_cancelled_at_once(leader: Leader, mesh: Mesh, kind: str):
    rebuild = Rebuild("wait")
    async with running(mesh.worker("clerk", slots=2, workflows=[session(mesh, rebuild, kind)], id="w-1")):
        first = step(leader, "ask_async", origin=MOVED)
        second = step(leader, "ask_sync", first.run, origin=MOVED)
        await leader.send("w-1", first, second)
        await rebuild.began()
        await leader.send("w-1", Withdraw(second.run, second.step, second.attempt, second.token, "enough"))
        failed = await failure(leader, second)
        assert (failed.kind, failed.error.message) == (records.FAILED_CANCELLED, "enough")
        about = json.loads(await leader.bus.request(leader.subjects.control("w-1"), b"", 5))
        assert (about["running"], about["holding"]) == (1, 1)
        rebuild.let_go()
        assert await output(leader, first) == [True, {"in": 1}, 7, "ask_async"]


@pytest.mark.parametrize("kind", KINDS)
async def test_who_calls_it_is_cancelled_and_the_next_in_line_calls_it_anew(leader: Leader, mesh: Mesh, kind: str):
    rebuild = Rebuild("wait")
    async with running(mesh.worker("clerk", slots=2, workflows=[session(mesh, rebuild, kind)], id="w-1")):
        first = step(leader, "ask_async", origin=MOVED)
        second = step(leader, "ask_sync", first.run, origin=MOVED)
        await leader.send("w-1", first, second)
        await rebuild.began()
        await leader.send("w-1", Withdraw(first.run, first.step, first.attempt, first.token, "enough"))
        if kind == "sync":  # a thread can't be interrupted
            await leader.bus.request(leader.subjects.control("w-1"), b"", 5)
            rebuild.let_go()
        assert (await failure(leader, first)).kind == records.FAILED_CANCELLED
        assert await output(leader, second) == [True, {"in": 1}, 7, "ask_sync"]
        assert len(rebuild.calls) == 2


@pytest.mark.parametrize("kind", KINDS)
async def test_a_worker_that_ends_hands_all_of_it_back(leader: Leader, mesh: Mesh, kind: str):
    rebuild = Rebuild("wait")
    worker = mesh.worker("clerk", slots=2, workflows=[session(mesh, rebuild, kind)], id="w-1")
    async with running(worker, grace=0) as end:
        first = step(leader, "ask_async", origin=MOVED)
        second = step(leader, "ask_sync", first.run, origin=MOVED)
        await leader.send("w-1", first, second)
        await rebuild.began()
        await end()
    for order in (first, second):
        returned = await leader.last_of(order.token)
        assert isinstance(returned, Returned)
        assert returned.reason == records.RETURNED_DRAINING
    rebuild.let_go()


@pytest.mark.parametrize("kind", KINDS)
async def test_a_worker_that_lost_touch_meanwhile_starts_none_of_them(
    leader: Leader, mesh: Mesh, kind: str, monkeypatch: pytest.MonkeyPatch
):
    asked: list[StepLoop] = []
    may_start = StepLoop._may_start

    def too_late(steps: StepLoop) -> bool:
        asked.append(steps)
        if len(asked) == 3:  # both have begun, and the first is about to go on
            monkeypatch.setattr(steps, "_boot", lambda: float("inf"))
        return may_start(steps)

    monkeypatch.setattr(StepLoop, "_may_start", too_late)
    rebuild = Rebuild("wait")
    async with running(mesh.worker("clerk", slots=2, workflows=[session(mesh, rebuild, kind)], id="w-1")):
        first = step(leader, "ask_async", origin=MOVED)
        second = step(leader, "ask_sync", first.run, origin=MOVED)
        await leader.send("w-1", first, second)
        await rebuild.began()
        await leader.report(Accepted, count=2)
        rebuild.let_go()
        await leader.report(records.Register, count=2)
        assert len(asked) == 4
        async with asyncio.timeout(10):
            while json.loads(await leader.bus.request(leader.subjects.control("w-1"), b"", 5))["running"]:
                await asyncio.sleep(0.005)
        for order in (first, second):
            assert {type(record) for record in leader.of(order.token)} == {Accepted}


@pytest.mark.parametrize("kind", KINDS)
async def test_children_are_not_its_business(leader: Leader, mesh: Mesh, kind: str):
    class Spawning(Rebuild):
        def fill(self, context: Context) -> None:
            context.spawn_workflow("Child", {})

    async with running(mesh.worker("clerk", slots=2, workflows=[session(mesh, Spawning(), kind)], id="w-1")):
        order = step(leader, "ask_async", origin=MOVED)
        await leader.send("w-1", order)
        failed = await failure(leader, order)
        assert failed.error.type == SpawnError.__name__
        assert "on_moved of workflow 'Session' can't spawn 'Child'" in failed.error.message
        assert not [each for each in leader.reports if isinstance(each.record, records.Spawn)]


@pytest.mark.parametrize("kind", KINDS)
async def test_function_style(leader: Leader, mesh: Mesh, kind: str):
    flow = mesh.workflow(name="flow", sticky=StickyStrategy.HARD)

    @flow.step()
    def load(ctx: Context) -> int:
        return 7

    @flow.step(parents=[load])
    def ask(ctx: Context) -> Any:
        return ctx.local["built"]

    if kind == "async":

        @flow.on_moved()
        async def restore(ctx: Context) -> None:
            ctx.local["built"] = ctx.step_output(load)

    else:

        @flow.on_moved()
        def restore(ctx: Context) -> None:
            ctx.local["built"] = ctx.step_output(load)

    assert restore.__name__ == "restore", "it stays the function"
    async with running(mesh.worker("clerk", slots=1, workflows=[flow], id="w-1")):
        order = leader.assign("flow:ask", parents={"load": 8})
        await leader.send("w-1", order)
        assert await output(leader, order) == 8
