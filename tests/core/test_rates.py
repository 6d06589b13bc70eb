"""Rates: how much passes in what time, in which order, and that it stays so whoever leads."""

from __future__ import annotations

from collections import Counter

import pytest

from mesh.core.parked import POLL_MS
from mesh.core.rates import KEYS_SWEPT, Rates
from mesh.core.records import StepReleased
from mesh.core.waiting import waiting_for
from mesh_sdk.protocol import records as wire
from mesh_sdk.protocol.definitions import RateDefinition, StepDefinition, WorkflowDefinition
from tests.core import world as worlds
from tests.core.holder import Holder
from tests.core.lives import TAKERS
from tests.core.world import T0, World

SECOND = 1_000


def rated(*rates: RateDefinition, name: str = "w") -> WorkflowDefinition:
    return WorkflowDefinition(name, [StepDefinition("a", retries=3, rate_limits=list(rates))])


def world_of(*workflows: WorkflowDefinition, slots: int = 1_000) -> tuple[World, Holder]:
    world = World(finished_max=10_000)
    return world, world.join("w1", list(workflows), slots)


def released(world: World) -> list[tuple[int, str]]:
    return [(at - T0, fact.run) for at, fact in world.journal if isinstance(fact, StepReleased)]


def pass_until(world: World, end: int) -> None:
    """Let time pass as the shell does: to each time that the core asks for."""
    for _ in range(20_000):
        at = world.core.next_at()
        if at is None or at >= T0 + end:
            break
        world.now = max(world.now, at)
        world.pass_time(0)
    world.now = max(world.now, T0 + end)
    world.pass_time(0)


