"""Steps that take several slots, given to a worker that has too few of them yet: they are not stuck there."""

from __future__ import annotations

import pytest

from mesh.core.records import StepRecalled, StepReleased
from mesh_sdk.protocol import records as wire
from mesh_sdk.protocol.definitions import RateDefinition, StepDefinition, WorkflowDefinition
from tests.core.holder import Holder
from tests.core.lives import TAKERS
from tests.core.world import World

SMALL = WorkflowDefinition("small", [StepDefinition("a")])
BIG = WorkflowDefinition("big", [StepDefinition("a", slots=2, schedule_timeout_ms=1_000)])


def gathering(big: WorkflowDefinition = BIG) -> tuple[World, Holder, str]:
    """One slot of two is free, and promised to a step that takes both."""
    world = World()
    holder = world.join("w1", [SMALL, big], 2)
    world.start("small")
    (order,) = world.take(holder)
    world.accept(holder, order)
    run = world.start("big")
    assert world.state.workers["w1"].room == -1
    assert not world.take(holder)
    return world, holder, run


def given(world: World, run: str) -> list[str]:
    return [fact.worker for _, fact in world.journal if isinstance(fact, StepReleased) and fact.run == run]


def recalls(world: World) -> int:
    return sum(isinstance(fact, StepRecalled) for _, fact in world.journal)


@pytest.mark.parametrize("taker", ["", *TAKERS])
def test_it_waits_no_longer_than_its_schedule_timeout(taker: str) -> None:
    world, holder, run = gathering()
    world.pass_time(990)
    if taker:
        world.take_over(taker)
        world.resend()
    assert world.state.runs[run]
    world.pass_time(20)
    done = world.done(run)
    assert done is not None
    assert done.status == wire.TIMED_OUT
    world.take(holder)
    assert world.state.workers["w1"].room == 1, "what was promised to it is free again"
    world.check_followers()


def test_one_that_has_begun_in_time_goes_on() -> None:
    world, holder, run = gathering()
    world.finish(holder, next(iter(holder.running.values())))
    (order,) = world.take(holder)
    world.accept(holder, order)
    world.pass_time(5_000)
    world.finish(holder, order)
    assert world.state.find(run).status == "succeeded"  # type: ignore[union-attr]


@pytest.mark.parametrize("taker", ["", *TAKERS])
@pytest.mark.parametrize("other_pool", [False, True])
def test_a_worker_that_has_room_gets_it(taker: str, other_pool: bool) -> None:
    world, holder, run = gathering()
    extra = [WorkflowDefinition("extra", [StepDefinition("a")])] if other_pool else []
    idle = world.join("w2", [SMALL, BIG, *extra], 2)
    assert recalls(world) == 1
    if taker:
        world.take_over(taker)
        world.resend()
    world.start("small")  # the worker that is told to give it back does not begin this one before it has
    world.take(holder)
    assert given(world, run)[0] == "w1"
    for each in (idle, holder):
        for order in world.take(each):
            world.finish(each, order)
    for each in (idle, holder):
        for order in world.take(each):
            world.finish(each, order)
    assert world.state.find(run).status == "succeeded"  # type: ignore[union-attr]
    world.check_followers()


def test_it_goes_to_the_idle_one() -> None:
    world, holder, run = gathering()
    idle = world.join("w2", [SMALL, BIG], 2)
    world.take(holder)
    assert given(world, run) == ["w1", "w2"]
    assert [order.run for order in world.take(idle)] == [run]
    assert world.state.runs[run].steps[0].ready_at == world.now, "it has waited since then"
    world.check_followers()


def test_it_stays_where_it_gathers_when_others_want_that_room() -> None:
    world, holder, run = gathering()
    for _ in range(6):
        world.start("small")
    other = world.join("w2", [SMALL, BIG], 2)
    assert not recalls(world), "all of it is taken by those that wait for it"
    world.finish(holder, next(iter(holder.running.values())))
    assert [order.run for order in world.take(holder)] == [run]
    assert len(world.take(other)) == 2


def test_several_are_moved_one_by_one() -> None:
    world = World()
    holders = [world.join(f"w{number}", [SMALL, BIG], 2) for number in range(3)]
    for _ in range(3):
        world.start("small")
    for holder in holders:
        for order in world.take(holder):
            world.accept(holder, order)
    runs = [world.start("big") for _ in range(3)]
    idle = world.join("w9", [SMALL, BIG], 2)
    before = recalls(world)
    assert before <= 1
    for holder in holders:
        world.take(holder)
    world.take(idle)
    assert recalls(world) <= 1, "there was room for one"
    for _ in range(10):
        for holder in (*holders, idle):
            world.take(holder)
            for order in list(holder.running.values()):
                world.finish(holder, order)
    assert all(world.state.find(run).status == "succeeded" for run in runs)  # type: ignore[union-attr]
    world.check_followers()


def test_one_that_would_have_to_wait_for_its_rate_again_stays() -> None:
    rate = RateDefinition("r", 1, 3_600_000)
    world, holder, run = gathering(WorkflowDefinition("big", [StepDefinition("a", slots=2, rate_limits=[rate])]))
    world.join("w2", [SMALL, WorkflowDefinition("big", [StepDefinition("a", slots=2, rate_limits=[rate])])], 2)
    assert not recalls(world)
    world.finish(holder, next(iter(holder.running.values())))
    assert [order.run for order in world.take(holder)] == [run]


@pytest.mark.parametrize("other_pool", [False, True])
@pytest.mark.parametrize("taker", ["", *TAKERS])
def test_it_goes_to_the_idle_one_when_its_rate_lets_it_pass_again(taker: str, other_pool: bool) -> None:
    big = WorkflowDefinition("big", [StepDefinition("a", slots=2, rate_limits=[RateDefinition("r", 1, 60_000)])])
    world, holder, run = gathering(big)
    extra = [WorkflowDefinition("extra", [StepDefinition("a")])] if other_pool else []
    idle = world.join("w2", [SMALL, big, *extra], 2)
    if taker:
        world.take_over(taker)
        world.resend()
    world.pass_time(59_000)
    assert not recalls(world)
    world.pass_time(3_000)  # a leader's death takes no time here, and its buckets stand still for none
    assert recalls(world) == 1
    world.take(holder)
    assert [order.run for order in world.take(idle)] == [run]
    assert not world.state.limits.recalls
    world.check_followers()
