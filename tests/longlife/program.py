"""The workflows of the long-life tests, and their worker: short steps, a chain, sticky chains, events, parents and children."""

from __future__ import annotations

import asyncio
import os
from typing import Any

from mesh_sdk import Context, Mesh, StickyStrategy, Workflow

mesh = Mesh()


@mesh.task()
async def one(input: dict[str, Any], ctx: Context) -> int:
    """A short step."""
    return int(input["n"])


@mesh.task()
async def held(input: dict[str, Any], ctx: Context) -> int:
    """A step that takes `ms`."""
    await asyncio.sleep(input["ms"] / 1000)
    return int(input["n"])


@mesh.task(on_events=["longlife:*"])
async def told(input: dict[str, Any], ctx: Context) -> int:
    """Started by events."""
    return int(input["n"])


@mesh.task(retries=2, backoff_factor=0.05)
async def shaky(input: dict[str, Any], ctx: Context) -> int:
    """Fails once."""
    if ctx.retry_count == 0:
        raise ValueError("not yet")
    return int(input["n"])


def _chain(name: str, sticky: StickyStrategy | None) -> Workflow[Any, Any]:
    made: Workflow[Any, Any] = mesh.workflow(name=name, sticky=sticky)

    @made.step()
    async def a(input: dict[str, Any], ctx: Context) -> int:
        ctx.local["seen"] = 1
        return int(input["n"])

    @made.step(parents=[a])
    async def b(input: dict[str, Any], ctx: Context) -> int:
        await asyncio.sleep(0.005)
        return int(input["n"])

    @made.step(parents=[b])
    async def c(input: dict[str, Any], ctx: Context) -> int:
        return int(input["n"])

    return made


chain = _chain("chain", None)
soft = _chain("soft", StickyStrategy.SOFT)
hard = _chain("hard", StickyStrategy.HARD)


@mesh.workflow(name="family", sticky=StickyStrategy.SOFT)
class Family:
    """Awaits two children: one that follows it, one that does not."""

    @mesh.step()
    async def parent(self, ctx: Context) -> int:
        n = ctx.workflow_input()["n"]
        children = [ctx.spawn_workflow("soft", {"n": n}, options={"sticky": True}), ctx.spawn_workflow("one", {"n": n})]
        return sum([int(await child.result()) for child in children])


workflows: list[Any] = [one, held, told, shaky, chain, soft, hard, Family]
if os.environ.get("LONGLIFE_MORE"):

    @mesh.task(name=os.environ["LONGLIFE_MORE"])
    async def more(input: dict[str, Any], ctx: Context) -> int:
        """A workflow that no other worker has."""
        return int(input["n"])

    workflows.append(more)

worker = mesh.worker("longlife", slots=int(os.environ.get("LONGLIFE_SLOTS", "100")), workflows=workflows)
