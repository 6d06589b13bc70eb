"""What is counted of flow control: who waits for what, and who was cancelled for others."""

from __future__ import annotations

import re

import pytest
from prometheus_client import generate_latest

from mesh.core.records import Fact
from mesh.scheduler import waits
from mesh.scheduler.counting import Counting
from mesh_sdk.observe.metrics import SchedulerMetrics
from mesh_sdk.protocol.definitions import (
    CANCEL_IN_PROGRESS,
    CANCEL_NEWEST,
    ConcurrencyDefinition,
    LabelDefinition,
    RateDefinition,
    StepDefinition,
    WorkflowDefinition,
)
from mesh_sdk.protocol.records import DRAIN, PAUSE, Steer
from tests.core.world import World

BY_USER = ConcurrencyDefinition(1, key="input.user")


def workflow(name: str, step: StepDefinition | None = None, *limits: ConcurrencyDefinition) -> WorkflowDefinition:
    return WorkflowDefinition(name, [step or StepDefinition("work")], concurrency=list(limits))


def test_runs_that_wait_for_a_place_are_counted_once() -> None:
    world = World()
    world.join("w1", [workflow("one", None, BY_USER, ConcurrencyDefinition(1, key="input.team"))], slots=10)
    for user in ("a", "a", "a", "b"):
        world.start("one", input=f'{{"user": "{user}", "team": "t"}}'.encode())
    assert waits.in_groups(world.state) == 3
    assert (waits.on_rates(world.state), waits.for_no_worker(world.state)) == (0, 0)


def test_steps_that_wait_for_a_place_are_no_runs_that_do() -> None:
    world = World()
    world.join("w1", [workflow("one", StepDefinition("work", concurrency=[BY_USER]))], slots=10)
    for _ in range(3):
        world.start("one", input=b'{"user": "a"}')
    assert waits.in_groups(world.state) == 0
    assert waits.on_rates(world.state) == 0


def test_steps_that_wait_for_a_rate_are_counted() -> None:
    world = World()
    world.join("w1", [workflow("mails", StepDefinition("work", rate_limits=[RateDefinition("mails", 1, 60_000)]))], slots=10)
    for _ in range(4):
        world.start("mails")
    assert waits.on_rates(world.state) == 3
    assert waits.in_groups(world.state) == 0


def test_steps_that_no_worker_could_run_are_counted() -> None:
    world = World()
    world.join(
        "w1",
        [
            workflow("gpu", StepDefinition("work", labels=[LabelDefinition("gpu", "a100", required=True)])),
            workflow("wide", StepDefinition("work", slots=5)),
            workflow("cpu", StepDefinition("work", labels=[LabelDefinition("gpu", "a100")])),
        ],
        slots=1,
    )
    for name in ("gpu", "gpu", "wide", "cpu", "cpu"):
        world.start(name)
    assert waits.for_no_worker(world.state) == 3
    world.join("w2", [workflow("gpu", StepDefinition("work", labels=[LabelDefinition("gpu", "a100", required=True)]))], slots=1, gpu="a100")
    assert waits.for_no_worker(world.state) == 1


@pytest.mark.parametrize("what", [PAUSE, DRAIN])
def test_a_pause_leaves_no_step_without_a_worker_that_could_run_it(what: str) -> None:
    definition = workflow("gpu", StepDefinition("work", labels=[LabelDefinition("gpu", "a100", required=True)]))
    world = World()
    holder = world.join("w1", [definition], slots=1, gpu="a100")
    world.join("w2", [definition], slots=1)
    world.decide(Steer("w1", what))
    world.start("gpu")
    assert waits.for_no_worker(world.state) == 0
    world.kill(holder)
    assert waits.for_no_worker(world.state) == 1


def cancelled(world: World, *facts: list[Fact]) -> dict[str, int]:
    """What the metrics say of the runs that were cancelled for others."""
    metrics = SchedulerMetrics()
    counting = Counting(metrics)
    for each in facts:
        counting.journaled(each, world.state)
    shown = re.findall(r'mesh_concurrency_runs_cancelled_total{strategy="(\w+)"} (\d+)', generate_latest(metrics.registry).decode())
    return {strategy: int(count) for strategy, count in shown}


def test_runs_that_were_cancelled_for_others_are_counted_by_strategy() -> None:
    world = World()
    replaced = ConcurrencyDefinition(1, CANCEL_IN_PROGRESS, "input.user")
    refused = ConcurrencyDefinition(1, CANCEL_NEWEST, "input.user")
    world.join("w1", [workflow("replaced", None, replaced), workflow("refused", None, refused), workflow("plain")], slots=10)
    for name in ("replaced", "replaced", "replaced", "refused", "refused", "plain"):
        run = world.start(name, input=b'{"user": "a"}')
    world.cancel(run, "not by a strategy, whatever it says (CANCEL_NEWEST)")
    assert cancelled(world, [fact for _, fact in world.journal]) == {CANCEL_IN_PROGRESS: 2, CANCEL_NEWEST: 1, "QUEUE_NEWEST": 0}
