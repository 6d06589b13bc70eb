"""Images of the state: what must be in them besides what readers can still ask for."""

from __future__ import annotations

import msgspec
import pytest

from mesh.core.image import encode_image, image
from mesh.core.loading import load
from mesh.core.workers_known import VERSIONS_MAX
from mesh_sdk.protocol import records as wire
from mesh_sdk.protocol.definitions import CANCEL_NEWEST, ConcurrencyDefinition, StepDefinition, WorkflowDefinition
from tests.core.grouped import A, B, limited, order_of, running, status
from tests.core.lives import TAKERS
from tests.core.workflows import chain
from tests.core.world import World


def test_an_attempt_outlives_the_memory_of_its_run() -> None:
    """Its run was cancelled and forgotten; its slot stays taken until it answers, whoever leads by then."""
    world = World(finished_max=2)
    holder, other = (world.join(id, [chain("c", 1)], slots=1) for id in ("w", "other"))
    run = world.start("c")
    (order,) = world.take(holder)
    world.accept(holder, order)
    world.cancel(run)
    for _ in range(4):
        world.start("c")
        for finished in world.take(other):
            world.finish(other, finished)
    assert world.state.find(run) is None
    assert world.state.workers["w"].used == 1
    world.check_followers()
    world.take_over("image")
    assert world.state.workers["w"].used == 1
    world.finish(holder, order)
    assert world.state.workers["w"].used == 0
    world.check_followers()


def test_an_attempt_outlives_the_memory_of_its_run_but_not_its_definition() -> None:
    """Neither a worker nor a run that is remembered has it any more."""
    world = World(finished_max=2)
    holder = world.join("w", [chain("c", 1)], slots=1)
    run = world.start("c")
    (order,) = world.take(holder)
    world.accept(holder, order)
    world.cancel(run)
    for number in range(VERSIONS_MAX + 2):  # it goes on as the same worker, with newer definitions
        newer = WorkflowDefinition("c", [StepDefinition("a", timeout_ms=number + 1)])
        world.decide(wire.Register("w", 1, [newer], {}, "c"), holder.sender)
        world.cancel(world.start("c"))
    assert world.state.find(run) is None
    assert len(world.state.versions) == VERSIONS_MAX + 1
    world.check_followers()
    world.take_over("image")
    world.finish(holder, order)
    assert not world.state.attempts
    world.decide(wire.Register("w", 1, [chain("c", 2)], {}, "c"), holder.sender)
    assert len(world.state.versions) == VERSIONS_MAX, "nobody needs it now"
    world.check_followers()


def test_an_older_image_has_attempts_of_which_nobody_knows_the_definition() -> None:
    world = World(finished_max=1)
    holder = world.join("w1", [chain("c", 1)], slots=1)
    run = world.start("c")
    (order,) = world.take(holder)
    world.accept(holder, order)
    world.cancel(run)
    world.cancel(world.start("c"))
    world.cancel(world.start("c"))
    older = image(world.state)
    older.orphans = [msgspec.structs.replace(orphan, digest="dropped") for orphan in older.orphans]
    assert [orphan.id for orphan in older.orphans] == [run]
    assert not load(encode_image(older), 1).attempts


# ---- limits of groups ---------------------------------------------------------------------------------------------------


def lowered(before: int, after: int) -> tuple[World, list[str]]:
    """Five runs of a group, and a newer one that came with another limit and has gone."""
    world = World()
    holder = world.join("w1", [limited(max_runs=before)], 10)
    runs = [world.start("w", input=A) for _ in range(5)]
    running(world, holder)
    world.join("w2", [limited(max_runs=after)], 10)
    world.cancel(world.start("w", input=A))
    return world, runs


@pytest.mark.parametrize("taker", TAKERS)
@pytest.mark.parametrize(("before", "after", "left"), [(3, 1, 2), (1, 2, 2), (2, 2, 2)])
def test_the_limit_of_the_newest_start_counts_when_that_has_gone(before: int, after: int, left: int, taker: str) -> None:
    world, runs = lowered(before, after)
    world.check_followers()
    world.take_over(taker)
    world.resend()
    (group,) = world.state.limits.groups
    assert group.limit.max_runs == after
    holder = world.workers["w1"]
    running(world, holder)
    if before > after:
        world.finish(holder, order_of(holder, runs[0]))
    assert len(group.placed) == left
    world.check_followers()
    world.add_twin()
    world.run_all()
    assert [status(world, run) for run in runs] == ["succeeded"] * 5


def test_the_strategy_of_the_newest_start_counts_when_that_has_gone() -> None:
    world = World()
    holder = world.join("w1", [limited()], 10)
    first = world.start("w", input=A)
    world.join("w2", [limited(CANCEL_NEWEST, 1)], 10)
    world.start("w", input=A)
    world.take_over("image")
    (group,) = world.state.limits.groups
    assert group.limit.strategy == CANCEL_NEWEST
    assert status(world, first) == "live"
    assert running(world, holder) == [first]


def test_whose_limit_counts_is_in_the_image_before_there_are_two() -> None:
    """A scheduler that has loaded it and one that lived on are asked for the digest once there are."""
    world = World()
    world.join("w1", [limited()], 10)
    world.start("w", input=A)
    world.cancel(world.start("w", input=A))
    world.add_twin()
    world.take_over("image")
    world.join("w2", [limited(max_runs=2)], 10)
    world.check_followers()


def test_what_follows_from_the_definitions_is_not_in_the_image() -> None:
    world = World()
    world.join("w1", [limited(max_runs=2)], 10)
    for _ in range(3):
        world.start("w", input=A)
        world.start("w", input=B)
    assert image(world.state).limited == []
    world.join("w2", [limited(max_runs=3)], 10)
    value = image(world.state)
    assert value.limits == [ConcurrencyDefinition(2, key="input.k")], "each once"
    assert [(key, place) for _, key, _, place in value.limited] == [("a", 0), ("b", 0)]
