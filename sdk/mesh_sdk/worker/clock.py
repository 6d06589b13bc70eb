"""The worker's clocks, in one place so that tests can own them."""

from __future__ import annotations

import time


def _boot() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Clock:
    """The machine's clocks."""

    monotonic = staticmethod(time.monotonic)
    """Seconds, for durations; stands still while the machine sleeps."""

    boot = staticmethod(_boot if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic)
    """Seconds since boot, sleep included where the system can tell: leases must run out while the machine is suspended."""

    @staticmethod
    def wall_ms() -> int:
        """Milliseconds since 1970."""
        return time.time_ns() // 1_000_000