# ---- figures ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limit", "per", "units"), [(100, SECOND, 1), (100, SECOND, 7), (60, 60 * SECOND, 1), (1, SECOND, 1), (3, SECOND, 3)]
)
def test_never_more_passes_than_limit_and_burst(limit: int, per: int, units: int) -> None:
    rates = Rates()
    passed: list[int] = []
    for now in range(1, 20_000):
        if not rates.wait("r", limit, per, units, now):
            rates.take("r", limit, per, units, now)
            passed.append(now)
    burst = max(limit // 5, units, 1)
    for first, began in enumerate(passed):
        for last in range(first, len(passed), max(1, len(passed) // 20)):
            assert (last - first + 1) * units <= limit * (passed[last] - began) / per + burst
    assert len(passed) * units >= limit * (passed[-1] - 1) / per, "all of it may be used"


def test_the_time_to_wait_is_the_time_that_it_takes() -> None:
    rates = Rates()
    for now in (1_000, 1_003, 1_017):
        while not rates.wait("r", 7, SECOND, 2, now):
            rates.take("r", 7, SECOND, 2, now)
        wait = rates.wait("r", 7, SECOND, 2, now)
        assert rates.wait("r", 7, SECOND, 2, now + wait) == 0
        assert rates.wait("r", 7, SECOND, 2, now + wait - 1) > 0


def test_keys_whose_buckets_are_empty_are_forgotten() -> None:
    rates = Rates()
    for now in range(5 * KEYS_SWEPT):
        rates.take(f"{now}", 10, 1, 1, now)
    assert len(rates.empty_at) <= KEYS_SWEPT


@pytest.mark.timeout(60)
@pytest.mark.parametrize("taker", ["", *TAKERS])
def test_a_hundred_a_second(taker: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worlds, "check", lambda state: None)  # it looks at all that waits
    world, _ = world_of(rated(RateDefinition("r", 100, SECOND)))
    for _ in range(1_300):
        world.start("w")
    for second in range(1, 11):
        pass_until(world, second * SECOND)
        if taker:
            world.take_over(taker)
            world.resend()
    times = [at for at, _ in released(world)]
    assert 990 <= len([at for at in times if at < 10 * SECOND]) <= 1_110
    seconds = Counter(at // SECOND for at in times if at < 10 * SECOND)
    assert max(seconds.values()) <= 130
    assert [run for _, run in released(world)] == sorted(run for _, run in released(world)), "in the order of their starts"
    world.check_followers()


@pytest.mark.timeout(60)
@pytest.mark.parametrize("taker", TAKERS)
@pytest.mark.parametrize("dead_ms", [600, 1_100])
def test_what_a_dead_leader_let_nobody_have_is_made_up_for(taker: str, dead_ms: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many units as without its death, and never many at once."""
    monkeypatch.setattr(worlds, "check", lambda state: None)  # it looks at all that waits
    world, _ = world_of(rated(RateDefinition("r", 100, SECOND)), slots=2_000)
    for _ in range(1_300):
        world.start("w")
    pass_until(world, 3_300)
    world.now += dead_ms
    world.take_over(taker)
    world.resend()
    pass_until(world, 5_000)
    world.check_followers()
    assert world.state.limits.rates.owed
    world.take_over(taker)
    world.resend()
    pass_until(world, 11_500)
    times = [at for at, _ in released(world)]
    passed, last = (len([at for at in times if begin <= at < begin + length]) for begin, length in ((0, 10_000), (10_500, 1_000)))
    assert 1_010 <= passed <= 1_020, "the burst is in it"
    assert last <= 101, "when all is made up for, the limit is the limit"
    assert max(len([at for at in times if begin <= at < begin + SECOND]) for begin in times) <= 121
    world.check_followers()
    assert not world.state.limits.rates.owed


@pytest.mark.parametrize(("idle_ms", "dead_ms"), [(1_000, 600), (0, 3_000)])
def test_nothing_is_made_up_for_that_nobody_wanted(idle_ms: int, dead_ms: int) -> None:
    """The bucket was empty when the leader died, or was so long before somebody led."""
    world, _ = world_of(rated(RateDefinition("r", 100, SECOND)))
    for _ in range(40):
        world.start("w")
    pass_until(world, 200 + idle_ms)
    world.start("w")
    pass_until(world, 400 + idle_ms)
    world.now += dead_ms
    world.take_over()
    assert not world.state.limits.rates.owed
    before = len(released(world))
    for _ in range(40):
        world.start("w")
    assert len(released(world)) == before + 20, "a burst, as always"


@pytest.mark.parametrize("late_ms", [120, 190])
def test_a_busy_leader_makes_up_within_bounds(late_ms: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """It comes too late, so that much might pass at once."""
    monkeypatch.setattr(worlds, "check", lambda state: None)  # it looks at all that waits
    world, _ = world_of(rated(RateDefinition("r", 100, SECOND)), slots=2_000)
    for _ in range(1_300):
        world.start("w")
    pass_until(world, 3_300)
    world.now += 700
    world.take_over()
    pass_until(world, 4_800)
    world.now += late_ms
    pass_until(world, 10_500)
    times = [at for at, _ in released(world)]
    assert 120 < max(len([at for at in times if begin <= at < begin + SECOND]) for begin in times) <= 130
    assert 1_010 <= len([at for at in times if at < 10 * SECOND]) <= 1_020, "what it was late with is made up for as well"
    world.check_followers()


def test_a_bucket_that_was_empty_meanwhile_is_owed_nothing() -> None:
    world, _ = world_of(rated(RateDefinition("r", 100, SECOND)))
    for _ in range(25):
        world.start("w")
    world.now += 600
    world.take_over()
    assert world.state.limits.rates.owed
    pass_until(world, 2_000)
    for _ in range(60):
        world.start("w")
    began = world.now
    pass_until(world, began - T0 + 390)
    assert len([at for at, _ in released(world) if at >= began - T0]) <= 20 + 40
    assert not world.state.limits.rates.owed
    world.check_followers()


# ---- what counts --------------------------------------------------------------------------------------------------------


def test_keys_and_figures_come_from_the_input() -> None:
    rate = RateDefinition("input.user", "input.limit", SECOND, "input.units")
    world, _ = world_of(rated(rate))
    for _ in range(5):
        for user, units in (("a", 1), ("b", 5)):
            world.start("w", input=b'{"user":"%s","limit":10,"units":%d}' % (user.encode(), units))
    pass_until(world, 990)
    assert len(released(world)) == 5 + 2, "a: a burst of 2, then 10 a second; b: one burst of 5, then one in half a second"
    world.check_followers()


@pytest.mark.parametrize(
    ("input", "words"),
    [
        (b"{}", "has no 'user'"),
        (b'{"user":"a","limit":10,"units":11}', "it never could"),
        (b'{"user":"a","limit":"x","units":1}', "whole number"),
        (b'{"user":"a","limit":0,"units":0}', "whole number"),
        (b'{"user":"a","limit":true,"units":1}', "whole number"),
    ],
)
def test_a_rate_that_can_not_be_fails_the_run(input: bytes, words: str) -> None:
    world, _ = world_of(rated(RateDefinition("input.user", "input.limit", SECOND, "input.units")))
    run = world.start("w", input=input)
    done = world.done(run)
    assert done is not None
    assert done.status == wire.FAILED
    assert words in done.errors[0].message  # type: ignore[index]


def test_all_rates_of_a_step_must_let_it_pass() -> None:
    world, _ = world_of(
        rated(RateDefinition("r", 10, SECOND), RateDefinition("s", 1, SECOND)), rated(RateDefinition("r", 10, SECOND), name="x")
    )
    for _ in range(3):
        world.start("w")
    other = world.start("x")
    assert other in {run for _, run in released(world)}, "what waits for s alone takes nothing of r"
    pass_until(world, 2_001)
    assert [at for at, run in released(world) if run != other] == [0, 1_000, 2_000]


def test_who_waits_for_another_rate_too_holds_nobody_up() -> None:
    slow, fast = RateDefinition("slow", 1, 60 * SECOND), RateDefinition("fast", 10, SECOND)
    world, _ = world_of(rated(fast, slow), rated(fast, name="x"))
    for _ in range(4):
        world.start("x")
    for _ in range(3):
        world.start("w")
    for _ in range(4):
        world.start("x")
    pass_until(world, 1_500)
    begun = Counter(world.state.runs[run].flow.name for _, run in released(world))
    assert begun == {"x": 8, "w": 1}, "two wait a minute for the slow one, and for that one alone"


def test_workflows_that_name_a_key_share_its_rate() -> None:
    world, _ = world_of(rated(RateDefinition("r", 1, SECOND)), rated(RateDefinition("r", 1, SECOND), name="x"))
    world.start("w")
    world.start("x")
    assert len(released(world)) == 1


def test_each_attempt_counts() -> None:
    world, holder = world_of(rated(RateDefinition("r", 1, SECOND)))
    world.start("w")
    (order,) = world.take(holder)
    world.fail(holder, order)
    assert len(released(world)) == 1
    pass_until(world, 1_001)
    assert len(released(world)) == 2


# ---- who waits ----------------------------------------------------------------------------------------------------------


def test_a_parked_step_that_is_cancelled_does_not_stop_the_others() -> None:
    world, _ = world_of(rated(RateDefinition("r", 1, SECOND)))
    runs = [world.start("w") for _ in range(4)]
    assert waiting_for(world.state, world.state.runs[runs[1]].steps[0]).cause == "rate limit r (1 in 1 s) is used up"
    world.cancel(runs[1])
    pass_until(world, 1_001)
    world.cancel(runs[3])
    pass_until(world, 5_000)
    assert [run for _, run in released(world)] == [runs[0], runs[2]]
    assert not world.state.limits.lines
    assert world.core.next_at() is None


def test_many_units_are_not_passed_over_by_few() -> None:
    world, _ = world_of(rated(RateDefinition("r", 10, SECOND, "input.n")))
    for n in (2, 10, 1, 1, 1, 1):
        world.start("w", input=b'{"n":%d}' % n)
    for taker in TAKERS:
        world.take_over(taker)
    assert len(released(world)) == 1, "those of one unit wait behind that of ten"
    pass_until(world, 1_500)
    assert [run for _, run in released(world)] == sorted(run for _, run in released(world))


def test_the_urgent_pass_for_no_longer_than_the_stated_time() -> None:
    world, _ = world_of(rated(RateDefinition("r", 1, SECOND)))
    world.start("w")
    low = world.start("w", priority=1)
    high = [world.start("w", priority=2)]
    for second in range(1, 20):
        pass_until(world, second * SECOND)
        high.append(world.start("w", priority=2))
    begun = [run for _, run in released(world)]
    assert begun[1] == high[0]
    assert low in begun, "one level is worth ten seconds"
    assert 9 <= begun.index(low) <= 12


@pytest.mark.parametrize("taker", ["", *TAKERS])
def test_steps_that_find_no_slot_in_their_time_go_when_there_is_one(taker: str) -> None:
    """The leader asks only now and then meanwhile, and lets no more wait for a slot at a time than might pass."""
    world, holder = world_of(rated(RateDefinition("r", 100, SECOND)), slots=1)
    for _ in range(200):
        world.start("w")
    world.take(holder)
    for order in list(holder.running.values()):
        world.accept(holder, order)
    for _ in range(19):
        order = next(iter(holder.running.values()))
        world.finish(holder, order)
        world.take(holder)
    times = 0
    until = world.now + 10 * SECOND
    order = next(iter(holder.running.values()))
    world.finish(holder, order)
    if taker:
        world.take_over(taker)
        world.resend()
    while (at := world.core.next_at()) is not None and at < until:
        world.now = max(at, world.now)
        world.pass_time(0)
        times += 1
        assert times < 200
    assert times <= 10 * SECOND // POLL_MS + 5
    for _ in range(30):
        world.take(holder)
        for order in list(holder.running.values()):
            world.finish(holder, order)
    assert len(released(world)) >= 40
    pass_until(world, world.now - T0 + 3 * SECOND)
    world.check_followers()


@pytest.mark.parametrize("sticky", ["SOFT", "HARD"])
def test_a_parked_step_is_found_again_when_its_run_is_bound_anew(sticky: str) -> None:
    definition = WorkflowDefinition(
        "w",
        [StepDefinition("a"), StepDefinition("b", [0], rate_limits=[RateDefinition("r", 1, SECOND)])],
        sticky=sticky,
        sticky_timeout_ms=100,
    )
    world, holder = world_of(definition, slots=5)
    runs = [world.start("w") for _ in range(3)]
    world.take(holder)
    for order in list(holder.running.values()):
        world.finish(holder, order)
    other = world.join("w2", [definition], 5)
    pass_until(world, 500)
    if sticky == "SOFT":
        world.kill(holder)
    world.take_over("standby")
    pass_until(world, 4_000)
    for each in (holder, other):
        world.take(each)
        for order in list(each.running.values()):
            world.finish(each, order)
    assert all(world.state.find(run).status == "succeeded" for run in runs)  # type: ignore[union-attr]
