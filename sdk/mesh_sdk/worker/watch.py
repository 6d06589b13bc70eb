"""Watches over running attempts: tells of those that go on for a while, and ends those that run out of time.

Rule: a short step costs one entry in a queue and no timer. Only what still runs after `ACCEPT_AFTER_S` gets a timer of its own.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from mesh_sdk.worker.attempt import Attempt

ACCEPT_AFTER_S = 0.05
"""What runs longer is reported as accepted, so that its lane message can be acknowledged well before `ack_wait`."""

SWEEP_S = 0.025


class Watch:
    """Timeouts and acceptance.

    Args:
        monotonic: seconds; the same clock that `Attempt.started` is set from.
        on_long: the attempt still runs after ACCEPT_AFTER_S.
        on_timeout: the attempt's time is over.
    """

    def __init__(self, monotonic: Callable[[], float], on_long: Callable[[Attempt], None], on_timeout: Callable[[Attempt], None]) -> None:
        self._monotonic = monotonic
        self._on_long = on_long
        self._on_timeout = on_timeout
        self._fresh: deque[Attempt] = deque()
        self._sweeping = False

    def begin(self, attempt: Attempt) -> None:
        """The attempt has just started."""
        if attempt.action.timeout_s <= ACCEPT_AFTER_S + 2 * SWEEP_S:
            self._arm(attempt, attempt.action.timeout_s)
        self._fresh.append(attempt)
        if not self._sweeping:
            self._sweeping = True
            asyncio.get_running_loop().call_later(ACCEPT_AFTER_S, self._sweep)

    def extend(self, attempt: Attempt, seconds: float) -> None:
        """The attempt may run this much longer from now."""
        if not attempt.answered:
            self._arm(attempt, seconds)

    def end(self, attempt: Attempt) -> None:
        """The attempt needs no watching any more."""
        if attempt.timer is not None:
            attempt.timer.cancel()
            attempt.timer = None

    def _sweep(self) -> None:
        fresh = self._fresh
        now = self._monotonic()
        due = now - ACCEPT_AFTER_S
        while fresh and fresh[0].started <= due:
            attempt = fresh.popleft()
            if attempt.answered:
                continue
            if attempt.timer is None:
                self._arm(attempt, attempt.started + attempt.action.timeout_s - now)
            self._on_long(attempt)
        self._sweeping = bool(fresh)
        if fresh:
            asyncio.get_running_loop().call_later(SWEEP_S, self._sweep)

    def _arm(self, attempt: Attempt, seconds: float) -> None:
        if attempt.timer is not None:
            attempt.timer.cancel()
        attempt.timer = asyncio.get_running_loop().call_later(max(0.0, seconds), self._on_timeout, attempt)
