"""The reasons why runs and steps wait: each names what it waits for, counts only those who could run it, and is true."""

from __future__ import annotations

import pytest

from mesh.core.reach import Reach, Reaches, is_hopeless, reach_of
from mesh.core.waiting import Wait, admission, waiting_for
from mesh_sdk.protocol import records as wire
from mesh_sdk.protocol.definitions import (
    ConcurrencyDefinition,
    Label,
    LabelDefinition,
    RateDefinition,
    StepDefinition,
    WorkflowDefinition,
)
from tests.core.grouped import A, by_function, limited, order_of
from tests.core.world import World


def wanting(*labels: LabelDefinition, slots: int = 1) -> WorkflowDefinition:
    return WorkflowDefinition("w", [StepDefinition("a", labels=list(labels), slots=slots)])


def required(value: Label | tuple[Label, ...], comparator: str = "=", name: str = "gpu") -> LabelDefinition:
    return LabelDefinition(name, value, comparator, required=True)


def wait_of(world: World, run: str, step: int = 0) -> Wait:
    return waiting_for(world.state, world.state.runs[run].steps[step])


def told(world: World, run: str, step: int = 0) -> tuple[str, str, str]:
    wait = wait_of(world, run, step)
    return wait.kind, wait.cause, wait.worker


# ---- workers ------------------------------------------------------------------------------------------------------------


def test_only_slots_of_workers_that_could_run_it_are_counted() -> None:
    definition = wanting(required("a"))
    world = World()
    world.join("w1", [definition], 100)
    world.join("w2", [definition], 1, gpu="a")
    world.start("w")
    run = world.start("w")
    assert told(world, run) == ("slots", 'every slot of 1 that can run w:a is taken: only worker w2 has label gpu = "a"', "")
    world.join("w3", [definition], 2, gpu="a")
    for _ in range(2):
        run = world.start("w")
    assert wait_of(world, run).cause == 'every slot of 3 that can run w:a is taken: only 2 workers have label gpu = "a"'


def test_a_worker_with_too_few_slots_is_not_counted() -> None:
    world = World()
    world.join("w1", [wanting(slots=4)], 3)
    world.join("w2", [wanting(slots=4)], 4)
    world.start("w")
    run = world.start("w")
    assert wait_of(world, run).cause == "every slot of 4 that can run w:a is taken: only worker w2 has 4 slots"


def test_a_label_here_and_slots_there_are_not_enough() -> None:
    world = World()
    world.join("w1", [wanting(required("a"), slots=4)], 8)
    world.join("w2", [wanting(required("a"), slots=4)], 1, gpu="a")
    run = world.start("w")
    assert told(world, run) == ("labels", 'no worker that registers w:a has label gpu = "a" and 4 slots together', "")


@pytest.mark.parametrize(("what", "state"), [(wire.PAUSE, "paused"), (wire.DRAIN, "draining")])
def test_a_worker_that_takes_no_work_is_named_and_not_said_to_lack_what_it_has(what: str, state: str) -> None:
    definition = wanting(required("a100"))
    world = World()
    world.join("w1", [definition], 2, gpu="a100")
    world.join("w2", [definition], 2)
    world.decide(wire.Steer("w1", what))
    run = world.start("w")
    cause = f'every worker that registers w:a and has label gpu = "a100" is paused or draining: w1 is {state}'
    assert told(world, run) == ("worker", cause, "w1")
    assert not is_hopeless(world.state, world.state.runs[run].steps[0])


def test_not_every_worker_is_named_where_there_are_many() -> None:
    world = World()
    for number in range(5):
        world.join(f"w{number}", [wanting()], 2)
        world.decide(wire.Steer(f"w{number}", wire.PAUSE))
    wait = wait_of(world, world.start("w"))
    assert (wait.kind, wait.worker) == ("worker", "")
    assert wait.cause.endswith("is paused or draining: w0 is paused, w1 is paused, w2 is paused and 2 more")


def test_no_worker_at_all_is_no_lack_of_slots() -> None:
    world = World()
    world.kill(world.join("w1", [wanting()], 2))
    assert told(world, world.start("w")) == ("worker", "no worker registers w:a", "")


