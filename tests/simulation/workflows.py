"""What the simulated users run: workflows with every feature that has promises of its own.

Rule: a step tells the `Witness` when it begins and ends, and takes its time from its run's id, so that nothing but the seed
decides what it does.
"""

from __future__ import annotations

import asyncio
from hashlib import blake2b
from typing import Any

from mesh_sdk import Context, Mesh, StickyStrategy
from tests.simulation.witness import witness

mesh = Mesh("nats://simulated", "sim")


def dice(context: Context[Any], what: str) -> float:
    """A number from 0 to 1 that follows from the run, the step and the attempt."""
    text = f"{context.run_id} {context.step_name} {context.attempt} {what}"
    return int.from_bytes(blake2b(text.encode(), digest_size=4).digest(), "big") / 2**32


async def work(context: Context[Any]) -> str:
    """Take some time, fail now and then."""
    with witness().executing(context):
        length = dice(context, "length")
        await asyncio.sleep(0.0005 if length < 0.5 else 0.3 * length if length < 0.97 else 1.5)
        if context.retry_count < 2 and dice(context, "fails") < 0.08:
            raise RuntimeError("as it happens")
        return context.step_name


@mesh.task(retries=3, on_events=["order.*"])
async def one(number: Any, context: Context[Any]) -> str:
    return await work(context)


@mesh.task(retries=3, on_events=["order.paid"], priority=5)
async def audit(number: Any, context: Context[Any]) -> str:
    return await work(context)


class _Chain:
    @mesh.step(retries=3)
    async def first(self, context: Context[Any]) -> str:
        return await work(context)

    @mesh.step(parents=["first"], retries=3)
    async def second(self, context: Context[Any]) -> str:
        return await work(context)

    @mesh.step(parents=["second"], retries=3, timeout="1s")
    async def third(self, context: Context[Any]) -> str:
        return await work(context)


class _Diamond:
    @mesh.step(retries=3)
    async def top(self, context: Context[Any]) -> str:
        return await work(context)

    @mesh.step(parents=["top"], retries=3)
    async def left(self, context: Context[Any]) -> str:
        return await work(context)

    @mesh.step(parents=["top"], retries=3)
    async def right(self, context: Context[Any]) -> str:
        return await work(context)

    @mesh.step(parents=["left", "right"], retries=3)
    async def bottom(self, context: Context[Any]) -> str:
        return await work(context)


@mesh.workflow(name="chain")
class Chain(_Chain):
    pass


@mesh.workflow(name="diamond", priority=3)
class Diamond(_Diamond):
    pass


@mesh.workflow(name="soft", sticky=StickyStrategy.SOFT, sticky_timeout="2s")
class Soft(_Diamond):
    pass


@mesh.workflow(name="hard", sticky=StickyStrategy.HARD)
class Hard(_Diamond):
    pass


@mesh.task(retries=3)
async def parent(number: Any, context: Context[Any]) -> int:
    """Spawns children and awaits them: its slot is lent out meanwhile."""
    with witness().executing(context):
        children = [context.spawn_workflow("one", place) for place in range(2)]
        with witness().awaiting(context):
            ends = await asyncio.gather(*(child.result() for child in children), return_exceptions=True)
        return len(ends)


@mesh.task(retries=3, sticky=StickyStrategy.SOFT)
async def family(number: Any, context: Context[Any]) -> int:
    """A sticky child stays on this worker."""
    with witness().executing(context):
        child = context.spawn_workflow("soft", 1, sticky=True)
        with witness().awaiting(context):
            ends = await asyncio.gather(child.result(), return_exceptions=True)
        return len(ends)


PLAIN = (one, audit, Chain, Diamond, Soft, Hard, parent, family)
