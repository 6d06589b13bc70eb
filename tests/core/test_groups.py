"""Concurrency groups: who begins, who waits, who is cancelled for whom, and that it stays so whoever leads."""

from __future__ import annotations

import itertools

import pytest

from mesh.core.records import StepReleased
from mesh.core.tickets import SWEPT
from mesh.core.waiting import admission
from mesh_sdk.protocol import records as wire
from mesh_sdk.protocol.definitions import (
    CANCEL_IN_PROGRESS,
    CANCEL_NEWEST,
    GROUP_ROUND_ROBIN,
    QUEUE_NEWEST,
    STRATEGIES,
    ConcurrencyDefinition,
    StepDefinition,
    WorkflowDefinition,
)
from tests.core.grouped import A, B, by_function, limited, order_of, running, status, step_limited, world_of
from tests.core.holder import Holder
from tests.core.lives import TAKERS
from tests.core.world import World

# ---- the strategies -----------------------------------------------------------------------------------------------------

BURST = {  # strategy, max_runs → what becomes of five starts, of which none ends by itself: r(uns), w(aits), c(ancelled)
    (GROUP_ROUND_ROBIN, 1): "rwwww",
    (GROUP_ROUND_ROBIN, 3): "rrrww",
    (CANCEL_IN_PROGRESS, 1): "ccccr",
    (CANCEL_IN_PROGRESS, 3): "ccrrr",
    (CANCEL_NEWEST, 1): "rcccc",
    (CANCEL_NEWEST, 3): "rrrcc",
    (QUEUE_NEWEST, 1): "rcccw",
    (QUEUE_NEWEST, 3): "rrrcw",
}


def outcome(world: World, holder: Holder, runs: list[str]) -> str:
    world.take(holder)
    for order in list(holder.running.values()):
        world.accept(holder, order)  # what was cancelled is withdrawn now
    going = running(world, holder)
    return "".join("c" if status(world, run) != "live" else "r" if run in going else "w" for run in runs)


@pytest.mark.parametrize(("strategy", "max_runs"), BURST)
@pytest.mark.parametrize("taker", ["", *TAKERS])
def test_a_burst_comes_out_as_its_strategy_says(strategy: str, max_runs: int, taker: str) -> None:
    world, holder = world_of(limited(strategy, max_runs))
    runs = []
    for _ in range(5):
        runs.append(world.start("w", input=A))
        running(world, holder)
        other = world.start("w", input=B)
        assert other in running(world, holder), "other keys are free"
        world.finish(holder, order_of(holder, other))
        if taker:
            world.take_over(taker)
            world.resend()
    assert outcome(world, holder, runs) == BURST[strategy, max_runs]
    world.check_followers()


@pytest.mark.parametrize(("strategy", "max_runs"), BURST)
@pytest.mark.parametrize("answers", list(itertools.permutations(range(3))))
def test_newest_follows_the_order_of_starts_not_of_keys(strategy: str, max_runs: int, answers: tuple[int, ...]) -> None:
    """Three starts; their keys become known in any order. Nothing of them has ended before the last one is known."""
    world, holder = world_of(by_function(strategy, max_runs))
    runs = [world.start("w") for _ in range(3)]
    world.take(holder)
    for index in answers:
        world.finish(holder, order_of(holder, runs[index]), b'"k"')
    got = outcome(world, holder, runs)
    expected = {CANCEL_IN_PROGRESS: "rrr" if max_runs == 3 else "ccr", CANCEL_NEWEST: "rrr" if max_runs == 3 else "rcc"}
    if strategy in expected:
        assert got == expected[strategy]
    elif max_runs == 1:
        assert got[answers[0]] == "r", "who is there first begins"
        waits = [got[index] for index in sorted(answers[1:])]
        assert waits == (["c", "w"] if strategy == QUEUE_NEWEST else ["w", "w"])
    world.check_followers()


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_who_is_cancelled_is_told_why(strategy: str) -> None:
    world, holder = world_of(limited(strategy))
    runs = [world.start("w", input=A) for _ in range(3)]
    running(world, holder)
    for run in runs:
        ended = world.done(run)
        if ended is not None:
            assert ended.status == wire.CANCELLED
            assert ended.errors is not None
            assert "group a" in ended.errors[0].message
            assert strategy in ended.errors[0].message


@pytest.mark.parametrize("at", range(0, 100, 5))
@pytest.mark.parametrize("taker", TAKERS)
def test_of_a_burst_that_straddles_a_takeover_exactly_one_completes(at: int, taker: str) -> None:
    world, holder = world_of(limited(CANCEL_IN_PROGRESS))
    runs = [world.start("w", input=A) for _ in range(5)]
    with world.leader_dies(at / 100, taker):
        runs += [world.start("w", input=A) for _ in range(5)]
    for _ in range(30):
        world.take(holder)
        for order in list(holder.running.values()):
            world.finish(holder, order)
    assert [status(world, run) for run in runs] == ["cancelled"] * 9 + ["succeeded"]
    world.check_followers()


# ---- places -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("taker", ["", *TAKERS])
def test_a_place_is_kept_until_nothing_of_the_run_runs(taker: str) -> None:
    world, holder = world_of(limited(CANCEL_IN_PROGRESS))
    first = world.start("w", input=A)
    world.take(holder)
    world.accept(holder, order_of(holder, first))
    second = world.start("w", input=A)
    if taker:
        world.take_over(taker)
    assert status(world, first) == "cancelled"
    waits = admission(world.state, world.state.runs[second])
    assert waits is not None
    assert waits.cause == "group a has 1 of 1"
    world.take(holder)  # the worker reads the withdrawal and stops
    assert running(world, holder) == [second]
    world.check_followers()


