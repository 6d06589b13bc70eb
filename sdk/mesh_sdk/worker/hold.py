"""Messages of the shared lane that this worker has taken and not acknowledged yet.

Whatever is not acknowledged within `ack_wait` is given to another worker, which must not run it: the attempt counts as lost.
A step that blocks the event loop from its first instruction on would lose its own message that way, and take the whole
pool along, one worker after the other. So the presence thread tells the server that they are in progress while the loop
stands still: for as long as their steps may run, no longer.

Rule: only the event loop changes them. The thread looks while the loop stands still.
"""

from __future__ import annotations

from collections.abc import Callable

from mesh_sdk.transport.bus import LaneMessage

LATE_S = 0.1
"""A loop later than this is taken to stand still. Together with how often the thread looks, well within `ack_wait`."""

GRACE_S = 5.0
"""How much longer than its timeout an attempt may take to be answered for, as the leader counts it."""


class Hold:
    """A message of the shared lane: acknowledged when each of its steps is durably answered.

    Args:
        message: as pulled.
        steps: how many steps it carries.
        open: where it stands until it is acknowledged, by its sequence.
    """

    __slots__ = ("_left", "_message", "_open", "until")

    def __init__(self, message: LaneMessage, steps: int, open: dict[int, Hold]) -> None:
        self.until = 0.0
        self._message = message
        self._left = steps
        self._open = open

    @property
    def reply(self) -> str:
        """Where the server is told about it."""
        return self._message.reply

    def begun(self, at: float, timeout_s: float) -> None:
        """One of its steps has begun, or was given more time: until when its worker may be deaf and still have it.

        Args:
            at: monotonic seconds.
            timeout_s: of the step, from then on.
        """
        self.until = max(self.until, at + timeout_s + GRACE_S)

    def answered(self) -> None:
        """One more of its steps is durably answered."""
        self._left -= 1
        if not self._left:
            sequence = self._message.sequence
            if self._open.get(sequence) is self:
                del self._open[sequence]
            self._message.ack()


class Holds:
    """The messages that this process holds.

    Args:
        monotonic: seconds; the clock that `Hold.begun` is told.
        lag_s: how late the event loop is at this moment; from any thread.
    """

    def __init__(self, monotonic: Callable[[], float], lag_s: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._lag_s = lag_s
        self._open: dict[int, Hold] = {}

    def take(self, message: LaneMessage, steps: int) -> Hold:
        """Hold a message. One that was delivered before takes the place of that delivery."""
        hold = self._open[message.sequence] = Hold(message, steps, self._open)
        return hold

    def clear(self) -> None:
        """Whoever held them was given up: they are for others."""
        self._open.clear()

    def in_progress(self) -> list[str]:
        """Where to say that a message is in progress although its worker is deaf; nothing while the loop runs. From any thread."""
        if self._lag_s() <= LATE_S:
            return []
        try:
            holds = list(self._open.values())
        except RuntimeError:  # they have changed under our eyes: the loop is back
            return []
        now = self._monotonic()
        return [hold.reply for hold in holds if now < hold.until]