LACKS: list[tuple[LabelDefinition, Label, str]] = [
    (required("64", ">=", "mem"), 128, 'label mem >= "64": w1 has the number 128'),
    (required(64, ">=", "mem"), "128", 'label mem >= 64: w1 has the text "128"'),
    (required(("5",), "in", "mem"), 5, 'label mem in ["5"]: w1 has the number 5'),
    (required(("5", 6), "in", "mem"), 5, 'label mem in ["5",6]'),
    (required(64, ">=", "mem"), 32, "label mem >= 64"),
]


@pytest.mark.parametrize(("wish", "has", "lacks"), LACKS)
def test_texts_that_look_like_numbers_are_told_from_them(wish: LabelDefinition, has: Label, lacks: str) -> None:
    world = World()
    world.join("w1", [wanting(wish)], 2, mem=has)
    assert wait_of(world, world.start("w")).cause == f"no worker that registers w:a has {lacks}"


def test_steps_that_want_the_same_cost_one_look_at_all_workers() -> None:
    world = World()
    world.join("w1", [wanting()], 2)
    known: Reaches = {}
    for labels in ([], [required("b")], [required("b")], [required("d")]):
        reach_of(world.state, world.state.runs[world.start("w", labels=labels)].steps[0], known)
    assert len(known) == 3
    known.update(dict.fromkeys(known, Reach("as told before", "slots")))
    run = world.start("w", labels=[required("d")])
    assert waiting_for(world.state, world.state.runs[run].steps[0], known).cause == "as told before"


# ---- key functions, groups, rates ---------------------------------------------------------------------------------------


def test_a_key_function_that_no_worker_can_be_asked_for_says_so() -> None:
    world = World()
    holder = world.join("w1", [by_function()], 2)

    def cause() -> str:
        wait = admission(world.state, world.state.runs[run])
        assert wait is not None
        assert wait.kind == "key"
        return wait.cause

    run = world.start("w", input=A)
    assert cause() == "key function key has not answered"
    world.decide(wire.Steer("w1", wire.PAUSE))
    run = world.start("w", input=A)
    assert cause() == "key function key can't be asked: every worker that registers w:key is paused or draining: w1 is paused"
    world.kill(holder)
    run = world.start("w", input=A)
    assert cause() == "key function key can't be asked: no worker registers w:key"


def test_only_rates_that_are_used_up_are_named() -> None:
    rates = [RateDefinition("wide", 100, 1_000), RateDefinition("narrow", 1, 60_000)]
    world = World()
    world.join("w1", [WorkflowDefinition("w", [StepDefinition("a", rate_limits=rates)])], 9)
    runs = [world.start("w") for _ in range(3)]
    for run in runs[1:]:
        assert told(world, run) == ("rate", "rate limit narrow (1 in 60 s) is used up", "")


@pytest.mark.parametrize(("max_runs", "held"), [(1, "held"), (2, "one of them held")])
def test_a_place_that_an_ancestor_holds_is_said_to_be_its(max_runs: int, held: str) -> None:
    outer, inner = (limited(name=name, scope="z", max_runs=max_runs) for name in ("outer", "inner"))
    world = World()
    holder = world.join("w1", [outer, WorkflowDefinition("between", [StepDefinition("a")]), inner], 9)
    for _ in range(max_runs - 1):
        world.start("outer", input=A)
    top = world.start("outer", input=A)
    world.take(holder)
    child = world.spawn(holder, order_of(holder, top), "inner", "1", input=A)
    between = world.spawn(holder, order_of(holder, top), "between", "2", input=A)
    world.take(holder)
    grandchild = world.spawn(holder, order_of(holder, between), "inner", "1", input=A)

    def cause(run: str) -> str:
        wait = admission(world.state, world.state.runs[run])
        return wait.cause if wait is not None else ""

    has = f"group a has {max_runs} of {max_runs}"
    assert cause(child) == f"{has}, {held} by run {top}, which started this one"
    assert cause(grandchild) == f"{has}, {held} by run {top}, from which this one descends"
    stranger = world.start("inner", input=A)
    assert cause(stranger) == has


def test_a_place_of_a_step_that_a_child_waits_for_is_said_to_be_its() -> None:
    shared = [ConcurrencyDefinition(1, key="input.k", scope="z")]
    definition = WorkflowDefinition("outer", [StepDefinition("a", concurrency=shared)])
    world = World()
    holder = world.join("w1", [definition], 9)
    top = world.start("outer", input=A)
    world.take(holder)
    child = world.spawn(holder, order_of(holder, top), "outer", "1", input=A)
    assert told(world, child) == ("group", f"group a has 1 of 1, held by run {top}, which started this one", "")
