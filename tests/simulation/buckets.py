"""Holds the mesh to its rates: units that pass, in a leaking bucket for each key.

Rule: a bucket that never holds more than a burst is the same as no window of time in which more than a burst and the time's own
units pass; times are the journal's. A new leader may make up for what its followers could not pass while nobody led: by a fifth
faster, until as much has passed. Both is looked at: the pace always, with a bucket that is that much faster and larger; and what passes in
all, with one that leaks as fast as the rate and has that much more room.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable

from mesh.core import records as facts
from tests.simulation.limits import RATES, Rate, has_keys, step_name

BURST_PART = 5
"""A burst is the limit divided by this, at least the units of one step."""
CATCH_UP = 1.2
HELD_MS_MAX = 2_000
GRAIN = 1e-4
"""Units: the mesh counts nanoseconds for each."""


class Buckets:
    """See the module.

    Args:
        report: gets what is wrong.
        seen: counts what there was to look at.
    """

    def __init__(self, report: Callable[[str], None], seen: Counter[str]) -> None:
        self._report = report
        self._seen = seen
        self._runs: dict[str, tuple[str, bytes]] = {}
        self._levels: dict[tuple[str, bool], tuple[int, float]] = {}
        """(key, whether it leaks faster) → (time, units in its bucket then)."""
        self._held: dict[str, int] = {}
        """Key → milliseconds that may be made up for."""
        self._now = self._led_until = 0

    def record(self, record: facts.Fact, now: int) -> None:
        """A record of the journal, and its time in milliseconds."""
        if type(record) is facts.TermStarted:
            self._led_until = self._now
        elif type(record) is facts.RatesHeld:
            self._hold(record.ms, now)
        elif type(record) is facts.RunStarted and has_keys(record.workflow):
            self._runs[record.run] = record.workflow, bytes(record.input)
        elif type(record) is facts.StepReleased and record.run in self._runs:
            workflow, input = self._runs[record.run]
            for rate in RATES.get((workflow, step_name(workflow, record.step)), ()):
                self._pour(rate, json.loads(input), now)
        self._now = now

    def _hold(self, ms: int, now: int) -> None:
        """Nobody has led for so long, it is said."""
        self._seen["rates held"] += 1
        if ms > min(HELD_MS_MAX, now - self._led_until):
            self._report(f"rates are held for {ms} ms, the last frame of the term before is {now - self._led_until} ms old")
        for key in {key for key, _ in self._levels}:
            self._held[key] = min(HELD_MS_MAX, self._held.get(key, 0) + ms)

    def _pour(self, rate: Rate, input: dict[str, int | str], now: int) -> None:
        key, limit, units = (_value(text, input) for text in (rate.key, rate.limit, rate.units))
        assert isinstance(limit, int), "limits are numbers"
        assert isinstance(units, int), "units are numbers"
        burst = max(limit // BURST_PART, units, 1)
        for fast in (False, True):
            at, level = self._levels.get((str(key), fast), (now, 0.0))
            left = level - (now - at) * limit / rate.per_ms * (CATCH_UP if fast else 1)
            held = self._held.get(str(key), 0) * limit / rate.per_ms
            if left + held <= 0 and not fast:
                self._held.pop(str(key), None)
            level = max(0.0, left) + units
            room = burst * CATCH_UP if fast else burst + held
            self._seen["full bucket"] += level + 1 > room
            if level > room + GRAIN:
                which = "that leaks faster" if fast else "of its own"
                self._report(f"rate {key}: {level:.2f} units are in a bucket {which}, which has room for {room}")
            self._levels[str(key), fast] = now, level


def _value(text: int | str, input: dict[str, int | str]) -> int | str:
    return input[text.removeprefix("input.")] if isinstance(text, str) and text.startswith("input.") else text
