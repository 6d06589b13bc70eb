"""Concurrency groups: who begins, who waits, who is cancelled for whom, and that it stays so whoever leads."""

from __future__ import annotations

import itertools

import msgspec
import pytest

from mesh.core.check import check
from mesh.core.flow import SWEPT
from mesh.core.records import RunAdmitted, RunKeyed, StepReleased
from mesh.core.waiting import admission, waiting_for
from mesh_sdk.protocol import records as wire
from mesh_sdk.protocol.definitions import (
    CANCEL_IN_PROGRESS,
    CANCEL_NEWEST,
    FUNCTION,
    GROUP_ROUND_ROBIN,
    KEY,
    QUEUE_NEWEST,
    STRATEGIES,
    ConcurrencyDefinition,
    StepDefinition,
    WorkflowDefinition,
)
from tests.core.holder import Holder
from tests.core.lives import TAKERS
from tests.core.world import World

A, B = b'{"k":"a","t":"x"}', b'{"k":"b","t":"x"}'


def limited(strategy: str = GROUP_ROUND_ROBIN, max_runs: int = 1, *, name: str = "w", scope: str = "", steps: int = 1) -> WorkflowDefinition:
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
        assert ended is None or (ended.status == wire.CANCELLED and "group a" in ended.errors[0].message and strategy in ended.errors[0].message)  # type: ignore[index]


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
    waits = admission(world.state.runs[second])
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


# ---- limits of steps ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("max_runs", [1, 2])
def test_steps_that_are_tried_again_want_their_places_anew(strategy: str, max_runs: int) -> None:
    """With others in the group all the while, of the same step's earlier attempts nothing is left that counts."""
    world, holder = world_of(step_limited(strategy, max_runs, retries=5), slots=3)
    runs = [world.start("w", input=A) for _ in range(4)]
    for _ in range(3):
        world.take(holder)
        for order in list(holder.running.values()):
            if order.token in holder.running:
                world.fail(holder, order)
                runs.append(world.start("w", input=A))
        world.take_over("image")
        world.resend()
        assert len([o for o in holder.running.values()]) <= max_runs
    world.run_all()
    assert all(status(world, run) in ("succeeded", "cancelled") for run in runs)
    assert any(status(world, run) == "succeeded" for run in runs)
    assert not len(world.state.limits.groups)
    world.check_followers()


def test_a_cancelled_attempt_that_still_runs_is_no_reason_to_cancel_the_newest() -> None:
    world, holder = world_of(step_limited(CANCEL_NEWEST))
    first = world.start("w", input=A)
    world.take(holder)
    world.accept(holder, order_of(holder, first))
    world.cancel(first)
    second = world.start("w", input=A)
    assert status(world, second) == "live"
    step = world.state.runs[second].steps[0]
    assert waiting_for(world.state, step).cause == "group a has 1 of 1"
    for taker in TAKERS:
        world.take_over(taker)
        assert status(world, second) == "live"
    world.take(holder)
    assert running(world, holder) == [second]


# ---- key functions ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("output", "words"), [(b"7", "returned 7"), (b"null", "returned null"), (b'""', "is empty"), (b'"%s"' % (b"x" * 513), "513 characters")]
)
def test_a_key_that_is_none_fails_the_run(output: bytes, words: str) -> None:
    world, holder = world_of(by_function())
    run = world.start("w")
    world.take(holder)
    world.finish(holder, order_of(holder, run), output)
    done = world.done(run)
    assert done is not None
    assert done.status == wire.FAILED
    assert words in done.errors[0].message  # type: ignore[index]
    world.check_followers()


@pytest.mark.parametrize("how", ["raises", "hangs", "its worker hangs"])
def test_a_key_function_that_gives_none_fails_the_run(how: str) -> None:
    world, holder = world_of(by_function())
    run = world.start("w")
    if how != "its worker hangs":
        world.take(holder)
    if how == "raises":
        world.fail(holder, order_of(holder, run))
    else:
        world.pass_time(15_001)
    done = world.done(run)
    assert done is not None
    assert done.status == wire.FAILED
    assert "key function 'key' failed" in done.errors[0].message  # type: ignore[index]
    world.run_all()
    assert world.state.workers["w1"].keys_out == 0
    world.check_followers()


