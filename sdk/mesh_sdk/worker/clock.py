"""The worker's clocks, in one place so that tests can own them."""

from __future__ import annotations

import time


class Clock:
    """The machine's clocks."""

    monotonic = staticmethod(time.monotonic)
    """Seconds, for durations; stands still while the machine sleeps."""

    @staticmethod
    def boot() -> float:
        """Seconds since boot, sleep included: leases must run out while the machine is suspended."""
        if hasattr(time, "CLOCK_BOOTTIME"):
            return time.clock_gettime(time.CLOCK_BOOTTIME)
        return time.monotonic()

    @staticmethod
    def wall_ms() -> int:
        """Milliseconds since 1970."""
        return time.time_ns() // 1_000_000
