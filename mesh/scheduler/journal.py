"""The journal, written: one fenced frame in flight, sent again as it is until it is known to stand or to be refused.

Rule: after any doubt the *identical* frame goes out again; nothing is concluded from absence. Only "somebody else
wrote there" ends a term. Where only strays stand behind the writer's last frame (see `strays`), that one frame goes out again
behind them: its copies that may still be on their way name a message that is not the last one any more, so one of them stands
at most. What was read for that may be stale; then the server refuses the new expectation too, and it is read again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

import msgspec

from mesh.core.records import JournalFrame
from mesh.scheduler.strays import Strays, is_frame
from mesh_sdk.protocol.subjects import Subjects
from mesh_sdk.transport.bus import Bus, Stored
from mesh_sdk.transport.errors import StreamFull, TransportError, WrongSequence

log = logging.getLogger(__name__)

Found = TypeVar("Found")

encode_frame: Callable[[JournalFrame], bytes] = msgspec.json.Encoder().encode
decode_frame = msgspec.json.Decoder(JournalFrame).decode

_ACK_TIMEOUT_S = 2.0
_AGAIN_S = 0.05
_LAG_S = 2.0
"""So long a journal that seems to have lost its end is asked again: the stream's leader may be a new one that lags."""
_LAG_AGAIN_S = 0.2


class Deposed(Exception):
    """Another scheduler has written: this one's state and plans are void."""


class Journal:
    """Appends frames after `sequence`, as long as nobody else does.

    Args:
        bus: the connection.
        subjects: the namespace's names.
        writer: names this term's frames.
        sequence: the last sequence of the journal, as this scheduler knows it.
    """

    def __init__(self, bus: Bus, subjects: Subjects, writer: str, sequence: int) -> None:
        self._bus = bus
        self._subjects = subjects
        self._writer = writer
        self._frames = 0
        self.strays = Strays(bus, subjects)
        self.sequence = sequence
        self.confirmed_at = asyncio.get_running_loop().time()
        """When, by the loop's clock, what last proved this writer's leadership was asked: a frame that stands, or a look."""

    @property
    def fresh(self) -> bool:
        """Whether no frame was sent so far."""
        return not self._frames

    def send(self, data: bytes) -> PendingFrame:
        """Put a frame on its way; the one before must stand already."""
        self._frames += 1
        return PendingFrame(self, data, f"{self._writer}-{self._frames}")

    def append_soon(self, data: bytes, message_id: str) -> asyncio.Future[int]:
        """One try to write a frame after the last one."""
        return self._bus.append_soon(self._subjects.journal, data, expect=self.sequence, message_id=message_id, timeout=_ACK_TIMEOUT_S)

    async def settle(self, frame: PendingFrame) -> int:
        """Wait until the frame stands, sending it again as often as it takes.

        Raises:
            Deposed: another scheduler has written instead.
        """
        loop = asyncio.get_running_loop()
        while True:
            try:
                self.sequence = await frame.future
                self.confirmed_at = frame.sent_at
                return self.sequence
            except WrongSequence:
                stands = await self._persist(lambda: self._find(frame))
                if stands is not None:
                    self.sequence = stands
                    self.confirmed_at = frame.sent_at
                    return stands
                frame.sent_at = loop.time()
                frame.future = self.append_soon(frame.data, frame.message_id)
            except TransportError as error:
                frame.doubts += 1
                if frame.doubts & (frame.doubts - 1) == 0:  # the first, the second, the fourth…
                    log.warning("%s", _doubt(frame.message_id, error))
                await asyncio.sleep(_AGAIN_S)
                frame.sent_at = loop.time()
                frame.future = self.append_soon(frame.data, frame.message_id)

    async def _persist(self, look: Callable[[], Awaitable[Found]]) -> Found:
        """Look at the journal until it can be read."""
        while True:
            try:
                return await look()
            except TransportError as error:
                log.warning("the end of the journal can't be read, tried again: %s", error)
                await asyncio.sleep(_AGAIN_S)

    async def _find(self, frame: PendingFrame) -> int | None:
        """Where the frame that was refused stands all the same; None when it is to be sent again, for only strays kept it out.

        Raises:
            Deposed: a frame of somebody else's stands there.
        """
        last = await self._last()
        if last is None or last.sequence <= self.sequence:
            await self._await_end(frame)
            return None
        async for stored in self._frames_to(last):
            if _id(stored) == frame.message_id:
                return stored.sequence
            raise Deposed("another scheduler has written to the journal")
        self.sequence = last.sequence
        return None

    async def _await_end(self, frame: PendingFrame) -> None:
        """Nothing stands behind this writer's last frame, and the one after it was refused: give the stream's leader time."""
        now = asyncio.get_running_loop().time()
        frame.behind_at = frame.behind_at or now
        if now - frame.behind_at > _LAG_S:
            raise Deposed("the journal has lost its end")
        await asyncio.sleep(_LAG_AGAIN_S)

    async def verify_after(self, stall_s: float) -> None:
        """If it is longer ago than `stall_s` that this writer was known to lead, make sure that nobody else has written since.

        Raises:
            Deposed: somebody has.
        """
        loop = asyncio.get_running_loop()
        while (asked_at := loop.time()) - self.confirmed_at > stall_s:
            await self._persist(self._verify)
            self.confirmed_at = max(self.confirmed_at, asked_at)

    async def _verify(self) -> None:
        last = await self._last()
        if last is None:
            raise Deposed("the journal is empty")
        async for frame in self._frames_to(last):
            if not _id(frame).startswith(f"{self._writer}-"):
                raise Deposed("another scheduler has written to the journal")

    async def _last(self) -> Stored | None:
        return await self._bus.last(self._subjects.journal_stream, self._subjects.journal)

    async def _frames_to(self, last: Stored) -> AsyncIterator[Stored]:
        """The frames behind this writer's last one; if `last` is one, that is enough. Strays are passed over.

        Raises:
            Deposed: one of them is gone: somebody has made a snapshot of it.
        """
        if last.sequence <= self.sequence:
            return
        if is_frame(last.subject, last.headers, self._subjects):
            yield last
            return
        for sequence in range(self.sequence + 1, last.sequence + 1):
            stored = last if sequence == last.sequence else await self._bus.get(self._subjects.journal_stream, sequence)
            if stored is None:
                raise Deposed("the journal was trimmed ahead of this scheduler")
            if is_frame(stored.subject, stored.headers, self._subjects):
                yield stored
            else:
                self.strays.bury(stored)


class PendingFrame:
    """A frame on its way."""

    __slots__ = ("behind_at", "data", "doubts", "future", "message_id", "sent_at")

    def __init__(self, journal: Journal, data: bytes, message_id: str) -> None:
        self.data = data
        self.message_id = message_id
        self.doubts = 0
        self.behind_at = 0.0
        """When the journal first seemed to have lost its end, by the loop's clock; 0: it never did."""
        self.sent_at = asyncio.get_running_loop().time()
        self.future = journal.append_soon(data, message_id)


def _id(frame: Stored) -> str:
    return frame.headers.get("Nats-Msg-Id", "")


def _doubt(frame: str, error: TransportError) -> str:
    if isinstance(error, StreamFull):
        return f"the journal has no room for frame {frame}: nothing more is decided until a snapshot has made some ({error})"
    return f"journal frame {frame} is in doubt, sent again: {error}"
