"""How many messages of the shared lane to ask for: as many as there is surely room for, by what came lately.

Rule: rather one too few than one that goes back. A worker that drains, or was just paused, asks for a few now and then all the
same, only to hand them back: it may be the last of its pool, and other pools may run what lies there.
"""

from __future__ import annotations

from math import ceil, inf

MESSAGES_ASKED_MAX = 4
"""Shared messages asked for ahead: more would come to a worker that has no room left for them."""

LARGEST_FADES = 0.99
"""How fast the largest recent message is forgotten: by the mean of them a twelfth of all steps came where there was no room."""

PAUSED_LOOKS = 10
"""For how many looks a paused worker hands back what its pool was given before. Longer, and it would take others' steps from them."""


class Demand:
    """Knows how many steps a message carries.

    Attributes:
        returnable: how many messages to ask for only to hand them back, until the next look.
    """

    __slots__ = ("_looks", "_message_steps", "returnable")

    def __init__(self) -> None:
        self._message_steps = 1.0
        self._looks = 0.0
        self.returnable = 0

    def hand_back(self, looks: float = inf) -> None:
        """From now on messages come only to be handed back: a few until the next look, and again after each of `looks` of them."""
        self._looks = looks
        self.returnable = MESSAGES_ASKED_MAX

    def look(self) -> None:
        """Some time has passed. Its length bounds how often a step goes to and fro while others of the pool take work."""
        self.returnable = MESSAGES_ASKED_MAX if self._looks > 0 else 0
        self._looks -= 1

    def came(self, steps: int) -> None:
        """A message with this many steps has come."""
        self.returnable -= 1
        self._message_steps = max(steps, self._message_steps * LARGEST_FADES)

    def messages(self, room: int) -> int:
        """For how many messages there is room, in slots; one at least."""
        return max(1, min(MESSAGES_ASKED_MAX, ceil(room / self._message_steps)))
