"""Sticky runs on their worker: how long `context.local` lasts, and the orders that are about them."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from typing import Any

import pytest
from prometheus_client import generate_latest

from mesh_sdk import Context, Mesh, StickyStrategy
from mesh_sdk.protocol import records
from mesh_sdk.protocol.records import Accepted, Assign, Failed, Finished, Forget, Origin, Returned, Withdraw
from mesh_sdk.worker.session import Session
from mesh_sdk.worker.watching import Watching
from tests.worker.conftest import running
from tests.worker.leader import Leader

MOVED = Origin({}, moved=True)


class Gate:
    """Steps that say when they begin, and wait to be let go."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.open = asyncio.Event()

    async def __call__(self) -> None:
        self.begun.set()
        await self.open.wait()


def kept(mesh: Mesh, gate: Gate) -> type:
    @mesh.workflow(sticky=StickyStrategy.SOFT)
    class Kept:
        @mesh.step()
        def first(self, context: Context) -> None:
            context.local["seen"] = 1

        @mesh.step()
        def untouched(self, context: Context) -> None: ...

        @mesh.step(parents=["first"])
        async def second(self, context: Context) -> Any:
            return context.local.get("seen")

        @mesh.step(parents=["first"])
        async def slow(self, context: Context) -> Any:
            await gate()
            return context.local.get("seen")

        @mesh.step(parents=["second", "slow", "untouched"])
        async def last(self, context: Context) -> Any:
            return context.local.get("seen")

    return Kept


async def _run(leader: Leader, run: str, step: str, **more: Any) -> Any:
    parents = {} if step in ("first", "untouched") else {"first": None}
    order = leader.assign(f"Kept:{step}", run=run, parents=parents, **more)
    await leader.send("w-1", order)
    outcome = await leader.last_of(order.token)
    assert isinstance(outcome, Finished), outcome
    return json.loads(bytes(outcome.output))


def _withdraw(order: Assign, **more: Any) -> Withdraw:
    return Withdraw(order.run, order.step, order.attempt, order.token, "waited too long", **more)


def _events(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.event.removeprefix("sticky.") for record in caplog.records if hasattr(record, "event")]


@pytest.fixture
def run(leader: Leader) -> str:
    return leader.assign("Kept").run


async def test_an_entry_is_there_from_the_first_attempt_on_to_the_runs_last_step(
    leader: Leader, mesh: Mesh, run: str, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.DEBUG, "mesh_sdk.worker")
    gate = Gate()
    gate.open.set()
    async with running(mesh.worker("clerk", slots=2, workflows=[kept(mesh, gate)], id="w-1")):
        for step in ("untouched", "first", "second", "slow", "last"):
            await _run(leader, run, step)
        assert _events(caplog) == ["first", "hit", "hit", "hit", "hit"]
        assert await _run(leader, run, "second") is None, "nothing is kept after the only final step"
    assert _events(caplog)[5:] == ["miss"]
    missed = next(record for record in caplog.records if getattr(record, "event", "") == "sticky.miss")
    assert (missed.run, missed.step, missed.attempt, missed.worker) == (run, "second", 1, "w-1")  # type: ignore[attr-defined]
    assert missed.levelno == logging.INFO
    assert missed.getMessage().startswith("sticky.miss: ")


@pytest.mark.parametrize("reason", [records.FORGET_ENDED, records.FORGET_MOVED])
async def test_what_is_kept_is_forgotten_on_the_leaders_word(leader: Leader, mesh: Mesh, run: str, reason: str):
    async with running(mesh.worker("clerk", slots=2, workflows=[kept(mesh, Gate())], id="w-1")):
        await _run(leader, run, "first")
        assert await _run(leader, run, "second") == 1
        await leader.send("w-1", Forget(run, reason), Forget("f" * 32, reason))
        assert await _run(leader, run, "second") is None


async def test_a_step_that_runs_keeps_what_it_has(leader: Leader, mesh: Mesh, run: str):
    gate = Gate()
    async with running(mesh.worker("clerk", slots=2, workflows=[kept(mesh, gate)], id="w-1")):
        await _run(leader, run, "first")
        slow = leader.assign("Kept:slow", run=run, parents={"first": None})
        await leader.send("w-1", slow)
        await gate.begun.wait()
        await leader.send("w-1", Forget(run, records.FORGET_MOVED))
        assert await _run(leader, run, "second") is None
        gate.open.set()
        assert bytes((await leader.last_of(slow.token)).output) == b"1", "forgotten, but not under its feet"


