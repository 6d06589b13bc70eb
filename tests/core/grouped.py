"""Workflows with concurrency limits, and what became of their runs."""

from __future__ import annotations

from mesh_sdk.protocol import records as wire
from mesh_sdk.protocol.definitions import (
    FUNCTION,
    GROUP_ROUND_ROBIN,
    KEY,
    ConcurrencyDefinition,
    StepDefinition,
    WorkflowDefinition,
)
from tests.core.holder import Holder
from tests.core.world import World

A, B = b'{"k":"a","t":"x"}', b'{"k":"b","t":"x"}'


def limited(
    strategy: str = GROUP_ROUND_ROBIN, max_runs: int = 1, *, name: str = "w", scope: str = "", steps: int = 1
) -> WorkflowDefinition:
    """A chain of which so many runs with one key may go on."""
    chain = [StepDefinition("abc"[index], [index - 1] if index else [], retries=1, timeout_ms=1_000) for index in range(steps)]
    return WorkflowDefinition(name, chain, concurrency=[ConcurrencyDefinition(max_runs, strategy, "input.k", scope=scope)])


def by_function(strategy: str = GROUP_ROUND_ROBIN, max_runs: int = 1) -> WorkflowDefinition:
    limit = ConcurrencyDefinition(max_runs, strategy, "key", FUNCTION)
    return WorkflowDefinition("w", [StepDefinition("key", kind=KEY, slots=0, timeout_ms=10_000), StepDefinition("a")], concurrency=[limit])


def step_limited(strategy: str = GROUP_ROUND_ROBIN, max_runs: int = 1, *, retries: int = 1) -> WorkflowDefinition:
    limit = ConcurrencyDefinition(max_runs, strategy, "input.k")
    return WorkflowDefinition("w", [StepDefinition("a", retries=retries, timeout_ms=1_000, concurrency=[limit])])


def world_of(*workflows: WorkflowDefinition, slots: int = 10) -> tuple[World, Holder]:
    world = World()
    return world, world.join("w1", list(workflows), slots)


def running(world: World, holder: Holder) -> list[str]:
    world.take(holder)
    return sorted({order.run for order in holder.running.values()})


def order_of(holder: Holder, run: str) -> wire.Assign:
    return next(order for order in holder.running.values() if order.run == run)


def status(world: World, run: str) -> str:
    found = world.state.find(run)
    assert found is not None
    return found.status
