"""Which workers steps want: labels, numbers of slots, and why a step waits that nobody can run."""

from __future__ import annotations

import pytest

from mesh.core.labels import matches, overridden, weight
from mesh.core.reach import is_hopeless
from mesh.core.records import RunBound, RunRefused, StepReleased
from mesh.core.waiting import waiting_for
from mesh_sdk.protocol import records as wire
from mesh_sdk.protocol.definitions import Label, LabelDefinition, StepDefinition, WorkflowDefinition
from tests.core.lives import TAKERS
from tests.core.world import World


def needs(value: Label | tuple[Label, ...], comparator: str = "=", name: str = "gpu") -> LabelDefinition:
    return LabelDefinition(name, value, comparator, required=True)


def likes(value: Label, weight: int = 100, name: str = "gpu") -> LabelDefinition:
    return LabelDefinition(name, value, weight=weight)


def labelled(*labels: LabelDefinition, name: str = "w", slots: int = 1, sticky: str = "") -> WorkflowDefinition:
    return WorkflowDefinition(name, [StepDefinition("a", labels=list(labels), slots=slots)], sticky=sticky)


COMPARISONS: list[tuple[str, object, object, bool]] = [
    ("=", "a", "a", True), ("=", "a", "b", False), ("=", 1, 1.0, True), ("=", "1", 1, False),
    ("!=", "a", "b", True), ("!=", "a", "a", False), ("!=", "1", 1, True), ("!=", None, 1, True),
    ("<", 1, 2, True), ("<", 2, 2, False), ("<", "a", "b", True), ("<", "a", 2, False), ("<", None, 2, False),
    ("<=", 2, 2, True), ("<=", 3, 2, False), (">", 3, 2, True), (">", 2, 2, False), (">=", 2, 2.0, True), (">=", 1, 2, False),
    ("in", "a", ("a", "b"), True), ("in", "c", ("a", "b"), False), ("in", 1, (1, 2), True), ("in", None, ("a",), False),
    ("=", None, "a", False), (">", "b", "a", True), (">=", "2", 1, False), ("in", "1", (1,), False),
]  # fmt: skip


@pytest.mark.parametrize(("comparator", "has", "wished", "holds"), COMPARISONS)
def test_comparisons(comparator: str, has: Label | None, wished: Label | tuple[Label, ...], holds: bool) -> None:
    labels = {} if has is None else {"gpu": has}
    assert matches(needs(wished, comparator), labels) is holds


def test_weights_add_up_and_what_is_required_has_none() -> None:
    wishes = [likes("a", 10), likes(3, -4, "zone"), LabelDefinition("x", 1, required=True, weight=1_000)]
    assert weight(wishes, {"gpu": "a", "zone": 3, "x": 1}) == 6
    assert weight(wishes, {}) == 0


def test_a_run_overrides_its_steps_by_the_names_of_labels() -> None:
    assert overridden([needs("a"), likes(1, name="zone")], [needs("b")]) == (likes(1, name="zone"), needs("b"))


def test_what_is_required_decides_and_what_is_liked_chooses() -> None:
    definition = labelled(needs("a"), likes("eu", 10, "zone"))
    world = World()
    for id, labels in (("w1", {"gpu": "a"}), ("w2", {"gpu": "a", "zone": "eu"}), ("w3", {"gpu": "b", "zone": "eu"})):
        world.join(id, [definition], 1, **labels)
    for _ in range(3):
        world.start("w")
    assert [fact.worker for _, fact in world.journal if isinstance(fact, StepReleased)] == ["w2", "w1"]


def test_a_child_goes_where_the_labels_that_it_was_spawned_with_are() -> None:
    world = World()
    parent, child = WorkflowDefinition("parent", [StepDefinition("a")]), labelled(needs("none"))
    holders = [world.join(f"w{number}", [parent, child], 3, gpu=f"g{number}") for number in range(3)]
    world.start("parent")
    [(holder, order)] = [(holder, order) for holder in holders for order in world.take(holder)]
    children = {world.spawn(holder, order, "w", f"w#{number}", labels=[needs(f"g{number % 3}")]): number % 3 for number in range(6)}
    for number, each in enumerate(holders):
        assert {order.run for order in world.take(each)} == {run for run, place in children.items() if place == number}
    many = [needs("a", name=str(number)) for number in range(33)]
    refused = world.spawn(holder, order, "w", "w#7", labels=many)
    [fact] = [fact for _, fact in world.journal if isinstance(fact, RunRefused)]
    assert (fact.run, fact.error, fact.message) == (refused, "InvalidInput", "child 'w' has 33 labels, 32 are the most")
    world.check_followers()


