"""The workflows of the fault tests, and their worker. Each step function says in a file that it began and that it ended."""

from __future__ import annotations

import asyncio
import os
import time
from typing import Any

from pydantic import BaseModel

from mesh_sdk import Context, Mesh

mesh = Mesh()

_file = os.open(os.path.join(os.environ.get("FAULTS_EXECUTED", "."), str(os.getpid())), os.O_WRONLY | os.O_CREAT | os.O_APPEND)


def say(ctx: Context, what: str) -> None:
    os.write(_file, f"{ctx.run_id} {ctx.step_name} {ctx.attempt} {what}\n".encode())


@mesh.task()
async def once(input: dict[str, Any], ctx: Context) -> dict[str, Any]:
    """One short step."""
    say(ctx, "start")
    say(ctx, "end")
    return {"n": input["n"]}


@mesh.task(on_events=["user:create"])
async def on_user(input: dict[str, Any], ctx: Context) -> dict[str, Any]:
    say(ctx, "start")
    say(ctx, "end")
    return {"n": input["n"], "event": ctx.triggered_by_event()}


@mesh.task(on_events=["user:*"])
async def on_any(input: dict[str, Any], ctx: Context) -> dict[str, Any]:
    say(ctx, "start")
    say(ctx, "end")
    return {"n": input["n"]}


@mesh.workflow()
class Chain:
    """Three steps, one after the other; `ms` is how long each of them takes."""

    @mesh.step()
    async def a(self, ctx: Context) -> int:
        return await self._pass(ctx, ctx.workflow_input()["n"])

    @mesh.step(parents=["a"])
    async def b(self, ctx: Context) -> int:
        return await self._pass(ctx, ctx.step_output("a"))

    @mesh.step(parents=["b"])
    async def c(self, ctx: Context) -> int:
        return await self._pass(ctx, ctx.step_output("b"))

    async def _pass(self, ctx: Context, n: int) -> int:
        say(ctx, "start")
        if ms := ctx.workflow_input().get("ms", 0):
            await asyncio.sleep(ms / 1000)
        say(ctx, "end")
        return n + 1


@mesh.task(retries=1, backoff_factor=0.05)
async def tried_again(input: dict[str, Any], ctx: Context) -> int:
    """Fails once, and is due again 50 ms later."""
    say(ctx, "start")
    if ctx.retry_count == 0:
        raise ValueError("not yet")
    say(ctx, "end")
    return ctx.retry_count


@mesh.task()
async def slow(input: dict[str, Any], ctx: Context) -> dict[str, Any]:
    """A step that takes `ms`."""
    say(ctx, "start")
    await asyncio.sleep(input["ms"] / 1000)
    say(ctx, "end")
    return {"worker": ctx.worker.id()}


@mesh.task()
def slow_sync(input: dict[str, Any], ctx: Context) -> dict[str, Any]:
    """The same on a thread."""
    say(ctx, "start")
    time.sleep(input["ms"] / 1000)
    say(ctx, "end")
    return {"worker": ctx.worker.id()}


@mesh.task()
async def parent(input: dict[str, Any], ctx: Context) -> int:
    """Awaits `children` children."""
    say(ctx, "start")
    refs = [ctx.spawn_workflow("once", {"n": n}) for n in range(input["children"])]
    total = sum([(await ref.result())["n"] for ref in refs])
    say(ctx, "end")
    return total


@mesh.task()
async def slow_parent(input: dict[str, Any], ctx: Context) -> int:
    """Awaits children that take `ms` each."""
    say(ctx, "start")
    refs = [ctx.spawn_workflow("slow", {"ms": input["ms"]}) for _ in range(input["children"])]
    for ref in refs:
        await ref.result()
    say(ctx, "end")
    return len(refs)


class Order(BaseModel):
    id: int


@mesh.task(retries=3)
async def typed(order: Order, ctx: Context) -> int:
    return order.id


@mesh.task()
async def greedy(input: dict[str, Any], ctx: Context) -> Any:
    """Returns what it is told to, also what can't be."""
    return {"bytes": "x" * input["size"]} if "size" in input else object()


wide = mesh.workflow(name="wide")
"""So many outputs that no message carries them all: to the step that follows (`joined`), or to whoever awaits the run."""

for place in range(20):

    @wide.step(name=f"part{place}")
    async def part(input: dict[str, Any], ctx: Context) -> str:
        return "x" * input["size"]


joined = mesh.workflow(name="joined")

for place in range(20):

    @joined.step(name=f"part{place}")
    async def joined_part(input: dict[str, Any], ctx: Context) -> str:
        return "x" * input["size"]


@joined.step(parents=[f"part{place}" for place in range(20)])
async def join(input: dict[str, Any], ctx: Context) -> int:
    return sum(len(ctx.step_output(f"part{place}")) for place in range(20))


worker = mesh.worker(
    "faults",
    slots=int(os.environ.get("FAULTS_SLOTS", "10")),
    workflows=[once, on_user, on_any, Chain, tried_again, slow, slow_sync, parent, slow_parent, typed, greedy, wide, joined],
)
