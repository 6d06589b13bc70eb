"""The main loop's pulse: how late the loop is, whether it was away, and a regular look at what must be looked at."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

log = logging.getLogger(__name__)

TICK_S = 0.1
STALL_S = 0.5
"""A loop away for longer may have let the server hand its messages to another worker."""
AFTER_STALL_S = 0.1
"""What was waiting in the socket comes within this after the loop is back."""


class Pulse:
    """Ticks on the event loop.

    Args:
        monotonic: seconds.
        on_tick: called every TICK_S with the seconds that the loop was late.
    """

    def __init__(self, monotonic: Callable[[], float], on_tick: Callable[[float], None]) -> None:
        self._monotonic = monotonic
        self._on_tick = on_tick
        self._last = monotonic()
        self._stalled_until = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin to tick, on the running loop."""
        self._last = self._monotonic()
        self._timer = asyncio.get_running_loop().call_later(TICK_S, self._tick)

    def stop(self) -> None:
        """End."""
        if self._timer is not None:
            self._timer.cancel()

    def lag_s(self) -> float:
        """How late the loop is at this moment. From any thread."""
        return max(0.0, self._monotonic() - self._last - TICK_S)

    def stalled(self) -> bool:
        """Whether what comes in now may have waited for a loop that was away."""
        now = self._monotonic()
        return now - self._last > TICK_S + STALL_S or now < self._stalled_until

    def _tick(self) -> None:
        now = self._monotonic()
        late = max(0.0, now - self._last - TICK_S)
        if late > STALL_S:
            self._stalled_until = now + AFTER_STALL_S
            log.warning("the event loop was blocked for %.2f s: an async step does something that blocks; make it a sync step", late)
        self._last = now
        self._timer = asyncio.get_running_loop().call_later(TICK_S, self._tick)
        self._on_tick(late)
