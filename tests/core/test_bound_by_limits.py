"""What is bound to a worker and waits for its limits: a worker that drains keeps to them, and waiting for them loses no worker."""

from __future__ import annotations

import pytest

from mesh.core.records import RunBound, StepReleased
from mesh_sdk.protocol import records as wire
from mesh_sdk.protocol.definitions import ConcurrencyDefinition, RateDefinition, StepDefinition, WorkflowDefinition
from tests.core.flow_checks import FlowWorld
from tests.core.lives import TAKERS
from tests.core.world import T0, World

MINUTE = 60_000
LIMITS = {
    "rate": {"rate_limits": [RateDefinition("r", 1, MINUTE)]},
    "group": {"concurrency": [ConcurrencyDefinition(1, key="input.k", scope="g")]},
}


def limited(name: str, kind: str, sticky: str = "") -> WorkflowDefinition:
    return WorkflowDefinition(name, [StepDefinition("a", **LIMITS[kind])], sticky=sticky)  # type: ignore[arg-type]


def pass_until(world: World, end: int) -> None:
    while (at := world.core.next_at()) is not None and at < T0 + end:
        world.now = max(world.now, at)
        world.pass_time(0)
    world.now = max(world.now, T0 + end)
    world.pass_time(0)


def is_child(world: World, run: str) -> bool:
    found = world.state.find(run)
    return found is not None and found.parent is not None


@pytest.mark.parametrize("kind", LIMITS)
@pytest.mark.parametrize("taker", ["", *TAKERS])
def test_what_a_draining_worker_still_begins_keeps_to_its_limits(kind: str, taker: str) -> None:
    parent, child, other = (
        WorkflowDefinition("p", [StepDefinition("a")], sticky="HARD"), limited("c", kind, "HARD"), limited("o", kind),
    )  # fmt: skip
    world = World()
    holder = world.join("w1", [parent, child, other], 1)
    world.start("p")
    (order,) = world.take(holder)
    world.accept(holder, order)
    world.decide(wire.Draining(), holder.sender)
    second = world.join("w2", [parent, child, other], 1)
    world.start("o", input=b'{"k":"x"}')
    for position in "12":
        child_run = world.spawn(holder, order, "c", position, sticky=True, input=b'{"k":"x"}')
        assert child_run in world.state.runs
    world.lend(holder, order)
    if taker:
        world.take_over(taker)
        world.resend()
    begun = [fact for _, fact in world.journal if isinstance(fact, StepReleased) and fact.worker == "w1" and is_child(world, fact.run)]
    assert not begun, "the other one has what they need"
    (held,) = world.take(second)
    world.finish(second, held)
    pass_until(world, MINUTE)
    begun = [fact for _, fact in world.journal if isinstance(fact, StepReleased) and fact.worker == "w1" and is_child(world, fact.run)]
    assert len(begun) == 1
    world.check_followers()


@pytest.mark.parametrize("kind", LIMITS)
@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("taker", ["", *TAKERS])
def test_a_run_whose_step_waits_for_its_limits_keeps_its_worker(kind: str, full: bool, taker: str) -> None:
    definition = WorkflowDefinition(
        "w", [StepDefinition("a"), StepDefinition("b", [0], **LIMITS[kind])], sticky="SOFT", sticky_timeout_ms=5_000,  # type: ignore[arg-type]
    )  # fmt: skip
    filler = WorkflowDefinition("f", [StepDefinition("a")], sticky="HARD")
    workflows = [definition, limited("o", kind), filler]
    world = World()
    holder = world.join("w1", workflows, 2)
    world.start("o", input=b'{"k":"x"}')
    (other,) = world.take(holder)
    world.accept(holder, other)
    run = world.start("w", input=b'{"k":"x"}')
    (order,) = world.take(holder)
    world.finish(holder, order)
    world.join("w2", workflows, 4)
    if full:
        world.start("f", worker="w1")
        (fill,) = world.take(holder)
        world.accept(holder, fill)
    for at in (4_000, 5_001, 12_000, 30_000):
        pass_until(world, at)
        if taker and at < 20_000:
            world.take_over(taker)
            world.resend()
    moved = [fact for _, fact in world.journal if isinstance(fact, RunBound) and fact.old]
    assert not moved
    assert world.state.runs[run].worker == "w1"
    world.check_followers()


@pytest.mark.parametrize("taker", ["", *TAKERS])
def test_when_its_limits_have_let_it_go_it_waits_for_its_worker_as_long_as_it_says(taker: str) -> None:
    group = LIMITS["group"]
    definition = WorkflowDefinition(
        "w", [StepDefinition("a"), StepDefinition("b", [0], **group)], sticky="SOFT", sticky_timeout_ms=5_000,  # type: ignore[arg-type]
    )  # fmt: skip
    filler = WorkflowDefinition("f", [StepDefinition("a")], sticky="HARD")
    workflows = [definition, limited("o", "group"), filler]
    world = FlowWorld(0)
    holder = world.join("w1", workflows, 2)
    world.start("o", input=b'{"k":"x"}')
    (other,) = world.take(holder)
    world.accept(holder, other)
    run = world.start("w", input=b'{"k":"x"}')
    (order,) = world.take(holder)
    world.finish(holder, order)
    world.join("w2", workflows, 4)
    for _ in range(2):
        world.start("f", worker="w1")
    world.take(holder)
    pass_until(world, 20_000)
    world.finish(holder, other)
    for fill in world.take(holder):
        world.accept(holder, fill)
    assert not world.state.runs[run].steps[1].parked
    pass_until(world, 21_000)
    world.check_settled()
    if taker:  # who does not know since when: that time begins anew
        world.take_over(taker)
        world.resend()
    pass_until(world, 24_990)
    assert world.state.runs[run].worker == "w1"
    pass_until(world, 26_001 if taker else 25_001)
    assert world.state.runs[run].worker == "w2"
    world.check_followers()
