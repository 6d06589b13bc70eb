"""Starts that are stored and not decided yet: whoever asks for such a run is told that it is queued.

Rule: "there is no such run" is only said once every start that was stored before the question has been decided.
"""

from __future__ import annotations

import asyncio

from mesh.scheduler.inbox import Inbox
from mesh_sdk.protocol.subjects import Subjects
from mesh_sdk.transport.bus import Bus
from mesh_sdk.transport.errors import TransportError

WAIT_S = 1.0
"""How long a question waits for starts to be read; past it they may as well wait for room in the window of live runs."""
_LOOK_S = 0.005


class Unread:
    """What is still to be read of one term's starts."""

    def __init__(self, bus: Bus, subjects: Subjects, inbox: Inbox) -> None:
        self._bus = bus
        self._stream = subjects.triggers_stream
        self._inbox = inbox

    async def until_decided(self) -> bool:
        """Wait until every start stored by now is decided; False if that takes longer than WAIT_S."""
        try:
            async with asyncio.timeout(WAIT_S):
                state = await self._bus.stream_state(self._stream)
                while state is not None and not self._decided(state.last):  # noqa: ASYNC110 - a reader's end is a state, no event
                    await asyncio.sleep(_LOOK_S)
        except (TimeoutError, TransportError):
            return False
        return True

    def _decided(self, last: int) -> bool:
        """Every source of the stream has come to its end, and one of them to this message, the stream's last."""
        sources = [source for source in self._inbox.sources if source.stream == self._stream]
        return self._inbox.all_starts_read() and max(source.sequence for source in sources) >= last
