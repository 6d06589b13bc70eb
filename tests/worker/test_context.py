"""What a step learns from its context, and what it can do by it."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from pydantic import BaseModel

from mesh_sdk import Context, Mesh, StickyStrategy
from mesh_sdk.observe import logs
from mesh_sdk.protocol.ids import run_id
from mesh_sdk.protocol.records import NULL, Assign, Failed, Finished, Lent, Origin
from mesh_sdk.worker.answers import GENERATION_COUNT_MAX, Answers
from mesh_sdk.worker.outcome import returned
from tests.worker.conftest import running
from tests.worker.leader import Leader


class Order(BaseModel):
    id: int


async def test_a_step_is_told_all_about_its_run(leader: Leader, mesh: Mesh):
    flow = mesh.workflow(name="flow", input=Order)

    @flow.step()
    async def first(order: Order, ctx: Context) -> Order:
        return order

    @flow.step(parents=[first])
    async def second(order: Order, ctx: Context[Order]) -> dict[str, Any]:
        assert ctx.input is order
        assert ctx.step_output(first) == Order(id=5)
        return {
            "raw": ctx.workflow_input(),
            "by name": ctx.step_output("first"),
            "run": ctx.run_id,
            "workflow": ctx.workflow_name,
            "step": ctx.step_name,
            "attempt": [ctx.attempt, ctx.retry_count],
            "metadata": ctx.metadata,
            "parent": ctx.parent_run_id,
            "event": ctx.triggered_by_event(),
            "moved": ctx.moved,
            "local": dict(ctx.local),
            "cancelled": ctx.cancelled,
            "worker": [ctx.worker.id(), ctx.worker.name(), ctx.worker.labels()],
            "has": [ctx.worker.has_workflow("flow"), ctx.worker.has_workflow("x")],
        }

    async with running(mesh.worker("clerk", workflows=[flow], labels={"gpu": 1}, id="w-1")):
        origin = Origin({"tenant": "a"}, parent_run="f" * 32, event="order.created", moved=True)
        order = leader.assign("flow:second", {"id": 7}, parents={"first": {"id": 5}}, step=1, attempt=3, retry_count=2, origin=origin)
        await leader.share("w-1", order)
        finished = await leader.last_of(order.token)
        assert isinstance(finished, Finished), finished
        assert msgspec.json.decode(finished.output) == {
            "raw": {"id": 7},
            "by name": {"id": 5},
            "run": order.run,
            "workflow": "flow",
            "step": "second",
            "attempt": [3, 2],
            "metadata": {"tenant": "a"},
            "parent": "f" * 32,
            "event": True,
            "moved": True,
            "local": {},
            "cancelled": False,
            "worker": ["w-1", "clerk", {"gpu": 1}],
            "has": [True, False],
        }


async def test_only_parents_have_outputs(leader: Leader, mesh: Mesh):
    @mesh.task()
    async def lone(ctx: Context) -> Any:
        return ctx.step_output("stranger")

    async with running(mesh.worker("clerk", workflows=[lone], id="w-1")):
        order = leader.assign("lone")
        await leader.share("w-1", order)
        failed = await leader.last_of(order.token)
        assert isinstance(failed, Failed)
        assert "'stranger' is no parent of step 'lone'" in failed.error.message


@pytest.mark.parametrize("kind", ["async", "sync"])
async def test_logs_and_live_chunks_say_where_they_come_from(leader: Leader, mesh: Mesh, caplog: pytest.LogCaptureFixture, kind: str):
    async def talk(ctx: Context) -> None:
        ctx.log("hello", 7, level=logging.WARNING)
        ctx.put_stream({"progress": 50})
        ctx.put_stream("text")

    def sync_talk(ctx: Context) -> None:
        ctx.log("hello", 7, level=logging.WARNING)
        ctx.put_stream({"progress": 50})
        ctx.put_stream("text")

    task = mesh.task(name="talk")(talk if kind == "async" else sync_talk)
    chunks: list[bytes] = []
    both = asyncio.Event()
    order = leader.assign("talk")

    def take(_subject: str, _reply: str, data: bytes) -> None:
        chunks.append(data)
        if len(chunks) == 2:
            both.set()

    await leader.bus.subscribe(leader.subjects.live(order.run), take)
    async with running(mesh.worker("clerk", workflows=[task], id="w-1")):
        await leader.share("w-1", order)
        await leader.last_of(order.token)
        async with asyncio.timeout(5):
            await both.wait()
    assert chunks == [b'{"progress":50}', b"text"]
    record = next(each for each in caplog.records if each.name == "mesh.step")
    assert record.getMessage() == "hello 7"
    assert (record.run, record.step, record.attempt, record.worker) == (order.run, "talk", 1, "w-1")  # type: ignore[attr-defined]


async def test_memory_of_a_sticky_run_lasts_until_it_fails_here(leader: Leader, mesh: Mesh):
    @mesh.workflow(sticky=StickyStrategy.SOFT)
    class Kept:
        @mesh.step()
        def first(self, context: Context) -> None:
            context.local["seen"] = 1

        @mesh.step(parents=["first"])
        async def second(self, context: Context) -> Any:
            return context.local.get("seen")

        @mesh.step(parents=["first"])
        def bad(self, context: Context) -> None:
            raise ValueError

    async with running(mesh.worker("clerk", workflows=[Kept], id="w-1")):
        seen = []
        run = ""
        for step in ("first", "second", "bad", "second"):
            order = leader.assign(f"Kept:{step}", run=run or None)
            run = order.run
            await leader.send("w-1", order)
            outcome = await leader.last_of(order.token)
            seen.append(bytes(outcome.output) if isinstance(outcome, Finished) else b"failed")
        assert seen == [b"null", b"1", b"failed", b"null"]


async def test_a_released_slot_goes_to_others_while_the_step_runs_on(leader: Leader, mesh: Mesh):
    go_on = asyncio.Event()

    @mesh.task()
    async def waiting(ctx: Context) -> None:
        ctx.release_slot()
        await go_on.wait()

    async with running(mesh.worker("clerk", slots=1, workflows=[waiting], id="w-1")):
        orders = [leader.assign("waiting"), leader.assign("waiting")]
        await leader.send("w-1", *orders)
        await leader.report(Lent, count=2)
        go_on.set()
        for order in orders:
            assert isinstance(await leader.last_of(order.token), Finished)


async def test_context_variables_reach_a_thread_and_no_other_step(leader: Leader, mesh: Mesh):
    mark: contextvars.ContextVar[str] = contextvars.ContextVar("mark", default="unset")
    mark.set("by the program")

    @mesh.task()
    def look(ctx: Context) -> str:
        found = mark.get()
        mark.set("by a step")
        return found

    async with running(mesh.worker("clerk", slots=1, workflows=[look], id="w-1")):
        for _ in range(2):
            order = leader.assign("look")
            await leader.send("w-1", order)
            assert bytes((await leader.last_of(order.token)).output) == b'"by the program"'


def test_answers_are_bounded():
    again: list[str] = []
    reports: Any = SimpleNamespace(put=lambda answer, size, hold: again.append(answer.token))
    answers = Answers(reports)
    for number in range(2 * GENERATION_COUNT_MAX + 1):
        assign = Assign(run_id(1, b"tester", number), 0, 1, f"token-{number}", "w", "s", NULL, {})
        answers.give(returned(assign, "full"))
    assert not answers.repeat("token-0")
    assert answers.repeat(last := f"token-{2 * GENERATION_COUNT_MAX}")
    assert again[-2:] == [last, last]


@pytest.mark.parametrize("kind", ["async", "sync"])
async def test_any_log_line_of_a_step_says_where_it_comes_from(leader: Leader, mesh: Mesh, caplog: pytest.LogCaptureFixture, kind: str):
    log = logging.getLogger("shop")

    async def talk(ctx: Context) -> None:
        log.warning("hello")

    def sync_talk(ctx: Context) -> None:
        log.warning("hello")

    told: list[dict[str, object]] = []
    log.addFilter(keep := lambda record: told.append(logs.fields_of(record)) is None)
    order = leader.assign("talk")
    try:
        async with running(mesh.worker("clerk", workflows=[mesh.task(name="talk")(talk if kind == "async" else sync_talk)], id="w-1")):
            await leader.share("w-1", order)
            await leader.last_of(order.token)
            log.warning("outside")
    finally:
        log.removeFilter(keep)
    assert told == [{"run": order.run, "step": "talk", "attempt": 1, "worker": "w-1"}, {}]
