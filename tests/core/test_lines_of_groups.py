"""Who waits for places in groups, and for how long: turns among keys where several limits must admit, and steps that need slots too."""

from __future__ import annotations

import itertools

import pytest
from msgspec import structs

from mesh.core.line import Line
from mesh.core.records import StepReleased
from mesh.core.waiting import admission, waiting_for
from mesh_sdk.protocol import records as wire
from mesh_sdk.protocol.definitions import (
    CANCEL_NEWEST,
    ConcurrencyDefinition,
    LabelDefinition,
    RateDefinition,
    StepDefinition,
    WorkflowDefinition,
)
from tests.core.grouped import A, B, limited, order_of, running, status, step_limited, world_of
from tests.core.holder import Holder
from tests.core.lives import TAKERS
from tests.core.world import World

PLAIN = WorkflowDefinition("plain", [StepDefinition("a")])


def keyed(key: str, all: str = "x") -> bytes:
    return b'{"k":"%s","t":"%s"}' % (key.encode(), all.encode())


def several(*max_runs: int, of_step: bool = False, weights: dict[str, int] | None = None) -> WorkflowDefinition:
    """A workflow of one step, with a limit for each key and one for all of them."""
    limits = [ConcurrencyDefinition(count, key=f"input.{key}") for count, key in zip(max_runs, "kt", strict=True)]
    limits[0] = structs.replace(limits[0], weights=weights or {})
    return WorkflowDefinition("w", [StepDefinition("a", concurrency=limits if of_step else [])], concurrency=[] if of_step else limits)


def served(world: World, holder: Holder, keys: dict[str, str], count: int) -> str:
    """The keys of the next that run: one ends at a time."""
    found = ""
    for _ in range(count):
        world.take(holder)
        order = min(holder.running.values(), key=lambda order: world.executed.index((order.run, order.step, order.attempt, holder.id)))
        found += keys[order.run]
        world.finish(holder, order)
    return found


# ---- several limits -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("of_step", [False, True], ids=["runs", "steps"])
@pytest.mark.parametrize("max_runs", [(5, 4), (2, 4), (100, 1)])
def test_keys_take_turns_at_a_place_that_all_of_them_want(max_runs: tuple[int, int], of_step: bool) -> None:
    """There are slots for all; what is short is the second limit. All of A is older than anything of B and C."""
    world, holder = world_of(several(*max_runs, of_step=of_step), slots=50)
    keys = {world.start("w", input=keyed(key)): key for key in "A" * 60 + "BC" * 10}
    first = served(world, holder, keys, max_runs[1])
    then = served(world, holder, keys, 24)
    assert then.count("B") >= 7, first + then
    assert then.count("C") >= 7, first + then
    served(world, holder, keys, len(keys) - max_runs[1] - 24)
    assert all(status(world, run) == "succeeded" for run in keys)
    world.check_followers()


def test_weights_count_at_a_place_that_all_want() -> None:
    world, holder = world_of(several(9, 1, weights={"A": 3}), slots=50)
    keys = {world.start("w", input=keyed(key)): key for key in "AB" * 60}
    then = served(world, holder, keys, 41)[1:]
    assert (then.count("A"), then.count("B")) == (30, 10)


def test_nobody_overtakes_who_waits_for_the_same_place() -> None:
    """As A's run ends both places are free: its next run may not take the common one, for which B has waited longer."""
    world, holder = world_of(several(1, 1), slots=5)
    first, waits = world.start("w", input=keyed("A")), world.start("w", input=keyed("B"))
    world.start("w", input=keyed("A"))
    assert running(world, holder) == [first]
    world.finish(holder, order_of(holder, first))
    assert running(world, holder) == [waits]


def test_who_moves_from_line_to_line_is_found_in_the_end() -> None:
    """Three limits in any order; whatever ends first, in the end all have run and nobody is remembered."""
    for seed, order in enumerate(itertools.permutations(["input.k", "input.t", "input.u"])):
        limits = [ConcurrencyDefinition(1 + (seed + place) % 2, key=key) for place, key in enumerate(order)]
        world, holder = world_of(WorkflowDefinition("w", [StepDefinition("a")], concurrency=limits), slots=5)
        for number in range(40):
            world.start("w", input=b'{"k":"%d","t":"%d","u":"%d"}' % (number % 2, number % 3, number % 5))
            if number % 3 == 0:
                for running_order in list(world.take(holder))[:1]:
                    world.finish(holder, running_order)
        world.run_all()
        assert not world.state.runs
        assert not len(world.state.limits.groups)
        world.check_followers()


# ---- steps, which need a slot too -----------------------------------------------------------------------------------------


