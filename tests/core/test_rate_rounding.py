"""Rates whose units take no whole number of nanoseconds: as many pass as may, never more."""

from __future__ import annotations

import itertools

import pytest

from mesh.core.rates import Rates

SECOND = 1_000

EXTREME = [
    (1_500_000, 1, 10_000),
    (600_000, 1, 1_000),
    (3_000_000, 10, 100_000),
    (700_000_000, SECOND, 10_000_000),
    (1_000_000_000, SECOND, 1_000_000),
    (999_999_937, 7 * SECOND, 1_000_003),
]
"""Units that take a nanosecond or less, or not a whole number of them."""


@pytest.mark.parametrize(("limit", "per", "units"), [*EXTREME, (7, SECOND, 2), (3, 10 * SECOND, 3), (10**9 - 63, 366 * 86_400_000, 10**8)])
@pytest.mark.parametrize("mixed", [False, True])
def test_rounding_lets_nothing_pass_that_is_too_much(limit: int, per: int, units: int, mixed: bool) -> None:
    rates = Rates()
    passed = [(0, 0)]
    """(when, units so far)."""
    sizes = itertools.cycle((units, 1, units // 3 + 1) if mixed else (units,))
    now, size = 1, next(sizes)
    while len(passed) < 500:
        if wait := rates.wait("r", limit, per, size, now):
            now += wait
            continue
        rates.take("r", limit, per, size, now)
        passed.append((now, passed[-1][1] + size))
        size = next(sizes)
    burst = max(limit // 5, units, 1)
    for first, (_, before) in enumerate(passed[:-1]):
        began = passed[first + 1][0]
        for at, so_far in passed[first + 1 :]:
            assert (so_far - before) * per <= limit * (at - began) + burst * per


@pytest.mark.parametrize(("limit", "per", "units"), EXTREME[2:])
def test_nor_does_it_hold_back_what_may_pass(limit: int, per: int, units: int) -> None:
    rates, passed = Rates(), 0
    for now in range(1, 1_001):
        while not rates.wait("r", limit, per, units, now):
            rates.take("r", limit, per, units, now)
            passed += units
    assert passed + units > limit * 999 // per
