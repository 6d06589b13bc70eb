"""Workflows whose runs, attempts, units and workers are limited; what they declare stands in `limits`.

Rule: as in `workflows`: steps tell the `Witness`, and take their time from their runs' ids.
"""

from __future__ import annotations

import asyncio
from typing import Any

from mesh_sdk import Concurrency, ConcurrencyLimitStrategy, Context, RateLimit, StickyStrategy, WorkerLabel, Workflow
from tests.simulation.limits import KEY_FUNCTION, RATES, RUNS, SLOTS, STEPS, WANTS, Limit
from tests.simulation.witness import witness
from tests.simulation.workflows import dice, mesh, work

HANGS, FAILS = 0.005, 0.03
"""Parts of the key functions that never answer, and that fail."""


def _concurrency(limits: tuple[Limit, ...]) -> list[Concurrency]:
    return [
        Concurrency(f"input.{limit.field}", limit.max_runs, ConcurrencyLimitStrategy(limit.strategy), limit.scope, dict(limit.weights))
        for limit in limits
        if not limit.by_function
    ]


def _options(workflow: str, step: str) -> dict[str, Any]:
    place = workflow, step
    return {
        "concurrency": _concurrency(STEPS.get(place, ())),
        "rate_limits": [RateLimit(rate.key, rate.limit, f"{rate.per_ms}ms", rate.units) for rate in RATES.get(place, ())],
        "desired_worker_labels": {
            name: WorkerLabel(want.value, required=want.required, weight=want.weight, comparator=want.comparator)
            for name, want in WANTS.get(place, {}).items()
        },
        "slots": SLOTS.get(place, 1),
    }


def _of_task(name: str) -> dict[str, Any]:
    """A task's limits are of its runs."""
    return {**_options(name, name), "concurrency": _concurrency(RUNS.get(name, ()))}


def _task(name: str) -> Any:
    async def run(input: Any, context: Context[Any]) -> str:
        return await work(context)

    return mesh.task(name=name, retries=3, **_of_task(name))(run)


def _chain(name: str, **options: Any) -> Workflow[Any]:
    """Two steps, and a key function if its limit is by one."""
    limits = RUNS.get(name, ())
    workflow = mesh.workflow(name=name, concurrency=_concurrency(limits), **options)

    async def run(input: Any, context: Context[Any]) -> str:
        return await work(context)

    async def key(input: Any, context: Context[Any]) -> str:
        with witness().executing(context):
            how = dice(context, "key")
            await asyncio.sleep(20 if how < HANGS else 0.0005 if how < 0.5 else 0.1 * how)
            if how > 1 - FAILS:
                raise RuntimeError("no key today")
            return str(input["user"])

    workflow.step(name="before", retries=3, **_options(name, "before"))(run)
    workflow.step(name="after", parents=["before"], retries=3, **_options(name, "after"))(run)
    for limit in limits:
        if limit.by_function:
            key.__name__ = KEY_FUNCTION
            workflow.concurrency(max_runs=limit.max_runs, limit_strategy=ConcurrencyLimitStrategy(limit.strategy))(key)
    return workflow


async def _wide(input: Any, context: Context[Any]) -> int:
    """Keeps its place, and lends all its slots out, while it awaits a child."""
    with witness().executing(context):
        child = context.spawn_workflow("turns", input)
        with witness().awaiting(context):
            ends = await asyncio.gather(child.result(), return_exceptions=True)
        return len(ends)


LIMITED = (
    *(_task(name) for name in ("turns", "first", "queued", "paced")),
    *(_chain(name) for name in ("latest", "latest_asked", "first_asked", "queued_asked", "both", "staged", "choosy")),
    _chain("asked", schedule_timeout="6s"),
    _chain("settled", sticky=StickyStrategy.SOFT, sticky_timeout="2s"),
    mesh.task(name="wide", retries=3, **_of_task("wide"))(_wide),
)