async def test_a_run_that_came_back_comes_from_elsewhere_and_a_failed_one_does_not(
    leader: Leader, mesh: Mesh, run: str, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.DEBUG, "mesh_sdk.worker")

    async with running(mesh.worker("clerk", slots=2, workflows=[kept(mesh, Gate())], id="w-1")):
        await _run(leader, run, "first")
        await leader.send("w-1", Forget(run, records.FORGET_MOVED))
        await _run(leader, run, "second", origin=MOVED)
        await _run(leader, run, "second", origin=MOVED)
        slow = leader.assign("Kept:slow", run=run, parents={"first": None}, origin=MOVED)
        await leader.send("w-1", slow, _withdraw(slow))
        assert isinstance(await leader.last_of(slow.token), Failed)
        await _run(leader, run, "second", origin=MOVED)
    assert _events(caplog) == ["first", "move", "hit", "hit", "miss"]


async def test_a_forget_on_the_shared_lane_has_no_place(leader: Leader, mesh: Mesh, run: str):
    async with running(mesh.worker("clerk", slots=2, workflows=[kept(mesh, Gate())], id="w-1")):
        await _run(leader, run, "first")
        order = leader.assign("Kept:first")
        await leader.share("w-1", Forget(run, records.FORGET_ENDED), order)
        await leader.last_of(order.token)
        await leader.acknowledged("w-1")
        assert await _run(leader, run, "second") == 1


async def test_a_fenced_incarnation_keeps_nothing(leader: Leader, mesh: Mesh, run: str, monkeypatch: pytest.MonkeyPatch):
    sessions: list[Session] = []
    make = Session.__init__

    def noted(session: Session, *arguments: Any, **named: Any) -> None:
        make(session, *arguments, **named)
        sessions.append(session)

    monkeypatch.setattr(Session, "__init__", noted)
    async with running(mesh.worker("clerk", slots=2, workflows=[kept(mesh, Gate())], id="w-1")):
        await _run(leader, run, "first")
        assert await _run(leader, run, "second") == 1
        sessions[0].fence()
        again = await leader.report(records.Register, count=2)
        async with asyncio.timeout(10):
            while len(sessions) < 2 or not sessions[1].ready:
                await asyncio.sleep(0.005)
        assert again.name == "clerk"
        assert await _run(leader, run, "second") is None


async def test_room_is_made_for_the_latest_runs(leader: Leader, mesh: Mesh, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO, "mesh_sdk.worker")
    runs = [leader.assign("Kept").run for _ in range(3)]
    async with running(mesh.worker("clerk", slots=2, workflows=[kept(mesh, Gate())], id="w-1", sticky_runs=2)):
        for run in runs:
            await _run(leader, run, "first")
        assert [await _run(leader, run, "second") for run in reversed(runs)] == [1, 1, None]
    evictions = [record for record in caplog.records if getattr(record, "event", "") == "sticky.eviction"]
    assert [record.run for record in evictions] == [runs[0], runs[2]]  # type: ignore[attr-defined]
    assert {record.worker for record in evictions} == {"w-1"}  # type: ignore[attr-defined]


async def test_two_runs_that_run_exceed_a_bound_of_one(leader: Leader, mesh: Mesh):
    gates = {"a": Gate(), "b": Gate()}

    @mesh.task(sticky=StickyStrategy.HARD)
    async def long(which: str, ctx: Context) -> Any:
        ctx.local["mine"] = which
        await gates[which]()
        return ctx.local["mine"]

    async with running(mesh.worker("clerk", slots=2, workflows=[long], id="w-1", sticky_runs=1)):
        orders = [leader.assign("long", which) for which in gates]
        await leader.send("w-1", *orders)
        for gate in gates.values():
            await gate.begun.wait()
            gate.open.set()
        assert [bytes((await leader.last_of(order.token)).output) for order in orders] == [b'"a"', b'"b"']


async def test_what_happens_is_counted(leader: Leader, mesh: Mesh, run: str, monkeypatch: pytest.MonkeyPatch):
    seen: list[Watching] = []
    start = Watching.start

    def noted(watching: Watching, runtime: Any) -> None:
        start(watching, runtime)
        seen.append(watching)

    monkeypatch.setattr(Watching, "start", noted)
    async with running(mesh.worker("clerk", slots=2, workflows=[kept(mesh, Gate())], id="w-1", sticky_runs=1), metrics_port=0):
        for step in ("first", "second"):
            await _run(leader, run, step)
        for origin in (MOVED, None):
            await leader.send("w-1", Forget(run, records.FORGET_MOVED))
            await _run(leader, run, "second", origin=origin)
        await _run(leader, "e" * 32, "first")
        metrics = seen[0]._metrics
        assert metrics is not None
        shown = generate_latest(metrics.registry).decode()
    for line in (
        'mesh_worker_sticky_steps_total{result="first",workflow="Kept"} 2.0',
        'mesh_worker_sticky_steps_total{result="hit",workflow="Kept"} 1.0',
        'mesh_worker_sticky_steps_total{result="miss",workflow="Kept"} 2.0',
        'mesh_worker_sticky_arrivals_total{workflow="Kept"} 1.0',
        'mesh_worker_sticky_evictions_total{workflow="Kept"} 1.0',
        "mesh_worker_sticky_runs 1.0",
    ):
        assert line in shown


