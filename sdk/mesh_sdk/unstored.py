"""Starts of `start_nowait` that are not known to be stored yet. Belongs to one event loop.

Rule: bounded; a start that was refused for good is logged, and told to whoever asks for it.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass

from mesh_sdk.errors import MeshError, Unavailable
from mesh_sdk.generations import Generations
from mesh_sdk.protocol.records import Start
from mesh_sdk.transport.errors import TransportError

UNSTORED_MAX = 20_000
REFUSED_MAX = 1_000

_log = logging.getLogger("mesh.client")


@dataclass(frozen=True, slots=True, eq=False)
class Unstored:
    """A start on its way.

    Attributes:
        record: the start.
        size: bytes of its input.
        priority: where it is stored.
        stored: done when it is stored, or refused for good.
    """

    record: Start
    size: int
    priority: int
    stored: asyncio.Future[None]


class UnstoredStarts:
    """The starts on their way, by run id.

    Args:
        loop: of the client.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._starts: dict[str, Unstored] = {}
        self._refused: Generations[MeshError] = Generations(REFUSED_MAX)

    def add(self, record: Start, size: int, priority: int) -> Unstored:
        """A start has begun its way. Callable on any thread.

        Raises:
            Unavailable: when too many are on theirs.
        """
        if len(self._starts) >= UNSTORED_MAX:
            raise Unavailable(
                f"{UNSTORED_MAX:,} starts wait to be stored already: await `start(...)` instead of start_nowait(...), which waits for room"
            )
        start = Unstored(record, size, priority, self._loop.create_future())
        self._starts[record.run] = start
        return start

    def stored(self, run: str) -> None:
        """It arrived."""
        start = self._starts.pop(run, None)
        if start is not None and not start.stored.done():
            start.stored.set_result(None)

    def refused(self, run: str, error: MeshError) -> None:
        """It never will."""
        start = self._starts.pop(run, None)
        if start is None:
            return
        _log.error("start_nowait: run %s of %r was not started: %s", run, start.record.workflow, error)
        self._refused.put(run, error)
        if not start.stored.done():
            start.stored.set_result(None)

    async def wait(self, run: str) -> None:
        """Return when a start is stored; at once when nothing is known of it.

        Raises:
            MeshError: it was refused for good.
        """
        start = self._starts.get(run)
        if start is not None:
            await asyncio.shield(start.stored)
        error = self._refused.get(run)
        if error is not None:
            raise type(error)(*error.args)

    async def flush(self, timeout: float) -> bool:
        """Give them some time; whether all arrived."""
        waiting = [start.stored for start in list(self._starts.values())]
        if waiting:
            await asyncio.wait(waiting, timeout=timeout)
        return not self._starts

    def take(self) -> list[Unstored]:
        """Hand over what is still on its way, for another client to store. Callable on any thread, once the loop has ended."""
        starts, self._starts = self._starts, {}
        return list(starts.values())

    def __len__(self) -> int:
        """How many are on their way."""
        return len(self._starts)


async def until_stored(frame: asyncio.Future[int], what: str) -> None:
    """Wait for a frame that others wait for too.

    Args:
        frame: as `Triggers.start` and `cancel` give it.
        what: was to be stored, for the message.

    Raises:
        Unavailable: the server did not take it.
    """
    try:
        await asyncio.shield(frame)
    except TransportError as error:
        raise Unavailable(f"{what} could not be stored: {error}") from error
