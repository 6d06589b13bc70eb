"""What the leader has the server do beside the frames: consumers, definitions, dead letters, rows that end.

One chore after the other, in order. Rule: one that finds no room stands aside, for longer each time, and holds up no other.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from mesh_sdk.transport.backoff import Backoff
from mesh_sdk.transport.errors import StreamFull, TransportError

log = logging.getLogger(__name__)

_AGAIN_S = 0.2
_ROOM_S = 1.0
_ROOM_S_MAX = 30.0


class Chore:
    """Something to be done, until it is done."""

    def __init__(self, what: str, do: Callable[[], Awaitable[None]]) -> None:
        self.what = what
        self.do = do
        self.room = Backoff(_ROOM_S, _ROOM_S_MAX)
        self.failed = False
        """It could not be done so far, and that was said."""
        self.aside = False
        """It has found no room."""


class Chores:
    """Does the chores of one term."""

    def __init__(self) -> None:
        self._waiting: asyncio.Queue[Chore] = asyncio.Queue()
        self._aside: dict[Chore, asyncio.TimerHandle] = {}

    def add(self, what: str, do: Callable[[], Awaitable[None]]) -> Chore:
        """Have something done; it must be harmless to do it twice.

        Args:
            what: for the log, when it can't be done.
            do: whatever it raises as a TransportError has it done again. The number of chores is for whoever adds them to bound.
        """
        chore = Chore(what, do)
        self._waiting.put_nowait(chore)
        return chore

    async def run(self) -> None:
        """Do what there is, for ever."""
        try:
            while True:
                await self._do(await self._waiting.get())
        finally:
            for timer in self._aside.values():
                timer.cancel()

    async def _do(self, chore: Chore) -> None:
        while True:
            try:
                await chore.do()
            except StreamFull as error:
                self._stand_aside(chore, error)
                return
            except TransportError as error:
                _say(chore, logging.WARNING, f"failed, and is tried again until it succeeds: {error}")
                await asyncio.sleep(_AGAIN_S)
                continue
            if chore.failed:
                log.info("%s: done at last", chore.what)
            return

    def _stand_aside(self, chore: Chore, error: StreamFull) -> None:
        chore.aside = True
        _say(chore, logging.ERROR, f"found no room, and is tried again until there is some; everything else goes on: {error}")
        self._aside[chore] = asyncio.get_running_loop().call_later(chore.room.next(), self._come_back, chore)

    def _come_back(self, chore: Chore) -> None:
        del self._aside[chore]
        self._waiting.put_nowait(chore)


def _say(chore: Chore, level: int, what: str) -> None:
    """Once a chore: a server that is away for an hour would fill the log."""
    log.log(logging.DEBUG if chore.failed else level, "%s %s", chore.what, what)
    chore.failed = True
