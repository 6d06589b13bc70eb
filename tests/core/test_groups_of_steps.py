"""Concurrency limits of steps, keys by functions, and groups through takeovers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from mesh.core.check import check
from mesh.core.core import Core
from mesh.core.inputs import SELF, TermBegan
from mesh.core.limits import keys_of
from mesh.core.records import RunAdmitted, RunKeyed, TermStarted
from mesh.core.run_keys import StepKeys
from mesh.core.waiting import waiting_for
from mesh_sdk.protocol import records as wire
from mesh_sdk.protocol.definitions import (
    CANCEL_IN_PROGRESS,
    CANCEL_NEWEST,
    QUEUE_NEWEST,
    STRATEGIES,
    ConcurrencyDefinition,
    StepDefinition,
    WorkflowDefinition,
)
from tests.core.grouped import A, by_function, limited, order_of, running, status, step_limited, world_of
from tests.core.lives import TAKERS

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
        assert len(holder.running) <= max_runs
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


def test_a_steps_keys_are_found_without_looking_at_those_of_the_others() -> None:
    class Counted(list[StepKeys]):
        looked = 0

        def __getitem__(self, place: Any) -> Any:
            Counted.looked += 1
            return super().__getitem__(place)

        def __iter__(self) -> Iterator[StepKeys]:
            for keys in super().__iter__():
                Counted.looked += 1
                yield keys

    limit = ConcurrencyDefinition(1, key="input.k")
    steps = [StepDefinition(f"s{n}", concurrency=[limit] if n % 2 else []) for n in range(1_000)]
    world, _ = world_of(WorkflowDefinition("w", steps))
    run = world.state.runs[world.start("w", input=A)]
    assert run.keyed is not None
    run.keyed.steps = Counted(run.keyed.steps)
    found = [keys_of(step) for step in run.steps]
    assert [keys.step if keys is not None else None for keys in found] == [n if n % 2 else None for n in range(1_000)]
    assert Counted.looked <= 1_000 * 12


def test_finished_runs_hold_no_groups() -> None:
    world, holder = world_of(limited())
    run = world.start("w", input=A)
    world.take(holder)
    world.finish(holder, order_of(holder, run))
    found = world.state.find(run)
    assert found is not None
    assert found.ticket is None
    assert msgspec.json.encode(found.keyed) == b'[["a"],[]]'


def test_a_new_leader_decides_nothing_before_its_term_stands() -> None:
    """A follower has gathered places that became free, and never gave them away: its first record is that of its term alone."""
    world, holder = world_of(limited(CANCEL_IN_PROGRESS, 2))
    for _ in range(4):
        run = world.start("w", input=A)
        world.take(holder)
        for order in [order for order in holder.running.values() if order.run == run]:
            world.finish(holder, order)
    with world.leader_dies(0.5, "standby"):
        for _ in range(4):
            world.start("w", input=A)
        world.cancel(run)
    heir = Core(world.standby, lambda: "-")
    heir.decide(TermBegan("heir"), SELF)
    assert [type(fact) for fact in heir.take()] == [TermStarted]
