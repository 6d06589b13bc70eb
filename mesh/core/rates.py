"""Rate limits: how many units may pass in a time, over all workers.

The generic cell rate algorithm (ITU-T I.371): of each key one number is kept, the time at which its bucket will be empty. Units
pass while that is at most a burst away. The burst is a fifth of the limit, at least the units of one step, so within any
window of time T at most `limit × T ÷ per + burst` units pass. Kept by facts alone: a successor goes on with the same numbers.
"""

from __future__ import annotations

BURST_PART = 5
"""A burst is the limit divided by this, at least 1."""
KEYS_SWEPT = 1_024
SCALE = 1_000_000
"""Times are kept in nanoseconds: a unit of 1,000,000 a second takes one microsecond."""


class Rates:
    """Every key that has passed units lately.

    Attributes:
        empty_at: key → core time in nanoseconds at which its bucket is empty again.
    """

    def __init__(self) -> None:
        self.empty_at: dict[str, int] = {}
        self._sweep_at = KEYS_SWEPT

    def wait(self, key: str, limit: int, per_ms: int, units: int, now: int, *, ahead: int = 0) -> int:
        """Milliseconds until `units` may pass, 0 when they may now.

        Args:
            limit: units in `per_ms` milliseconds.
            units: at most `limit`.
            now: core time, milliseconds.
            ahead: units that pass before these.
        """
        emission = per_ms * SCALE // limit
        burst = max(limit // BURST_PART, units, 1)
        late = max(self.empty_at.get(key, 0), now * SCALE) + (ahead + units) * emission - now * SCALE - burst * emission
        return -(-late // SCALE) if late > 0 else 0

    def image(self, now: int) -> list[tuple[str, int]]:
        """What a successor has to know."""
        return sorted((key, at) for key, at in self.empty_at.items() if at > now * SCALE)

    def take(self, key: str, limit: int, per_ms: int, units: int, now: int) -> None:
        """The units pass now."""
        if key not in self.empty_at and len(self.empty_at) >= self._sweep_at:
            self.empty_at = {other: at for other, at in self.empty_at.items() if at > now * SCALE}
            self._sweep_at = max(KEYS_SWEPT, 2 * len(self.empty_at))
        self.empty_at[key] = max(self.empty_at.get(key, 0), now * SCALE) + units * (per_ms * SCALE // limit)
