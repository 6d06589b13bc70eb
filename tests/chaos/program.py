"""The workflows of the chaos runs and their worker; each step writes down when it began and how it ended, by its own clock."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mesh_sdk import Context, Mesh, StickyStrategy, Workflow
from tests.chaos import witness
from tests.chaos.history import of_this_process

SOFT, HARD = StickyStrategy.SOFT, StickyStrategy.HARD

mesh = Mesh()
history = of_this_process()
witness.watch(history)


def _mark(ctx: Context[Any], what: str) -> None:
    history.say(
        what, run=ctx.run_id, workflow=ctx.workflow_name, step=ctx.step_name, attempt=ctx.attempt, worker=ctx.worker.id(), moved=ctx.moved
    )


@contextmanager
def _executing(ctx: Context[Any]) -> Iterator[None]:
    _mark(ctx, "begin")
    try:
        yield
    except asyncio.CancelledError:
        _mark(ctx, "cancelled")
        raise
    except Exception:
        _mark(ctx, "fail")
        raise
    _mark(ctx, "end")


async def _work(ctx: Context[Any], result: int) -> int:
    """Take the run's time, fail as often as it says, and give a result."""
    input = ctx.workflow_input()
    with _executing(ctx):
        await asyncio.sleep(input.get("ms", 0) / 1000)
        if ctx.retry_count < input.get("fails", 0):
            raise ValueError("not yet")
        return result


@mesh.task(retries=3, backoff_factor=0.05)
async def one(input: dict[str, Any], ctx: Context[Any]) -> int:
    return await _work(ctx, input["n"] + 1)


@mesh.task(retries=3, backoff_factor=0.3)
async def flaky(input: dict[str, Any], ctx: Context[Any]) -> int:
    return await _work(ctx, input["n"] + 1)


@mesh.task(retries=1)
async def broken(input: dict[str, Any], ctx: Context[Any]) -> int:
    return await _work(ctx, input["n"] + 1)


@mesh.task()
async def long(input: dict[str, Any], ctx: Context[Any]) -> int:
    return await _work(ctx, input["n"] + 1)


@mesh.task(on_events=["order.paid"])
async def on_paid(input: dict[str, Any], ctx: Context[Any]) -> int:
    return await _work(ctx, input["n"] + 1)


@mesh.task(on_events=["order.*"])
async def on_any(input: dict[str, Any], ctx: Context[Any]) -> int:
    return await _work(ctx, input["n"] + 1)


@mesh.workflow(name="chain")
class Chain:
    @mesh.step()
    async def a(self, ctx: Context[Any]) -> int:
        return await _work(ctx, ctx.workflow_input()["n"] + 1)

    @mesh.step(parents=["a"])
    async def b(self, ctx: Context[Any]) -> int:
        return await _work(ctx, ctx.step_output("a") + 1)

    @mesh.step(parents=["b"])
    async def c(self, ctx: Context[Any]) -> int:
        return await _work(ctx, ctx.step_output("b") + 1)


def _diamond(name: str, **options: Any) -> Workflow[Any]:
    """A step, two beside each other, a join."""
    made: Workflow[Any] = mesh.workflow(name=name, **options)

    @made.step(retries=3)
    async def top(input: dict[str, Any], ctx: Context[Any]) -> int:
        return await _work(ctx, input["n"] + 1)

    @made.step(parents=["top"], retries=3)
    async def left(input: dict[str, Any], ctx: Context[Any]) -> int:
        return await _work(ctx, ctx.step_output("top") + 1)

    @made.step(parents=["top"], retries=3)
    async def right(input: dict[str, Any], ctx: Context[Any]) -> int:
        return await _work(ctx, ctx.step_output("top") + 1)

    @made.step(parents=["left", "right"], retries=3)
    async def bottom(input: dict[str, Any], ctx: Context[Any]) -> int:
        return await _work(ctx, ctx.step_output("left") + ctx.step_output("right"))

    return made


@mesh.task(sticky=SOFT, sticky_timeout="2s", retries=3)
async def soft_child(input: dict[str, Any], ctx: Context[Any]) -> int:
    return await _work(ctx, input["n"] + 1)


@mesh.task(sticky=HARD, retries=3)
async def hard_child(input: dict[str, Any], ctx: Context[Any]) -> int:
    return await _work(ctx, input["n"] + 1)


async def _family(input: dict[str, Any], ctx: Context[Any], child: str) -> int:
    """Two children, one of them on this worker; the slot is lent out meanwhile."""
    with _executing(ctx):
        given = {"n": input["n"], "ms": input.get("ms", 0)}
        sticky = ctx.spawn_workflow(child, given, options={"sticky": True})
        free = ctx.spawn_workflow("one", given)
        _mark(ctx, "lends")
        return int(await sticky.result()) + int(await free.result())


@mesh.task(sticky=SOFT, sticky_timeout="2s", retries=3)
async def soft_parent(input: dict[str, Any], ctx: Context[Any]) -> int:
    return await _family(input, ctx, "soft_child")


@mesh.task(sticky=HARD, retries=3)
async def hard_parent(input: dict[str, Any], ctx: Context[Any]) -> int:
    return await _family(input, ctx, "hard_child")


worker = mesh.worker(
    "chaos",
    slots=int(os.environ.get("CHAOS_SLOTS", "4")),
    workflows=[
        one, flaky, broken, long, on_paid, on_any, Chain, _diamond("diamond"), _diamond("soft", sticky=SOFT, sticky_timeout="2s"),
        _diamond("hard", sticky=HARD), soft_child, hard_child, soft_parent, hard_parent,
    ],
)  # fmt: skip