def test_a_lost_worker_costs_a_key_function_nothing() -> None:
    world, holder = world_of(by_function())
    run = world.start("w")
    world.take(holder)
    world.kill(holder)
    holder = world.join("w2", [by_function()], 1)
    world.take(holder)
    world.finish(holder, order_of(holder, run), b'"k"')
    assert running(world, holder) == [run]


@pytest.mark.parametrize("taker", ["", *TAKERS])
def test_a_run_that_is_cancelled_while_its_key_is_out_wants_no_place(taker: str) -> None:
    world, holder = world_of(by_function())
    run = world.start("w")
    world.take(holder)
    world.cancel(run)
    if taker:
        world.take_over(taker)
    world.take(holder)
    other = world.start("w")
    world.take(holder)
    world.finish(holder, order_of(holder, other), b'"k"')
    assert running(world, holder) == [other]
    assert status(world, run) == "cancelled"
    world.check_followers()


def test_full_slots_do_not_block_key_functions() -> None:
    world, holder = world_of(by_function(CANCEL_IN_PROGRESS), slots=1)
    first, second = world.start("w"), world.start("w")
    world.take(holder)
    world.finish(holder, order_of(holder, first), b'"k"')
    world.take(holder)
    world.finish(holder, order_of(holder, second), b'"k"')
    assert status(world, first) == "cancelled"


# ---- others -------------------------------------------------------------------------------------------------------------


def test_a_delayed_start_is_new_when_its_time_has_come() -> None:
    world, holder = world_of(limited(CANCEL_IN_PROGRESS))
    delayed = world.start("w", input=A, delay_ms=1_000)
    early = world.start("w", input=A)
    assert running(world, holder) == [early], "it is in no group yet"
    world.pass_time(1_000)
    assert (status(world, early), status(world, delayed)) == ("cancelled", "live")
    world.check_followers()


def test_children_are_in_groups_like_all_runs() -> None:
    parent = WorkflowDefinition("parent", [StepDefinition("a")])
    child = WorkflowDefinition("w", [StepDefinition("a")], concurrency=[ConcurrencyDefinition(1, key="metadata.k")])
    world, holder = world_of(parent, child)
    world.start("parent")
    (order,) = world.take(holder)
    children = [world.spawn(holder, order, "w", position, metadata={"k": "a"}) for position in "12"]
    assert set(running(world, holder)) == {order.run, children[0]}
    world.run_all()
    assert [status(world, run) for run in children] == ["succeeded"] * 2


@pytest.mark.parametrize("taker", TAKERS)
@pytest.mark.parametrize("definition", [limited(max_runs=2, steps=2), step_limited(CANCEL_NEWEST, 2), by_function(QUEUE_NEWEST)])
def test_a_takeover_at_any_record_changes_nothing(definition: WorkflowDefinition, taker: str) -> None:
    for cut in range(0, 101, 10):
        world, holder = world_of(definition, slots=3)
        with world.leader_dies(cut / 100, taker):
            for _ in range(4):
                world.start("w", input=A)
        check(world.state)
        for _ in range(6):
            for holder in world.workers.values():
                world.take(holder)
                with world.leader_dies(cut / 100, taker):
                    for order in list(holder.running.values()):
                        world.finish(holder, order, b'"k"')
        world.run_all()
        facts = [fact for _, fact in world.journal]
        for kind in (RunKeyed, RunAdmitted):
            ids = [fact.run for fact in facts if isinstance(fact, kind)]
            assert len(ids) == len(set(ids))
        assert not world.state.runs
        assert not len(world.state.limits.groups)
        world.check_followers()


def test_finished_runs_hold_no_groups() -> None:
    world, holder = world_of(limited())
    run = world.start("w", input=A)
    world.take(holder)
    world.finish(holder, order_of(holder, run))
    found = world.state.find(run)
    assert found is not None
    assert found.ticket is None
    assert msgspec.json.encode(found.keyed) == b'[["a"],[]]'