def test_each_of_many_runs_goes_where_its_label_is() -> None:
    definition = labelled(needs("none"))
    world = World()
    holders = [world.join(f"w{number}", [definition], 3, gpu=f"g{number}") for number in range(4)]
    wanted = {world.start("w", labels=[needs(f"g{number % 4}")]): f"w{number % 4}" for number in range(40)}
    while world.state.runs:
        for holder in holders:
            for order in world.take(holder):
                assert wanted[order.run] == holder.id
                world.finish(holder, order)
    world.check_followers()


@pytest.mark.parametrize("taker", TAKERS)
def test_labels_of_a_live_worker_change(taker: str) -> None:
    definition = labelled(needs("a"))
    world = World()
    holder = world.join("w1", [definition], 2, gpu="b")
    run = world.start("w")
    step = world.state.runs[run].steps[0]
    assert waiting_for(world.state, step).cause == 'no worker that registers w:a has label gpu = "a"'
    assert is_hopeless(world.state, step)
    world.take_over(taker)
    world.decide(wire.Register("w", 2, [definition], {"gpu": "a"}, "client-w1"), holder.sender)
    (order,) = world.take(holder)
    assert order.run == run
    world.decide(wire.Register("w", 2, [definition], {}, "client-w1"), holder.sender)
    other = world.start("w")
    assert not world.take(holder)
    assert is_hopeless(world.state, world.state.runs[other].steps[0])
    world.finish(holder, order)
    world.check_followers()


def test_a_worker_that_is_merely_full_is_no_reason_to_give_up_hope() -> None:
    world = World()
    world.join("w1", [labelled(needs("a"))], 1, gpu="a")
    world.start("w")
    step = world.state.runs[world.start("w")].steps[0]
    assert not is_hopeless(world.state, step)
    assert waiting_for(world.state, step).cause == 'every slot of 1 that can run w:a is taken: only worker w1 has label gpu = "a"'


# ---- sticky -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sticky", ["SOFT", "HARD"])
@pytest.mark.parametrize("later", [StepDefinition("b", [0], labels=[needs("a")]), StepDefinition("b", [0], slots=3)])
def test_a_run_is_bound_where_all_of_its_steps_can_run(sticky: str, later: StepDefinition) -> None:
    definition = WorkflowDefinition("w", [StepDefinition("a"), later], sticky=sticky)
    world = World()
    world.join("w1", [definition], 2)
    fit = world.join("w2", [definition], 3, gpu="a")
    for _ in range(4):
        world.start("w")
    bound = {fact.worker for _, fact in world.journal if isinstance(fact, RunBound)}
    assert bound == {"w2"}
    for _ in range(10):
        world.take(fit)
        for order in list(fit.running.values()):
            world.finish(fit, order)
    assert not world.state.runs


def test_a_bound_run_says_what_its_worker_lacks() -> None:
    definition = labelled(needs("a"), sticky="HARD")
    world = World()
    holder = world.join("w1", [definition], 1, gpu="a")
    world.start("w")
    run = world.start("w", worker="w1")
    world.decide(wire.Register("w", 1, [definition], {}, "client-w1"), holder.sender)
    assert waiting_for(world.state, world.state.runs[run].steps[0]).cause == 'worker w1 does not have label gpu = "a"'


# ---- slots --------------------------------------------------------------------------------------------------------------

SMALL = WorkflowDefinition("small", [StepDefinition("a")])
BIG = labelled(name="big", slots=4)


@pytest.mark.parametrize("taker", ["", *TAKERS])
def test_a_big_step_gathers_slots_and_is_not_starved(taker: str) -> None:
    world = World()
    holder = world.join("w1", [SMALL, BIG], 4)
    for _ in range(6):
        world.start("small")
    world.take(holder)
    big = world.start("big")
    for number in range(12):
        for order in list(holder.running.values())[:1]:
            world.finish(holder, order)
            world.start("small")
        if taker and not number:
            world.take_over(taker)
            world.resend()
        worker = world.state.workers["w1"]
        assert worker.used + worker.promised - max((a.slots for a in worker.reserved.values()), default=0) < 4 + 1
        world.take(holder)
        assert sum(holder.sizes.get(token, 1) for token in holder.running) <= 4
        if any(order.run == big for order in holder.running.values()):
            break
    else:
        raise AssertionError("the big one was never begun")
    world.check_followers()