def test_who_was_given_up_keeps_its_place_until_it_answers() -> None:
    world, holder = world_of(step_limited(retries=1))
    run, other = world.start("w", input=A), world.start("w", input=A)
    world.take(holder)
    order = order_of(holder, run)
    world.accept(holder, order)
    world.pass_time(10_000)
    released = [fact for _, fact in world.journal if isinstance(fact, StepReleased)]
    assert len(released) == 1, "neither its next attempt nor the other run may begin"
    for taker in TAKERS:
        world.take_over(taker)
    world.check_followers()
    world.take(holder)
    assert order.token not in holder.running
    world.run_all()
    assert status(world, run) == status(world, other) == "succeeded"


@pytest.mark.parametrize("ends", ["finish", "fail", "lost"])
def test_a_place_outlasts_failed_attempts(ends: str) -> None:
    world, holder = world_of(limited(steps=2))
    first, second = world.start("w", input=A), world.start("w", input=A)
    world.take(holder)
    world.accept(holder, order_of(holder, first))
    if ends == "finish":
        world.finish(holder, order_of(holder, first))
    elif ends == "fail":
        world.fail(holder, order_of(holder, first), retry=700)
    else:
        world.kill(holder)
        holder = world.join("w1", [limited(steps=2)], 10)
    assert status(world, second) == "live"
    assert second not in running(world, holder)
    world.pass_time(1_000)
    world.run_all()
    assert [status(world, run) for run in (first, second)] == ["succeeded"] * 2
    ended = [run for run, _, _, _ in world.executed]
    assert ended.index(second) > len(ended) - 1 - ended[::-1].index(first), "one after the other"


def test_nobody_holds_one_place_while_waiting_for_another() -> None:
    limits = [ConcurrencyDefinition(1, key="input.k"), ConcurrencyDefinition(1, key="input.t")]
    world, holder = world_of(WorkflowDefinition("w", [StepDefinition("a")], concurrency=limits))
    first = world.start("w", input=b'{"k":"a","t":"x"}')
    both = world.start("w", input=b'{"k":"b","t":"x"}')  # waits for x, and must not hold b
    other = world.start("w", input=b'{"k":"b","t":"y"}')
    assert running(world, holder) == [first, other]
    world.finish(holder, order_of(holder, first))
    assert running(world, holder) == [other], "now it waits for b"
    world.finish(holder, order_of(holder, other))
    assert running(world, holder) == [both]
    world.check_followers()


def test_a_scope_is_one_limit_for_all_that_name_it() -> None:
    world, holder = world_of(limited(name="one", scope="s"), limited(name="two", scope="s"), limited(name="three"))
    runs = [world.start(name, input=A) for name in ("one", "two", "three")]
    assert running(world, holder) == [runs[0], runs[2]]
    world.finish(holder, order_of(holder, runs[0]))
    assert runs[1] in running(world, holder)


def test_who_waits_is_served_by_priority_and_age() -> None:
    world, holder = world_of(limited())
    world.start("w", input=A)
    low = world.start("w", input=A, priority=1)
    high = world.start("w", input=A, priority=5)
    world.pass_time(40_001)
    late = world.start("w", input=A, priority=5)
    begun = []
    for _ in range(4):
        (run,) = running(world, holder)
        begun.append(run)
        world.finish(holder, order_of(holder, run))
    assert begun[1:] == [high, low, late], "four levels are worth forty seconds"


def test_a_higher_limit_admits_at_once_and_a_lower_one_waits() -> None:
    world, holder = world_of(limited(max_runs=1))
    runs = [world.start("w", input=A) for _ in range(4)]
    world.decide(wire.Register("w", 10, [limited(max_runs=3)], {}, "c"), holder.sender)
    runs.append(world.start("w", input=A))
    assert running(world, holder) == runs[:3]
    old = world.join("w2", [limited(max_runs=1)], 10)
    world.kill(old)
    assert running(world, holder) == runs[:3]
    world.check_followers()


def test_a_new_strategy_counts_who_is_there_already() -> None:
    world, holder = world_of(limited())
    first = world.start("w", input=A)
    running(world, holder)
    world.decide(wire.Register("w", 10, [limited(CANCEL_IN_PROGRESS)], {}, "c"), holder.sender)
    second = world.start("w", input=A)
    assert (status(world, first), status(world, second)) == ("cancelled", "live")


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_what_has_ended_is_not_remembered(strategy: str) -> None:
    world, holder = world_of(limited(strategy, 2))
    stays = world.start("w", input=A)
    world.take(holder)
    for _ in range(6 * SWEPT):
        run = world.start("w", input=A)
        world.take(holder)
        for order in [order for order in holder.running.values() if order.run == run]:
            world.finish(holder, order)
        if strategy == CANCEL_IN_PROGRESS:
            assert status(world, stays) == "live"
    (group,) = world.state.limits.groups
    assert len(group.ages) <= 2 * SWEPT
    world.finish(holder, order_of(holder, stays))
    assert not len(world.state.limits.groups)


def test_who_was_cancelled_while_waiting_is_not_remembered() -> None:
    world, holder = world_of(limited(QUEUE_NEWEST))
    world.start("w", input=A)
    world.take(holder)
    for _ in range(6 * SWEPT):
        world.start("w", input=A)
    (group,) = world.state.limits.groups
    assert len(group.line) <= 2 * SWEPT
