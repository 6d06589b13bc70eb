"""Whether the lanes are there, gone, or on a server that is away.

Rule: one server that is silent is not believed; another one has to answer meanwhile.
"""

from __future__ import annotations

import asyncio

from mesh_sdk.protocol.subjects import Subjects
from mesh_sdk.transport.bus import Bus
from mesh_sdk.transport.errors import Disconnected, TransportError

_TIMEOUT_S = 1.5
_SILENCE_S = 3.0
"""The lanes are away when they have not answered for so long, and the journal has answered since."""
_ASK_S = 0.3
_LAST_CHANCE_S = 0.15
"""For the journal to answer after that, and then for the lanes; they are asked in turn until one of them does."""


class LanesGone(Exception):
    """The lanes stream is not there any more."""


class LanesAway(LanesGone):
    """It may be there, but the server that holds it does not answer while others do."""


class Lookout:
    """Looks for the lanes of one term.

    Args:
        bus: the connection.
        subjects: the namespace's names.
    """

    def __init__(self, bus: Bus, subjects: Subjects) -> None:
        self._bus = bus
        self._subjects = subjects
        self._silent_since: float | None = None

    @property
    def silent(self) -> bool:
        """Whether the last question was left unanswered."""
        return self._silent_since is not None

    def found(self) -> None:
        """Somebody has just written to them."""
        self._silent_since = None

    async def find(self) -> bool:
        """Whether the lanes are there.

        Raises:
            LanesAway: the server that holds them is dead, or cut off. Lanes have one copy, on a cluster too: decision 8.
            TransportError: nobody says.
        """
        asked = asyncio.get_running_loop().time()
        long = self._silent_since is not None and asked - self._silent_since >= _SILENCE_S
        if long:  # nobody may answer at all: then it is not the lanes that are away
            await self._bus.stream_state(self._subjects.journal_stream, timeout=_ASK_S)
        try:
            timeout_s = _LAST_CHANCE_S if long else _TIMEOUT_S
            there = await self._bus.stream_state(self._subjects.lanes_stream, timeout=timeout_s) is not None
        except Disconnected:
            self._silent_since = None  # whoever was not asked was not silent
            raise
        except TransportError:
            if long and self.silent:  # else they were made anew meanwhile
                raise LanesAway("the server that holds the lanes does not answer, and others do") from None
            if not self.silent:
                self._silent_since = asked
            raise
        self._silent_since = None
        return there
