"""Rates while leaders come and go: whatever the figures, nothing passes early, nothing that was waited for is lost."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction

import pytest

from mesh.core.rates import BURST_PART, CATCH_UP, HELD_MS_MAX, SCALE, Rates

SECOND = 1_000
HOUR = 3_600 * SECOND
START = 1_000
PERS = (1, 7, 100, SECOND, 1_300, 10 * SECOND, 60 * SECOND, HOUR, 24 * HOUR)
SEEDS = range(250)


@dataclass(frozen=True)
class Passed:
    """Units that passed."""

    at: int
    units: int
    owed: int
    """Nanoseconds that the rate was owed before."""


@dataclass
class Demand:
    """Steps that wait for a rate all the time, and leaders that die."""

    limit: int
    per: int
    sizes: Callable[[], Iterator[int]]
    """The units of each step in turn."""
    largest: int
    deaths: list[tuple[int, int]] = field(default_factory=list)
    """(when, for how many milliseconds nobody leads)."""
    late: Callable[[], int] = lambda: 0
    """By how many milliseconds the leader comes late."""

    @property
    def burst(self) -> int:
        return max(self.limit // BURST_PART, self.largest, 1)

    def served(self, count: int, until: int | None = None) -> list[Passed]:
        """So many steps, or those up to a time."""
        rates, passed, now = Rates(), list[Passed](), START
        sizes, deaths = self.sizes(), iter([*self.deaths, (1 << 62, 0)])
        size, (death, dead) = next(sizes), next(deaths)
        while len(passed) < count and (until is None or now < until):
            wait = rates.wait("r", self.limit, self.per, size, now)
            if wait:
                now += wait + self.late()
                if now > death:
                    now = death + dead
                    rates.hold({"r"}, dead, now)
                    death, dead = next(deaths)
                    death = max(death, now)
                continue
            passed.append(Passed(now, size, dict(rates.image(now)[1]).get("r", 0)))
            rates.take("r", self.limit, self.per, size, now)
            size = next(sizes)
        return passed


def demand(seed: int, *, mixed: bool) -> Demand:
    """Some rate, some units, and leaders that die every few of them."""
    dice = random.Random(seed)
    limit = dice.choice((1, 2, 3, 5, 9, 10, 11, 100, 999, 10**6)) if dice.random() < 0.7 else dice.randint(1, 2_000)
    largest = dice.choice((1, limit, max(1, limit // BURST_PART), max(1, limit // 10), dice.randint(1, limit)))
    per = dice.choice(PERS)
    chosen = [dice.randint(1, largest) if mixed else largest for _ in range(7)]
    between = max(1, per * largest * dice.choice((1, 3, 20)) // limit)
    deaths, now = list[tuple[int, int]](), START
    for _ in range(60):
        now += dice.randint(0, between)
        deaths.append((now, dice.randint(1, dice.choice((5, 100, HELD_MS_MAX)))))
    lateness = dice.choice((0, 0, 3, 200, between))
    return Demand(limit, per, lambda: itertools.cycle(chosen), largest, deaths, lambda: dice.randint(0, lateness))


@pytest.mark.parametrize("mixed", [False, True])
def test_no_window_has_more_than_it_may_have(mixed: bool) -> None:
    """`limit × T ÷ per + burst`, and what is owed as it begins: with nothing owed, however many deaths are in it, that is nothing."""
    made_up = 0
    for seed in SEEDS:
        case = demand(seed, mixed=mixed)
        so_far, least = 0, None
        for each in case.served(300):
            began = (so_far * case.per - case.limit * each.at) * SCALE + case.limit * each.owed
            least = began if least is None else min(least, began)
            so_far += each.units
            made_up += each.owed > 0
            assert (so_far * case.per - case.limit * each.at) * SCALE <= least + case.burst * case.per * SCALE, (seed, case, each)
    assert made_up > 5_000


def test_what_is_made_up_for_comes_a_fifth_faster_with_half_the_burst() -> None:
    (times, by) = CATCH_UP
    for seed in SEEDS:
        case = demand(seed, mixed=False)
        so_far, least = 0, None
        room = max(case.burst // 2, case.largest)
        for each in case.served(300):
            began = by * so_far * case.per - times * case.limit * each.at
            if each.owed:
                least = began if least is None else min(least, began)
            so_far += each.units
            if least is not None:
                assert by * so_far * case.per - times * case.limit * each.at <= least + by * room * case.per, (seed, case, each)


@pytest.mark.parametrize("mixed", [False, True])
def test_nothing_passes_before_its_time_without_a_death(mixed: bool) -> None:
    for seed in SEEDS:
        case = demand(seed, mixed=mixed)
        now, empty = Fraction(START), Fraction(START)
        for each in case.served(300):
            took, burst = (Fraction(units * case.per, case.limit) for units in (each.units, max(case.limit // BURST_PART, each.units, 1)))
            now = max(now, empty + took - burst)
            empty = max(empty, now) + took
            assert each.at >= now, (seed, case, each)


def test_what_a_death_took_is_given_back() -> None:
    """Each step that comes when it is made up for comes when it would have come."""
    for seed in range(150):
        dice = random.Random(seed)
        per, limit = dice.choice((SECOND, 10 * SECOND, 60 * SECOND, HOUR)), dice.choice((1, 2, 3, 5, 10, 11, 100, dice.randint(1, 1_000)))
        units = dice.choice((1, limit, max(1, limit // 10), dice.randint(1, limit)))
        each, dead = per * units // limit + 1, dice.randint(1, HELD_MS_MAX)
        death = START + dice.randint(0, 3 * each)
        case = Demand(limit, per, lambda units=units: itertools.repeat(units), units)  # type: ignore[misc]
        made_up = death + dead + 6 * dead + 2 * each  # five times as long, and what rounding to milliseconds takes
        without = case.served(100_000, made_up + 4 * each)
        case.deaths.append((death, dead))
        after = [(is_, was) for is_, was in zip(case.served(len(without)), without, strict=True) if is_.at >= made_up]
        assert after, (seed, case)
        for is_, was in after:
            assert is_.at <= was.at + 1, (seed, case, dead)
            assert not is_.owed, (seed, case, dead)


def test_one_an_hour_is_one_an_hour_with_a_death_in_each() -> None:
    """A death of 100 ms is made up for by 100 ms, not by the sixth of an hour that the faster pace would give."""
    deaths = [(START + HOUR // 2 + hour * HOUR, 100) for hour in range(8)]
    case = Demand(1, HOUR, lambda: itertools.repeat(1), 1, deaths)
    assert [each.at for each in case.served(9)] == [START + hour * HOUR for hour in range(9)]
