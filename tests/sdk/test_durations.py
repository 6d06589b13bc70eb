"""Durations as users write them."""

from __future__ import annotations

from datetime import timedelta

import pytest

from mesh_sdk.durations import duration_ms


@pytest.mark.parametrize(
    ("value", "milliseconds"),
    [
        ("30s", 30_000),
        ("5m", 300_000),
        ("1h30m", 5_400_000),
        ("250ms", 250),
        ("1.5s", 1_500),
        ("2d", 172_800_000),
        (timedelta(minutes=2), 120_000),
        (90, 90_000),
        (0.25, 250),
        (0.0001, 1),
    ],
)
def test_what_is_a_duration(value: object, milliseconds: int):
    assert duration_ms(value, "timeout") == milliseconds


@pytest.mark.parametrize("value", ["", "5", "5 minutes", "m5", "-5s", "5s!", True, None, [], float("nan"), float("inf"), "1e3s"])
def test_what_is_none_is_named(value: object):
    with pytest.raises(ValueError, match="timeout of step 'a'") as refused:
        duration_ms(value, "timeout of step 'a'")
    assert repr(value) in str(refused.value)


@pytest.mark.parametrize("value", [0, "0s", -1, timedelta(seconds=-3), "100000d"])
def test_what_is_out_of_range(value: object):
    with pytest.raises(ValueError):
        duration_ms(value, "timeout")


def test_zero_where_it_makes_sense():
    assert duration_ms(0, "delay", zero=True) == 0
