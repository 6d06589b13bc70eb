"""Core time: the server's timestamp of a term's first record, plus the monotonic time since. No wall clock is trusted."""

from __future__ import annotations

from collections.abc import Callable

_FAR_MS = 10 * 366 * 86_400_000
"""Later than this is as good as never, and a float can't say every number that an integer can."""


class CoreClock:
    """Milliseconds since 1970 as the servers' clocks tell them.

    Args:
        monotonic: the event loop's clock, in seconds.
    """

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._anchor_ms = 0
        self._anchor = 0.0

    def anchor(self, server_ms: int, heard_at: float) -> None:
        """The server's clock read `server_ms` at `heard_at` of ours."""
        self._anchor_ms = server_ms
        self._anchor = heard_at

    def now_ms(self) -> int:
        """Core time. The core itself never lets it go back."""
        return self._anchor_ms + int((self._monotonic() - self._anchor) * 1000)

    def loop_time(self, core_ms: int) -> float:
        """When, by the event loop's clock, it will be `core_ms`."""
        return self._anchor + min(core_ms - self._anchor_ms, _FAR_MS) / 1000
