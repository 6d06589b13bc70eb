"""Steps that need several rates: they get them among those that need one, and nobody waits for ever, nor for what somebody else keeps."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

from mesh.core import records as facts
from mesh.core.core import Core
from mesh.core.limits import Limits
from mesh.core.records import StepReleased
from mesh_sdk.protocol.definitions import RateDefinition, StepDefinition, WorkflowDefinition
from tests.core import world as worlds
from tests.core.lives import TAKERS
from tests.core.world import T0, World

SECOND = 1_000


def rated(name: str, *rates: RateDefinition, **options: object) -> WorkflowDefinition:
    return WorkflowDefinition(name, [StepDefinition("a", rate_limits=list(rates), **options)])  # type: ignore[arg-type]


def rate(key: str, limit: int | str = 1, per: int = SECOND, units: int | str = 1) -> RateDefinition:
    return RateDefinition(key, limit, per, units)


def world_of(*workflows: WorkflowDefinition, slots: int = 1_000) -> World:
    world = World(finished_max=10_000)
    world.join("w1", list(workflows), slots)
    return world


def released(world: World) -> list[tuple[int, str]]:
    runs = {fact.run: fact.workflow for _, fact in world.journal if isinstance(fact, facts.RunStarted)}
    return [(at - T0, runs[fact.run]) for at, fact in world.journal if isinstance(fact, StepReleased)]


def begun_at(world: World, workflow: str) -> list[int]:
    return [at for at, name in released(world) if name == workflow]


def pass_until(world: World, end: int) -> None:
    """Let time pass as the shell does: to each time that the core asks for."""
    while (at := world.core.next_at()) is not None and at < T0 + end:
        world.now = max(world.now, at)
        world.pass_time(0)
    world.now = max(world.now, T0 + end)
    world.pass_time(0)


@pytest.fixture(autouse=True)
def _no_looking(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worlds, "check", lambda state: None)  # it looks at all that waits


A, B = rate("A"), rate("B")


@pytest.mark.parametrize("taker", ["", *TAKERS])
@pytest.mark.parametrize("apart", [0, 1, 250, 500, 999])
def test_a_step_that_needs_two_rates_gets_both(apart: int, taker: str) -> None:
    """Each rate is used up, at another moment, by those that need it alone; so both are never free together."""
    world = world_of(rated("a", A), rated("b", B), rated("both", A, B))
    world.start("a")
    world.start("both")
    pass_until(world, apart)
    for _ in range(60):
        world.start("b")
        world.start("a")
    for second in range(8):
        if taker and second == 1:
            world.take_over(taker)
        pass_until(world, apart + second * 700)
    (at,) = begun_at(world, "both")
    assert at <= 3 * SECOND
    for name in "ab":
        times = sorted(begun_at(world, name) + begun_at(world, "both"))
        assert all(later - earlier >= SECOND for earlier, later in pairwise(times)), "a rate was exceeded"
    assert len(begun_at(world, "a")) >= 4
    world.check_followers()


def test_many_that_need_both_cost_each_rate_little() -> None:
    world = world_of(rated("a", rate("A", 10)), rated("b", rate("B", 7)), rated("both", rate("A", 10), rate("B", 7)))
    for _ in range(5):
        for name in ("a", "b", "both"):
            world.start(name)
    for _ in range(150):
        world.start("a")
        world.start("b")
    pass_until(world, 10 * SECOND)
    counts = {name: len(begun_at(world, name)) for name in ("a", "b", "both")}
    assert counts["both"] == 5
    assert counts["a"] + 5 >= 95, "nothing of a rate is lost for long"
    assert counts["b"] + 5 >= 65


@pytest.mark.parametrize("seed", range(30))
def test_no_two_wait_for_what_the_other_one_keeps(seed: int) -> None:
    """Though each step says for itself how fast a rate is, so that one that is slow for this step is fast for the next one."""
    rng = random.Random(seed)
    rates = [rate(key, f"input.{key}", SECOND, f"input.n{key}") for key in "xyz"]
    world = world_of(*(rated(f"w{number}", *rng.sample(rates, rng.randint(1, 3))) for number in range(6)))
    count = 60
    for _ in range(count):
        limits = {key: rng.choice([1, 2, 5, 30]) for key in "xyz"}
        units = {f"n{key}": rng.randint(0, min(2, limit)) for key, limit in limits.items()}
        text = ",".join(f'"{name}":{value}' for name, value in (limits | units).items())
        run = world.start(f"w{rng.randrange(6)}", input=b"{%s}" % text.encode(), priority=rng.choice([0, 1, 9]))
        if rng.random() < 0.1:
            world.cancel(run)
            count -= run not in world.state.runs
        pass_until(world, world.now - T0 + rng.choice([0, 0, 10, 400]))
        if rng.random() < 0.05:
            world.take_over(rng.choice(TAKERS))
    pass_until(world, 300 * SECOND)
    assert not any(step.state == "ready" for run in world.state.runs.values() for step in run.steps)
    assert not world.state.limits.lines, "nothing is kept for nobody"


def test_what_was_kept_for_a_run_that_is_cancelled_passes_with_others() -> None:
    slow, fast = rate("slow", 1, 3_600 * SECOND), rate("fast", 1, 10 * SECOND)
    world = world_of(rated("s", slow), rated("f", fast), rated("both", fast, slow))
    world.start("f")
    both = world.start("both")
    world.start("s")
    assert world.state.limits.lines["slow"].units == 1
    assert not begun_at(world, "s"), "it is kept for the older one"
    pass_until(world, 5 * SECOND)
    world.cancel(both)
    world.start("f")
    pass_until(world, 5 * SECOND + 10)
    assert len(begun_at(world, "s")) == 1, "and not an hour later"


def test_what_is_kept_is_not_kept_from_others_while_there_is_no_slot() -> None:
    """It is for somebody who waits for another rate, not for a slot."""
    world = world_of(rated("a", A), rated("b", B), rated("both", A, B, slots=5), slots=2)
    other = WorkflowDefinition("other", [StepDefinition("a")])
    holder = world.join("w2", [rated("both", A, B, slots=5), other], 5)
    world.start("a")
    world.start("both")
    for _ in range(5):
        world.start("other")  # every slot of the only worker that has five
    for order in world.take(holder):
        world.accept(holder, order)
    for number in range(1, 12):
        world.start("b")
        for order in world.take(world.workers["w1"]):
            world.finish(world.workers["w1"], order)
        pass_until(world, number * SECOND)
    assert not begun_at(world, "both")
    assert len(begun_at(world, "b")) >= 9


@pytest.mark.parametrize("how", ["cancelled", "timed out"])
def test_nobody_else_has_to_happen_by_when_what_was_kept_is_free(how: str) -> None:
    hour = 3_600 * SECOND
    slow, fast = rate("slow", 1, 2 * hour), rate("fast", 1, hour)
    timeout = 60 * SECOND if how == "timed out" else 0
    world = world_of(rated("s", slow), rated("f", fast), rated("both", fast, slow, schedule_timeout_ms=timeout))
    world.start("f")
    both = world.start("both")
    world.start("s")
    assert not begun_at(world, "s"), "it is kept for the older one"
    if how == "cancelled":
        pass_until(world, 60 * SECOND)
        world.cancel(both)
    pass_until(world, 61 * SECOND)
    assert begun_at(world, "s") == [60 * SECOND + 1]


@pytest.mark.parametrize("how", ["cancelled", "others are more urgent", "others are more urgent and many"])
def test_whoever_is_first_in_a_line_now_is_asked_about(how: str) -> None:
    """And not when its units would pass that was first before: it needed more of them."""
    world = world_of(rated("w", rate("r", 1_000, 86_400 * SECOND, "input.n")), slots=100)
    world.start("w", input=b'{"n":100}')
    head = world.start("w", input=b'{"n":1000}')
    if how == "cancelled":
        world.start("w", input=b'{"n":1}')
        assert len(begun_at(world, "w")) == 1
        world.cancel(head)
    for _ in range({"cancelled": 0, "others are more urgent": 1}.get(how, 99)):
        world.start("w", input=b'{"n":1}', priority=9)
    pass_until(world, SECOND)
    assert len(begun_at(world, "w")) == (100 if how.endswith("many") else 2)


def test_many_who_come_later_are_not_asked_about() -> None:
    world = world_of(rated("w", rate("r", 1, 3_600 * SECOND)))
    asked = []
    next_at = world.state.limits.next_at
    world.state.limits.next_at = lambda key, now: asked.append(key) or next_at(key, now)  # type: ignore[method-assign, func-returns-value]
    for _ in range(200):
        world.start("w")
    assert len(asked) <= 2


def test_no_units_pass_at_once() -> None:
    """Also behind others, and when the bucket is as full as it can be."""
    hour = 3_600 * SECOND
    world = world_of(
        rated("w", rate("A", 1, hour, "input.n")), rated("one", rate("A", 1, hour)), rated("w10", rate("B", 10, hour, "input.n")),
    )  # fmt: skip
    world.start("one")
    for _ in range(3):
        world.start("w", input=b'{"n":0}')
    assert len(begun_at(world, "w")) == 3
    world.start("one")
    for units in (10, 0):
        world.start("w10", input=b'{"n":%d}' % units)
    assert len(begun_at(world, "w10")) == 2
    world.start("w", input=b'{"n":0}')
    assert len(begun_at(world, "w")) == 4
    world.check_followers()
    asked = 0
    while (at := world.core.next_at()) is not None and at < T0 + 7_200 * SECOND and asked < 20:
        world.now = max(at, world.now)
        world.pass_time(0)
        asked += 1
    assert asked <= 4, "the leader asks when a unit may pass, and not all the time"
    assert len(begun_at(world, "w")) == 4
    assert len(begun_at(world, "one")) == 2
    assert not world.state.limits.lines


@pytest.mark.parametrize("what", ["joins", *TAKERS])
@pytest.mark.parametrize("mixed", [False, True])
def test_many_are_held_back_together(what: str, mixed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many wait for one rate, few of them are looked at one by one."""
    workflows = [rated("w", A), rated("other")]
    if mixed:
        workflows.append(WorkflowDefinition("large", [StepDefinition("a", slots=2)]))
    world = world_of(*workflows, slots=0 if what == "joins" else 10)
    for _ in range(2_000):
        world.start("w")
    plain = world.start("other")
    if mixed:
        world.start("large")
    asked = 0
    holds_back = Limits.holds_back

    def counted(self: Limits, *args: object) -> object:
        nonlocal asked
        asked += 1
        return holds_back(self, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(Limits, "holds_back", counted)
    if what == "joins":
        world.join("w2", workflows, 10)
    else:
        world.take_over(what)
    assert asked <= 200
    assert plain in {fact.run for _, fact in world.journal if isinstance(fact, StepReleased)}
    assert isinstance(world.core, Core)
    pass_until(world, 3 * SECOND + 1)
    assert begun_at(world, "w") == [0, 1_000, 2_000, 3_000]
    world.check_followers()