def test_gathering_on_one_worker_costs_the_others_nothing() -> None:
    world = World()
    first, second = (world.join(id, [SMALL, BIG], 4) for id in ("w1", "w2"))
    for _ in range(8):
        world.start("small")
    for holder in (first, second):
        for order in world.take(holder):
            world.accept(holder, order)
    world.finish(first, next(iter(first.running.values())))
    world.start("big")
    for order in list(second.running.values()):
        world.finish(second, order)
    for _ in range(4):
        world.start("small")
    assert len(world.take(second)) == 4
    assert world.state.workers["w1"].room == -3


def test_a_lent_attempt_lends_all_its_slots() -> None:
    world = World()
    holder = world.join("w1", [SMALL, BIG], 4)
    world.start("big")
    (order,) = world.take(holder)
    world.lend(holder, order)
    assert world.state.workers["w1"].used == 0
    for _ in range(5):
        world.start("small")
    small = world.take(holder)
    assert len(small) == 4
    for each in small:
        world.accept(holder, each)
        world.finish(holder, each)
    world.take_over("image")
    for each in world.take(holder):
        world.finish(holder, each)
    world.resume(holder, order)
    assert world.state.workers["w1"].used == 4
    world.check_ledger()
    world.check_followers()


def test_a_step_that_costs_more_than_any_worker_has_says_so() -> None:
    world = World()
    world.join("w1", [BIG], 3)
    run = world.start("big")
    step = world.state.runs[run].steps[0]
    assert waiting_for(world.state, step).cause == "no worker that registers big:a has 4 slots: at most 3"
    assert is_hopeless(world.state, step)
    world.join("w2", [BIG], 4)
    assert [fact.worker for _, fact in world.journal if isinstance(fact, StepReleased)] == ["w2"]


# ---- pause, resume, drain -----------------------------------------------------------------------------------------------


def steered(world: World, what: str, worker: str = "w1") -> None:
    world.decide(wire.Steer(worker, what))


@pytest.mark.parametrize("taker", ["", *TAKERS])
def test_a_paused_worker_is_given_nothing_until_it_goes_on(taker: str) -> None:
    world = World()
    holder = world.join("w1", [SMALL, BIG], 4)
    steered(world, wire.PAUSE)
    runs = [world.start("small"), world.start("big")]
    if taker:
        world.take_over(taker)
        world.resend()
        assert wire.Steered(wire.PAUSE) in world.private[("w1", holder.incarnation)][-1:]
    assert not world.take(holder)
    cause = waiting_for(world.state, world.state.runs[runs[0]].steps[0]).cause
    assert cause == "every worker that registers small:a is paused or draining: w1 is paused"
    assert not is_hopeless(world.state, world.state.runs[runs[1]].steps[0])
    world.check_followers()
    steered(world, wire.RESUME)
    if taker:
        world.take_over(taker)
        world.resend()
        assert wire.Steered(wire.RESUME) in world.private[("w1", holder.incarnation)], "it may never have been told"
    world.run_all()
    assert not world.state.runs
    world.check_followers()


def test_a_worker_that_is_to_drain_is_given_nothing_more_and_does_not_go_on() -> None:
    world = World()
    holder = world.join("w1", [SMALL], 4)
    steered(world, wire.PAUSE)
    steered(world, wire.DRAIN)
    world.start("small")
    steered(world, wire.RESUME)
    assert not world.take(holder)
    world.take_over("image")
    world.resend()
    assert world.private[("w1", holder.incarnation)][-1] == wire.Steered(wire.DRAIN)
    world.leave(holder)
    world.join("w1", [SMALL], 4)
    world.run_all()
    assert not world.state.runs
    world.check_followers()


@pytest.mark.parametrize("sticky", ["SOFT", "HARD"])
def test_bound_runs_wait_for_a_paused_worker_or_go(sticky: str) -> None:
    definition = WorkflowDefinition("w", [StepDefinition("a"), StepDefinition("b", [0])], sticky=sticky)
    world = World()
    holder = world.join("w1", [definition], 4)
    run = world.start("w")
    (order,) = world.take(holder)
    other = world.join("w2", [definition], 4)
    steered(world, wire.PAUSE)
    world.finish(holder, order)
    taken = world.take(other)
    if sticky == "SOFT":
        assert [order.run for order in taken] == [run]
        return
    assert not taken
    assert waiting_for(world.state, world.state.runs[run].steps[1]).cause == "worker w1 is paused"
    world.check_followers()
    steered(world, wire.RESUME)
    assert [order.run for order in world.take(holder)] == [run]
