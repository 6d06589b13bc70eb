"""The workflows of the upgrade tests, and their worker. Each step writes down that it began, where, and what it was part of."""

from __future__ import annotations

import asyncio
import json
import os
from typing import Any

from mesh_sdk import Concurrency, Context, Mesh, RateLimit, StickyStrategy

mesh = Mesh()

_file = os.open(os.path.join(os.environ.get("FAULTS_EXECUTED", "."), str(os.getpid())), os.O_WRONLY | os.O_CREAT | os.O_APPEND)


async def work(input: dict[str, Any], ctx: Context[Any]) -> int:
    """A step: what it adds is one."""
    began = [ctx.workflow_name, ctx.run_id, ctx.step_name, ctx.worker.id()]
    os.write(_file, json.dumps(began).encode() + b"\n")
    await asyncio.sleep(input.get("ms", 0) / 1000)
    return int(input["n"]) + 1


@mesh.task()
async def one(input: dict[str, Any], ctx: Context[Any]) -> int:
    return await work(input, ctx)


@mesh.task(on_events=["upgrade:*"])
async def heard(input: dict[str, Any], ctx: Context[Any]) -> int:
    return await work(input, ctx)


@mesh.task()
async def parent(input: dict[str, Any], ctx: Context[Any]) -> int:
    """Awaits a child."""
    await work(input, ctx)
    return int(await ctx.spawn_workflow("one", input).result())


@mesh.task(concurrency=Concurrency("input.ms", max_runs=2), rate_limits=[RateLimit("input.ms", limit=1_000, per="second")])
async def limited(input: dict[str, Any], ctx: Context[Any]) -> int:
    return await work(input, ctx)


called = mesh.workflow(name="called")


@called.concurrency(max_runs=2)
def key(ctx: Context[Any]) -> str:
    return str(ctx.workflow_input()["ms"])


@called.step(concurrency=Concurrency("input.ms", max_runs=1), slots=2)
async def step_of_two_slots(input: dict[str, Any], ctx: Context[Any]) -> int:
    return await work(input, ctx)


chain = mesh.workflow(name="chain")
soft = mesh.workflow(name="soft", sticky=StickyStrategy.SOFT, sticky_timeout="1s")
hard = mesh.workflow(name="hard", sticky=StickyStrategy.HARD)

for workflow in (chain, soft, hard):
    for name, parents in (("a", []), ("b", ["a"]), ("c", ["b"])):

        @workflow.step(name=name, parents=parents)
        async def step(input: dict[str, Any], ctx: Context[Any]) -> int:
            return await work(input, ctx)


WORKFLOWS = [one, heard, parent, limited, called, chain, soft, hard]
worker = mesh.worker("upgrade", slots=int(os.environ.get("FAULTS_SLOTS", "6")), workflows=WORKFLOWS)
