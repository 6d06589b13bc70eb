"""The workflows of the flow control tests, and their worker.

Each step writes down when it began and when it ended, however it ended, with the `key` of its input. How long it takes the input says:
`ms`, and a `gate` that stays shut until the test opens it; `fails` is how often it fails first.
"""

from __future__ import annotations

import asyncio
import json
import os
from typing import Any

from mesh_sdk import Concurrency, ConcurrencyLimitStrategy, Context, Mesh, RateLimit, StickyStrategy, WorkerLabel
from tests.faults.flow_limits import MAX_RUNS, RATE, TURNS_MAX_RUNS
from tests.faults.sticky_program import gate, say

ROUND_ROBIN = ConcurrencyLimitStrategy.GROUP_ROUND_ROBIN
CANCEL_IN_PROGRESS = ConcurrencyLimitStrategy.CANCEL_IN_PROGRESS

mesh = Mesh()


async def work(input: dict[str, Any], ctx: Context[Any]) -> str:
    """Any step."""
    say(ctx, "begin", input.get("key", ""))
    try:
        if name := input.get("gate"):
            await gate(name)
        await asyncio.sleep(input.get("ms", 0) / 1000)
        if ctx.retry_count < input.get("fails", 0):
            raise ValueError("not yet")
        return ctx.worker.id()
    finally:
        say(ctx, "end", input.get("key", ""))


def single(name: str, workflow: dict[str, Any] | None = None, **options: Any) -> Any:
    """One step."""
    made: Any = mesh.workflow(name=name, **(workflow or {}))

    @made.step(name="only", **options)
    async def only(input: dict[str, Any], ctx: Context[Any]) -> str:
        return await work(input, ctx)

    return made


@mesh.workflow()
class ByFunction:
    """Its key comes from a worker."""

    @mesh.concurrency(max_runs=MAX_RUNS, limit_strategy=ROUND_ROBIN)
    async def key_of(self, ctx: Context[Any]) -> str:
        key: str = ctx.workflow_input()["key"]
        return key

    @mesh.step(retries=1, backoff_factor=0.05)
    async def only(self, ctx: Context[Any]) -> str:
        return await work(ctx.workflow_input(), ctx)


def bound() -> Any:
    """Three steps where the run is bound, on a worker that has what its second step requires."""
    made: Any = mesh.workflow(name="bound", sticky=StickyStrategy.HARD)
    for step, parents, labels in (("a", [], {}), ("b", ["a"], {"disk": WorkerLabel("ssd", required=True)}), ("c", ["b"], {})):

        @made.step(name=step, parents=parents, desired_worker_labels=labels)
        async def one(input: dict[str, Any], ctx: Context[Any]) -> str:
            return await work(input, ctx)

    return made


worker = mesh.worker(
    "flow",
    slots=int(os.environ.get("FLOW_SLOTS", "10")),
    labels=json.loads(os.environ.get("FLOW_LABELS", "{}")),
    workflows=[
        single("by_path", {"concurrency": Concurrency("input.key", max_runs=MAX_RUNS)}, retries=1, backoff_factor=0.05),
        ByFunction,
        single("of_step", concurrency=Concurrency("input.key", max_runs=MAX_RUNS), retries=1, backoff_factor=0.05),
        single("in_turn", {"concurrency": Concurrency("input.key", max_runs=TURNS_MAX_RUNS)}),
        single("in_order"),
        single("newest", {"concurrency": Concurrency("input.key", max_runs=1, limit_strategy=CANCEL_IN_PROGRESS)}),
        single("rated", rate_limits=[RateLimit("calls", RATE, per="second")]),
        single("choosy", desired_worker_labels={"size": WorkerLabel("big", weight=10), "zone": WorkerLabel("near", weight=1)}),
        bound(),
    ],
)
