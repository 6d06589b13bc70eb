"""Attempts that end late, or never began: what is kept for their run by then is not theirs to drop."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections.abc import Callable
from typing import Any

import pytest

from mesh_sdk import Context, Mesh, StickyStrategy
from mesh_sdk.protocol import codec, records
from mesh_sdk.protocol.records import Accepted, Assign, Failed, Finished, Origin, Withdraw
from mesh_sdk.worker.arrivals import Arrivals
from tests.worker.conftest import running
from tests.worker.leader import Leader

MOVED = Origin({}, moved=True)
SOON_S = 10.0


class Late:
    """The first `late` step waits, on its thread, and then does as it is told."""

    def __init__(self, raises: bool) -> None:
        self.raises = raises
        self.begun, self.open = threading.Event(), threading.Event()

    def __call__(self) -> None:
        if not self.begun.is_set():
            self.begun.set()
            assert self.open.wait(20)
            if self.raises:
                raise ValueError("too late")


def late_flow(mesh: Mesh, late: Late) -> type:
    @mesh.workflow(name="Flow", sticky=StickyStrategy.SOFT)
    class Flow:
        @mesh.step()
        def late(self, context: Context) -> None:
            late()

        @mesh.step(parents=["late"])
        async def put(self, context: Context) -> None:
            context.local["index"] = 1

        @mesh.step(parents=["late"])
        async def bad(self, context: Context) -> None:
            raise ValueError("bad")

        @mesh.step(parents=["late"])
        async def ask(self, context: Context) -> Any:
            return context.local.get("index")

        @mesh.step(parents=["put", "bad", "ask"])
        def end(self, context: Context) -> None:
            late()

    return Flow


async def send(leader: Leader, action: str, **more: Any) -> Assign:
    order = leader.assign(action, **more)
    await leader.send("w-1", order)
    return order


async def output(leader: Leader, order: Assign) -> Any:
    finished = await leader.last_of(order.token)
    assert isinstance(finished, Finished), finished
    return json.loads(bytes(finished.output))


async def until_running(leader: Leader, count: int) -> None:
    async with asyncio.timeout(SOON_S):
        while json.loads(await leader.bus.request(leader.subjects.control("w-1"), b"", 5))["running"] != count:
            await asyncio.sleep(0.005)


async def start_over(leader: Leader) -> None:
    """Have the worker fenced, and wait for its next incarnation."""
    old = leader.workers["w-1"].incarnation
    leader.bus.publish(leader.subjects.control("w-1"), codec.encode({"ask": "register", "incarnation": old}))
    await leader.report(records.Register, count=2)
    async with asyncio.timeout(SOON_S):
        while leader.workers["w-1"].incarnation == old:
            await asyncio.sleep(0.005)


@pytest.mark.parametrize(("step", "raises"), [("late", True), ("late", False), ("end", False)])
async def test_a_step_of_a_fenced_incarnation_ends_after_all(leader: Leader, mesh: Mesh, step: str, raises: bool):
    late = Late(raises)
    async with running(mesh.worker("clerk", slots=2, workflows=[late_flow(mesh, late)], id="w-1")):
        first = await send(leader, f"Flow:{step}")
        assert await asyncio.to_thread(late.begun.wait, SOON_S)
        await start_over(leader)
        put = await send(leader, "Flow:put", run=first.run, step=1, parents={"late": None})
        assert await output(leader, put) is None
        late.open.set()
        await until_running(leader, 0)
        asked = await send(leader, "Flow:ask", run=first.run, step=2, parents={"late": None})
        assert await output(leader, asked) == 1
        assert {type(record) for record in leader.of(first.token)} <= {Accepted}


async def test_a_step_that_fails_after_its_sibling_drops_what_it_had_and_not_what_there_is(leader: Leader, mesh: Mesh):
    late = Late(raises=True)
    async with running(mesh.worker("clerk", slots=2, workflows=[late_flow(mesh, late)], id="w-1")):
        first = await send(leader, "Flow:late")
        assert await asyncio.to_thread(late.begun.wait, SOON_S)
        for action in ("bad", "put"):
            order = await send(leader, f"Flow:{action}", run=first.run, step=1, parents={"late": None})
            assert isinstance(await leader.last_of(order.token), Failed if action == "bad" else Finished)
        late.open.set()
        assert isinstance(await leader.last_of(first.token), Failed)
        asked = await send(leader, "Flow:ask", run=first.run, step=2, parents={"late": None})
        assert await output(leader, asked) == 1


# ---- steps that wait for on_moved ------------------------------------------------------------------------------------


class Rebuild:
    """Calls of `on_moved`: each waits until it is let go."""

    def __init__(self) -> None:
        self.calls = 0
        self.begun, self.open = asyncio.Event(), asyncio.Event()

    async def __call__(self, context: Context) -> None:
        self.calls += 1
        self.begun.set()
        await self.open.wait()
        context.local["built"] = self.calls


def rebuilt_flow(mesh: Mesh, rebuild: Rebuild, timeout: str = "20s") -> type:
    @mesh.workflow(name="Flow", sticky=StickyStrategy.SOFT)
    class Flow:
        @mesh.step()
        async def load(self, context: Context) -> None: ...

        @mesh.step(parents=["load"], timeout=timeout)
        async def ask(self, context: Context) -> Any:
            return context.local.get("built")

        @mesh.step(parents=["load"])
        async def look(self, context: Context) -> Any:
            return context.local.get("built")

        @mesh.on_moved()
        async def restore(self, context: Context) -> None:
            await rebuild(context)

    return Flow


def withdraw(order: Assign) -> Withdraw:
    return Withdraw(order.run, order.step, order.attempt, order.token, "enough")


Step = Callable[..., Any]


@pytest.fixture
def ask(leader: Leader) -> Step:
    async def ask(name: str, **more: Any) -> Assign:
        return await send(leader, f"Flow:{name}", parents={"load": None}, origin=MOVED, **more)

    return ask


@pytest.mark.parametrize("way", ["cancelled", "timed out"])
async def test_who_only_waited_drops_nothing(leader: Leader, mesh: Mesh, ask: Step, way: str):
    rebuild = Rebuild()
    flow = rebuilt_flow(mesh, rebuild, "20s" if way == "cancelled" else "300ms")
    async with running(mesh.worker("clerk", slots=4, workflows=[flow], id="w-1")):
        first = await ask("look")
        await rebuild.begun.wait()
        second = await ask("ask", run=first.run, step=1)
        if way == "cancelled":
            await leader.report(Accepted, lambda record: record.token == second.token)
            await leader.send("w-1", withdraw(second))
        assert (await leader.last_of(second.token)).kind == (records.FAILED_CANCELLED if way == "cancelled" else records.FAILED_TIMEOUT)
        third = await ask("look", run=first.run, step=1, attempt=2)
        await leader.report(Accepted, lambda record: record.token == third.token)
        rebuild.open.set()
        fourth = await ask("look", run=first.run, step=1, attempt=3)
        assert [await output(leader, order) for order in (first, third, fourth)] == [1, 1, 1]
        assert rebuild.calls == 1


async def test_each_attempt_is_counted_once(leader: Leader, mesh: Mesh, ask: Step, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.DEBUG, "mesh_sdk.worker")
    rebuild = Rebuild()
    async with running(mesh.worker("clerk", slots=4, workflows=[rebuilt_flow(mesh, rebuild)], id="w-1")):
        first = await ask("look")
        waiting = [await ask("look", run=first.run, step=1, attempt=number) for number in (1, 2)]
        await leader.report(Accepted, count=3)
        await leader.send("w-1", withdraw(first))
        assert isinstance(await leader.last_of(first.token), Failed)
        rebuild.open.set()
        assert [await output(leader, order) for order in waiting] == [2, 2]
    assert [record.event for record in caplog.records if hasattr(record, "event")] == ["sticky.move", "sticky.hit", "sticky.hit"]


async def test_the_next_in_line_calls_it_only_while_the_worker_may_start_something(
    leader: Leader, mesh: Mesh, ask: Step, monkeypatch: pytest.MonkeyPatch
):
    again = Arrivals._again

    def too_late(arrivals: Arrivals, waiting: list[Any]) -> None:
        if waiting:
            monkeypatch.setattr(arrivals._may_start.__self__, "_boot", lambda: float("inf"))  # type: ignore[attr-defined]
        again(arrivals, waiting)

    monkeypatch.setattr(Arrivals, "_again", too_late)
    rebuild = Rebuild()
    async with running(mesh.worker("clerk", slots=4, workflows=[rebuilt_flow(mesh, rebuild)], id="w-1")):
        first = await ask("look")
        waiting = [await ask("look", run=first.run, step=1, attempt=number) for number in (1, 2)]
        await leader.report(Accepted, count=3)
        await leader.send("w-1", withdraw(first))
        await leader.report(records.Register, count=2)
        await until_running(leader, 0)
        assert rebuild.calls == 1
        for order in waiting:
            assert {type(record) for record in leader.of(order.token)} == {Accepted}