# ---- Withdraw.unless_started ---------------------------------------------------------------------------------------


async def _full(leader: Leader, gate: Gate, run: str) -> Assign:
    slow = leader.assign("Kept:slow", run=run, parents={"first": None})
    await leader.send("w-1", slow)
    await gate.begun.wait()
    return slow


async def test_what_waits_for_a_slot_is_handed_back_and_what_is_kept_stays(leader: Leader, mesh: Mesh, run: str):
    gate = Gate()
    async with running(mesh.worker("clerk", slots=1, workflows=[kept(mesh, gate)], id="w-1")):
        await _run(leader, run, "first")
        slow = await _full(leader, gate, run)
        waiting = leader.assign("Kept:second", run=run, parents={"first": None})
        await leader.send("w-1", waiting, _withdraw(waiting, unless_started=True))
        returned = await leader.last_of(waiting.token)
        assert isinstance(returned, Returned)
        assert returned.reason == records.RETURNED_WITHDRAWN
        gate.open.set()
        await leader.last_of(slow.token)
        assert await _run(leader, run, "second") == 1
        assert len(leader.of(waiting.token)) == 1


async def test_what_has_started_goes_on_and_says_so_again(leader: Leader, mesh: Mesh, run: str):
    gate = Gate()
    async with running(mesh.worker("clerk", slots=1, workflows=[kept(mesh, gate)], id="w-1")):
        slow = await _full(leader, gate, run)
        mine: Callable[[Accepted], bool] = lambda record: record.token == slow.token
        await leader.report(Accepted, mine)
        await leader.send("w-1", _withdraw(slow, unless_started=True))
        await leader.report(Accepted, mine, count=2)
        gate.open.set()
        assert isinstance(await leader.last_of(slow.token), Finished)


async def test_what_has_just_started_is_accepted_at_once(leader: Leader, mesh: Mesh, run: str):
    gate = Gate()
    async with running(mesh.worker("clerk", slots=1, workflows=[kept(mesh, gate)], id="w-1")):
        slow = leader.assign("Kept:slow", run=run, parents={"first": None})
        await leader.send("w-1", slow, _withdraw(slow, unless_started=True))
        await leader.report(Accepted, lambda record: record.token == slow.token)
        gate.open.set()
        assert isinstance(await leader.last_of(slow.token), Finished)


async def test_an_unknown_token_is_answered_and_then_refused(leader: Leader, mesh: Mesh, run: str):
    async with running(mesh.worker("clerk", slots=1, workflows=[kept(mesh, Gate())], id="w-1")):
        order = leader.assign("Kept:first", run=run)
        await leader.send("w-1", _withdraw(order, unless_started=True), order)
        assert (await leader.report(Returned, count=2)).reason == records.RETURNED_WITHDRAWN
        assert {type(record) for record in leader.of(order.token)} == {Returned}


async def test_what_has_ended_is_answered_as_before(leader: Leader, mesh: Mesh, run: str):
    async with running(mesh.worker("clerk", slots=1, workflows=[kept(mesh, Gate())], id="w-1")):
        order = leader.assign("Kept:first", run=run)
        await leader.send("w-1", order)
        await leader.last_of(order.token)
        await leader.send("w-1", _withdraw(order, unless_started=True))
        assert (await leader.report(Finished, count=2)).token == order.token


async def test_many_that_were_withdrawn_leave_nothing_behind(leader: Leader, mesh: Mesh, run: str):
    gate = Gate()
    async with running(mesh.worker("clerk", slots=1, workflows=[kept(mesh, gate)], id="w-1")):
        slow = await _full(leader, gate, run)
        for _ in range(20):
            waiting = leader.assign("Kept:first")
            await leader.send("w-1", waiting, _withdraw(waiting, unless_started=True))
        await leader.report(Returned, count=20)
        about = json.loads(await leader.bus.request(leader.subjects.control("w-1"), b"", 5))
        assert (about["holding"], about["running"]) == (1, 1)
        gate.open.set()
        await leader.last_of(slow.token)
        await _run(leader, run, "first")
