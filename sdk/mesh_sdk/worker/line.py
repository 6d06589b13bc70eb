"""Attempts of the private lane that wait for their slots, in the order in which they came.

Rule: nobody overtakes, or a step that takes several slots would wait for ever while smaller ones take them away one by one. But
where all slots in use are kept by steps that wait for children, these must get by, wherever they are: those that a child could
take here, and that the leader counts as promised, go back to it after a while.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from mesh_sdk.worker.attempt import Attempt
from mesh_sdk.worker.slots import Slots

STUCK_LOOKS = 4
"""For how many looks nothing can move before those that wait go back."""


class Line:
    """Who waits.

    Args:
        slots: the worker's.

    Attributes:
        reserved: slots of all that wait.
    """

    def __init__(self, slots: Slots) -> None:
        self.reserved = 0
        self._slots = slots
        self._waiting: deque[Attempt] = deque()
        self._stuck = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def __iter__(self) -> Iterator[Attempt]:
        return iter(self._waiting)

    def append(self, attempt: Attempt) -> None:
        """An attempt waits from now on."""
        self._waiting.append(attempt)
        self.reserved += attempt.slots

    def remove(self, attempt: Attempt) -> None:
        """An attempt waits no more."""
        self._waiting.remove(attempt)
        self.reserved -= attempt.slots

    def clear(self) -> None:
        """Nobody waits any more."""
        self._waiting.clear()
        self.reserved = 0

    def look(self, *, stuck: bool) -> list[Attempt]:
        """Some time has passed. Takes out those that go back.

        Args:
            stuck: there are free slots, too few for those that wait, and the others are kept by steps that wait for children.
        """
        self._stuck = self._stuck + 1 if stuck and self._waiting else 0
        if self._stuck <= STUCK_LOOKS:
            return []
        gone = list(self._waiting)
        self.clear()
        return gone

    def pop(self, *, overtaking: bool) -> Attempt | None:
        """Take out the next attempt whose slots are free; None when there is none.

        Args:
            overtaking: those behind one that does not fit may go ahead of it.
        """
        free = self._slots.free
        for attempt in self._waiting:
            if attempt.slots <= free:
                self.remove(attempt)
                return attempt
            if not overtaking:
                return None
        return None