def test_a_long_line_of_one_key_costs_no_more_than_a_short_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every slot is taken: as a place is free, nobody is sent to wait for a slot but those who may take it."""
    pushes = 0
    plain_push = Line.push

    def push(line: Line, waiter: object) -> None:  # type: ignore[type-arg]
        nonlocal pushes
        pushes += 1
        plain_push(line, waiter)  # type: ignore[arg-type]

    monkeypatch.setattr(Line, "push", push)
    counts = []
    for waiting in (20, 400):
        world, holder = world_of(step_limited(max_runs=2), slots=4)
        keys = {world.start("w", input=keyed(key)): key for key in "A" * waiting + "BCD" * 10}
        pushes = 0
        assert served(world, holder, keys, 30).count("A") <= 10
        counts.append(pushes)
    assert counts[1] <= counts[0] + 5, counts


LABELLED = [LabelDefinition("gpu", "a100", required=True)]


@pytest.mark.parametrize("taker", ["", *TAKERS])
def test_a_step_that_finds_no_worker_holds_no_place_for_others(taker: str) -> None:
    world, holder = world_of(step_limited(), PLAIN, slots=1)
    busy = world.start("plain")
    hopeless = world.start("w", input=A, labels=LABELLED)
    others = [world.start("w", input=A) for _ in range(3)]
    assert running(world, holder) == [busy]
    if taker:
        world.take_over(taker)
    for run in (busy, *others):
        world.finish(holder, order_of(holder, run))
        world.take(holder)
    assert [status(world, run) for run in (*others, hopeless)] == ["succeeded"] * 3 + ["live"]
    assert 'label gpu = "a100"' in waiting_for(world.state, world.state.runs[hopeless].steps[0]).cause
    world.join("w2", [step_limited(), PLAIN], 1, gpu="a100")
    world.run_all()
    assert not world.state.runs
    world.check_followers()


def test_a_step_of_another_pool_takes_the_place_that_those_before_it_find_no_slot_for() -> None:
    limit = [ConcurrencyDefinition(1, key="input.k", scope="s")]
    near, far = (WorkflowDefinition(name, [StepDefinition("a", concurrency=limit)]) for name in ("near", "far"))
    world, holder = world_of(near, PLAIN, slots=1)
    other = world.join("w2", [far], 1)
    world.start("plain")
    for name in ("near", "near", "far"):
        world.start(name, input=A)
    assert len(running(world, holder)) == 1
    assert len(running(world, other)) == 1, "its slot is free, and so is the place"


def test_who_was_called_and_is_cancelled_makes_way() -> None:
    world, holder = world_of(step_limited(), PLAIN, slots=1)
    busy = world.start("plain")
    called, waits = world.start("w", input=A), world.start("w", input=A)
    running(world, holder)
    step = world.state.runs[waits].steps[0]
    assert waiting_for(world.state, step).cause == "group a has 0 of 1, and for the rest 1 before it wait for slots"
    world.cancel(called)
    assert waiting_for(world.state, step).kind == "slots"
    world.finish(holder, order_of(holder, busy))
    assert running(world, holder) == [waits]


def test_who_waits_for_a_rate_keeps_no_place_from_others() -> None:
    """The first has used the rate up: the next of the same key waits for it, and one that needs no rate takes the place."""
    limit = [ConcurrencyDefinition(1, key="input.k", scope="s")]
    rated = WorkflowDefinition("rated", [StepDefinition("a", concurrency=limit, rate_limits=[RateDefinition("r", 1, 60_000)])])
    free = WorkflowDefinition("free", [StepDefinition("a", concurrency=limit)])
    world, holder = world_of(rated, free, slots=2)
    first, held = world.start("rated", input=A), world.start("rated", input=A)
    world.take(holder)
    world.finish(holder, order_of(holder, first))
    assert waiting_for(world.state, world.state.runs[held].steps[0]).kind == "rate"
    other = world.start("free", input=A)
    assert running(world, holder) == [other]
    world.finish(holder, order_of(holder, other))
    world.pass_time(60_000)
    assert running(world, holder) == [held]


def test_keys_take_turns_at_a_rate_that_all_of_them_want() -> None:
    """There are slots and places for all; what is short is the rate."""
    limit = [ConcurrencyDefinition(1_000, key="input.k")]
    rated = WorkflowDefinition("w", [StepDefinition("a", rate_limits=[RateDefinition("r", 10, 1_000)])], concurrency=limit)
    world, _ = world_of(rated, slots=1_000)
    keys = {world.start("w", input=keyed(key)): key for key in "A" * 200 + "BC" * 10}
    while (at := world.core.next_at()) is not None and at < world.now + 1_000:
        world.now = max(at, world.now)
        world.pass_time(0)
        released = [keys[fact.run] for _, fact in world.journal if isinstance(fact, StepReleased)]
        if len(released) >= 32:
            break
    then = "".join(released[2:32])
    assert {key: then.count(key) for key in "ABC"} == dict.fromkeys("ABC", 10), then
    world.check_followers()


@pytest.mark.parametrize("taker", TAKERS)
def test_whoever_leads_calls_those_who_wait(taker: str) -> None:
    world, holder = world_of(step_limited(max_runs=2), slots=3)
    runs = [world.start("w", input=key) for key in (A, B) for _ in range(20)]
    for _ in range(60):
        world.take(holder)
        for order in list(holder.running.values())[:1]:
            world.finish(holder, order)
        world.take_over(taker)
        world.resend()
        assert len([order for order in holder.running.values() if order.run in runs[:20]]) <= 2
    world.run_all()
    assert all(status(world, run) == "succeeded" for run in runs)
    world.check_followers()


# ---- for how long ---------------------------------------------------------------------------------------------------------

PATIENT = structs.replace(limited(), admission_timeout_ms=5_000)


@pytest.mark.parametrize("taker", ["", *TAKERS])
def test_a_run_waits_for_its_place_as_long_as_its_workflow_says(taker: str) -> None:
    world, holder = world_of(PATIENT)
    first, waits = world.start("w", input=A), world.start("w", input=A)
    world.take(holder)
    world.accept(holder, order_of(holder, first))
    told = admission(world.state, world.state.runs[waits])
    assert told is not None
    assert (told.until - told.since, told.then) == (5_000, "given up")
    world.pass_time(4_999)
    if taker:
        world.take_over(taker)
    assert status(world, waits) == "live"
    world.pass_time(1)
    done = world.done(waits)
    assert done is not None
    assert done.status == wire.TIMED_OUT
    assert done.errors is not None
    assert done.errors[0].message == "the run waited 5.0 s for its place (schedule timeout): waiting: group a has 1 of 1"
    assert status(world, first) == "live", "it has its place"
    world.check_followers()


def test_a_delayed_run_waits_from_when_its_time_has_come() -> None:
    world, holder = world_of(PATIENT)
    delayed = world.start("w", input=A, delay_ms=60_000)
    world.pass_time(59_000)
    first = world.start("w", input=A)
    world.take(holder)
    world.accept(holder, order_of(holder, first))
    world.pass_time(1_000)
    world.pass_time(4_000)
    assert status(world, delayed) == "live"
    world.finish(holder, order_of(holder, first))
    assert running(world, holder) == [delayed]
    world.pass_time(5_000)
    assert status(world, delayed) == "live"


# ---- scopes ---------------------------------------------------------------------------------------------------------------


def refusal(world: World, *workflows: WorkflowDefinition, worker: str = "w2") -> str:
    world.join(worker, list(workflows), 1)
    told = world.notices[-1][1]
    assert isinstance(told, wire.Registered)
    return told.refused


def test_limits_of_one_scope_have_one_strategy() -> None:
    one, other = limited(name="one", scope="s"), limited(CANCEL_NEWEST, name="other", scope="s")
    world, _ = world_of(one)
    said = refusal(world, other)
    for part in ("scope 's'", "workflow 'one' has GROUP_ROUND_ROBIN", "workflow 'other' has CANCEL_NEWEST", "use one strategy"):
        assert part in said
    assert "other" not in world.state.flows
    assert refusal(world, one, other) != "", "nor on one worker"
    steps = [StepDefinition(name, concurrency=each.concurrency) for name, each in (("a", one), ("b", other))]
    assert "step 'b' of workflow 'w' has CANCEL_NEWEST" in refusal(World(), WorkflowDefinition("w", steps))


def test_no_scope_is_of_runs_and_of_attempts() -> None:
    """Two runs, each with a place that a step of the other one waits for, would wait for ever."""
    of_runs = limited(name="runs", scope="s")
    of_steps = WorkflowDefinition("steps", [StepDefinition("a", concurrency=of_runs.concurrency)])
    of_both = WorkflowDefinition("both", [StepDefinition("b", concurrency=of_runs.concurrency)], concurrency=of_runs.concurrency)
    for known, comes in ((of_runs, of_steps), (of_steps, of_runs)):
        world, _ = world_of(known)
        said = refusal(world, comes)
        for part in ("scope 's' is of runs (workflow 'runs') and of attempts (step 'a' of workflow 'steps')", "Use one scope for"):
            assert part in said
        assert comes.name not in world.state.flows
        assert refusal(world, of_runs, of_steps) != "", "nor on one worker"
    assert "(step 'b' of workflow 'both')" in refusal(World(), of_both)


def test_a_scope_gets_another_strategy_when_nobody_is_left_that_has_the_old_one() -> None:
    one, other = limited(name="one", scope="s"), limited(name="other", scope="s")
    changed = limited(CANCEL_NEWEST, name="one", scope="s"), limited(CANCEL_NEWEST, name="other", scope="s")
    world, holder = world_of(one, other)
    assert refusal(world, changed[0]) != ""
    assert refusal(world, *changed) == "", "the newest definitions count, and they agree"
    world, holder = world_of(one)
    assert refusal(world, changed[0]) == "", "a workflow may change"
    world, holder = world_of(one)
    world.kill(holder)
    assert refusal(world, changed[1]) == ""
