"""Rate limits: how many units may pass in a time, over all workers.

The generic cell rate algorithm (ITU-T I.371): of each key one number is kept, the time at which its bucket will be empty. Units
pass while that is at most a burst away. The burst is a fifth of the limit, at least the units of one step, so within any
window of time T at most `limit × T ÷ per + burst` units pass. Kept by facts alone: a successor goes on with the same numbers.

While nobody leads nothing passes. So that this costs nobody units who waits for them, buckets stand still meanwhile, and what was
held is made up for at `CATCH_UP` times the pace, with half the burst, and never by more than was held: a window that begins with
nothing owed has no more than the formula says, however many leaders die in it. One that begins with time owed has at most
`limit × (T + owed) ÷ per + burst`, and of steps with equal units at most `CATCH_UP × limit × T ÷ per + burst ÷ 2` (at least the
units of one step, here too). That is 1.3 times the limit in its time, where a step's units are at most a tenth of the limit.
"""

from __future__ import annotations

from collections.abc import Iterable

BURST_PART = 5
"""A burst is the limit divided by this, at least 1."""
KEYS_SWEPT = 1_024
SCALE = 1_000_000
"""Times are kept in nanoseconds, and rounded up for what passes at once, not for each unit: many take less than one."""
CATCH_UP = (6, 5)
"""As a fraction: so much faster than the limit what was held is made up for."""
HELD_MS_MAX = 2_000
"""A leader is replaced within this time. After a longer one nothing is made up for."""

Pace = tuple[int, int]
"""(nanoseconds, units that pass in them)."""


class Rates:
    """Every key that has passed units lately.

    Attributes:
        empty_at: key → core time in nanoseconds at which its bucket is empty again.
        owed: key → nanoseconds that its bucket stood still and has not made up for; void once the bucket has been empty.
        led_until: core time of the last frame before this term, until its leader has seen to that. No part of the state.
    """

    def __init__(self) -> None:
        self.empty_at: dict[str, int] = {}
        self.owed: dict[str, int] = {}
        self.led_until = 0
        self._sweep_at = KEYS_SWEPT

    def wait(self, key: str, limit: int, per_ms: int, units: int, now: int, *, ahead: int = 0) -> int:
        """Milliseconds until `units` may pass, 0 when they may now.

        Args:
            limit: units in `per_ms` milliseconds.
            units: at most `limit`.
            now: core time, milliseconds.
            ahead: units that pass before these.
        """
        after, _, brim = self._bucket(key, limit, per_ms, units, now, ahead)
        late = after - brim
        return -(-late // SCALE) if late > 0 else 0

    def take(self, key: str, limit: int, per_ms: int, units: int, now: int) -> None:
        """The units pass now."""
        if key not in self.empty_at and len(self.empty_at) >= self._sweep_at:
            self.empty_at = {other: at for other, at in self.empty_at.items() if at > now * SCALE}
            self._sweep_at = max(KEYS_SWEPT, 2 * len(self.empty_at))
        self.empty_at[key], owed, _ = self._bucket(key, limit, per_ms, units, now)
        if owed:
            self.owed[key] = min(owed, HELD_MS_MAX * SCALE)
        elif key in self.owed:
            del self.owed[key]

    def _bucket(self, key: str, limit: int, per_ms: int, units: int, now: int, ahead: int = 0) -> tuple[int, int, int]:
        """Once the units have passed: when the bucket is empty, what it is owed still, and what the first must not be beyond."""
        pace = per_ms * SCALE, limit
        took = _time(units, pace)
        if ahead:
            took += _time(ahead, pace)
        burst = max(limit // BURST_PART, units, 1)
        at, brim = self.empty_at.get(key, 0), now * SCALE + _room(burst, units, pace)
        if not self._owes(key, now):
            return max(at, now * SCALE) + took, 0, brim
        faster = pace[0] * CATCH_UP[1], pace[1] * CATCH_UP[0]
        made_up = max(at, brim - _room(burst // 2, units, faster)) + _time(units + ahead, faster)
        # Had it never stood still, it were empty at `never_held`: never sooner, so that what takes long gains what was held, not a sixth of
        # its time. What the bucket was not allowed to leak is owed on, but for what is less than a millisecond.
        never_held = at - self.owed[key] + took
        after = max(made_up, never_held)
        return after, after - never_held if after - never_held >= SCALE else 0, brim

    # ---- times without a leader -----------------------------------------------------------------------------------------

    def held(self, now: int) -> int:
        """Milliseconds for which nobody has led, 0 when that is too long to be made up for. Told once in a term."""
        since, self.led_until = self.led_until, 0
        return now - since if since and now - since <= HELD_MS_MAX else 0

    def hold(self, wanted: set[str], ms: int, now: int) -> None:
        """Nobody led for so long, up to now, while these keys were waited for."""
        still, since = ms * SCALE, (now - ms) * SCALE
        owed, self.owed = self.owed, {}
        for key, at in self.empty_at.items():
            if at > since and key in wanted:
                self.empty_at[key] = at + still
                self.owed[key] = min(owed.get(key, 0) + still, HELD_MS_MAX * SCALE)

    def _owes(self, key: str, now: int) -> bool:
        return key in self.owed and self.empty_at.get(key, 0) > now * SCALE

    # ---- images ---------------------------------------------------------------------------------------------------------

    def image(self, now: int) -> tuple[list[tuple[str, int]], list[tuple[str, int]]]:
        """What a successor has to know: of `empty_at`, and of `owed`."""
        return (
            sorted((key, at) for key, at in self.empty_at.items() if at > now * SCALE),
            sorted((key, owed) for key, owed in self.owed.items() if self._owes(key, now)),
        )

    def load(self, empty_at: Iterable[tuple[str, int]], owed: Iterable[tuple[str, int]]) -> None:
        """Be what an image says."""
        self.empty_at, self.owed = dict(empty_at), dict(owed)


def _time(units: int, pace: Pace) -> int:
    """Nanoseconds that the units take, never less."""
    return -(-units * pace[0] // pace[1])


def _room(burst: int, units: int, pace: Pace) -> int:
    """Nanoseconds by which a bucket may be ahead when `units` have passed: never more than a burst, but for units that are one."""
    return max(burst * pace[0] // pace[1], _time(units, pace))
