"""Waiting between two tries of the same thing: doubling, bounded, and cut short by a signal."""

from __future__ import annotations

import asyncio


class Backoff:
    """Delays that double from `first_s` up to `most_s`.

    Example:
        >>> backoff = Backoff(0.05, 1.0)
        >>> backoff.next(), backoff.next(), backoff.next()
        (0.05, 0.1, 0.2)
    """

    def __init__(self, first_s: float, most_s: float) -> None:
        self._first_s = first_s
        self._most_s = most_s
        self._next_s = first_s

    def next(self) -> float:
        """Seconds to wait before the next try."""
        delay_s = self._next_s
        self._next_s = min(self._most_s, delay_s * 2)
        return delay_s

    def reset(self) -> None:
        """It worked: begin with the shortest delay again."""
        self._next_s = self._first_s

    async def wait(self, signal: asyncio.Event) -> None:
        """Wait for the next delay, or less when `signal` is set meanwhile."""
        signal.clear()
        try:
            async with asyncio.timeout(self.next()):
                await signal.wait()
        except TimeoutError:
            return
