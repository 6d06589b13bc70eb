"""Saying that a client waits for runs of a namespace that nobody leads.

Rule: one warning per silence, and one timer, only while something is waited for.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

SILENCE_S = 3.0
"""Longer than a failover takes; a leader beats several times a second."""
LATE_S = 1.0
"""A timer that comes this late tells of a blocked event loop: beats have arrived that nobody has read yet."""

_log = logging.getLogger("mesh.client")


class Silence:
    """Watches for beats of a leader.

    Args:
        loop: of the client.
        pending: whether something is waited for, maybe by somebody who has gone.
        could_be_led: whether somebody does wait, and the server is there; without it silence means nothing.
        where: namespace and server, for the message.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, pending: Callable[[], bool], could_be_led: Callable[[], bool], where: Callable[[], str]
    ) -> None:
        self._loop = loop
        self._pending = pending
        self._could_be_led = could_be_led
        self._where = where
        self._heard = False
        self._told = False
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    def heard(self) -> None:
        """The leader beats, or the connection is new: silence starts anew."""
        self._heard = True
        self._told = False

    def watch(self) -> None:
        """Something is waited for from now on."""
        if self._timer is None and not self._closed:
            self._heard = False
            self._timer = self._loop.call_at(self._loop.time() + SILENCE_S, self._tick, self._loop.time() + SILENCE_S)

    def _tick(self, due: float) -> None:
        self._timer = None
        if not self._pending():
            return
        late = self._loop.time() - due > LATE_S
        if not (self._heard or self._told or late) and self._could_be_led():
            self._told = True
            _log.warning("no scheduler leads %s: the run waits; start one with `mesh scheduler`", self._where())
        self.watch()

    def close(self) -> None:
        """Watch no more."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
