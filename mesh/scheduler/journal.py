"""The journal, written: one fenced frame in flight, sent again as it is until it is known to stand or to be refused.

Rule: after any doubt the *identical* frame goes out again; nothing is concluded from absence. Only "somebody else
wrote there" ends a term.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import msgspec

from mesh.core.records import JournalFrame
from mesh_sdk.protocol.subjects import Subjects
from mesh_sdk.transport.bus import Bus, Stored
from mesh_sdk.transport.errors import StreamFull, TransportError, WrongSequence

log = logging.getLogger(__name__)

encode_frame: Callable[[JournalFrame], bytes] = msgspec.json.Encoder().encode
decode_frame = msgspec.json.Decoder(JournalFrame).decode

_ACK_TIMEOUT_S = 2.0
_AGAIN_S = 0.05


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
        self.sequence = sequence
        self.confirmed_at = asyncio.get_running_loop().time()
        """When, by the loop's clock, what last proved this writer's leadership was asked: a frame that stands, or a look."""

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
                self.sequence = await self._mine(frame.message_id)
                self.confirmed_at = frame.sent_at
                return self.sequence
            except TransportError as error:
                frame.doubts += 1
                if frame.doubts & (frame.doubts - 1) == 0:  # the first, the second, the fourth…
                    log.warning("%s", _doubt(frame.message_id, error))
                await asyncio.sleep(_AGAIN_S)
                frame.sent_at = loop.time()
                frame.future = self.append_soon(frame.data, frame.message_id)

    async def _mine(self, message_id: str) -> int:
        """The sequence of the last frame if it is the one that was sent.

        Raises:
            Deposed: it is somebody else's.
        """
        while True:
            try:
                last = await self._bus.last(self._subjects.journal_stream, self._subjects.journal)
            except TransportError as error:
                log.warning("the journal's last frame can't be read, tried again: %s", error)
                await asyncio.sleep(_AGAIN_S)
                continue
            if last is not None and last.headers.get("Nats-Msg-Id") == message_id:
                return last.sequence
            raise Deposed("another scheduler has written to the journal")

    async def verify_after(self, stall_s: float) -> None:
        """If it is longer ago than `stall_s` that this writer was known to lead, make sure that nobody else has written since.

        Raises:
            Deposed: somebody has.
        """
        loop = asyncio.get_running_loop()
        while (asked_at := loop.time()) - self.confirmed_at > stall_s:
            try:
                last = await self._bus.last(self._subjects.journal_stream, self._subjects.journal)
            except TransportError as error:
                log.warning("the journal's last frame can't be read, tried again: %s", error)
                await asyncio.sleep(_AGAIN_S)
                continue
            if last is None or not self._wrote(last):
                raise Deposed("another scheduler has written to the journal")
            self.confirmed_at = max(self.confirmed_at, asked_at)

    def _wrote(self, last: Stored) -> bool:
        """Whether a frame is one of this term's."""
        return last.sequence <= self.sequence or last.headers.get("Nats-Msg-Id", "").startswith(f"{self._writer}-")


class PendingFrame:
    """A frame on its way."""

    __slots__ = ("data", "doubts", "future", "message_id", "sent_at")

    def __init__(self, journal: Journal, data: bytes, message_id: str) -> None:
        self.data = data
        self.message_id = message_id
        self.doubts = 0
        self.sent_at = asyncio.get_running_loop().time()
        self.future = journal.append_soon(data, message_id)


def _doubt(frame: str, error: TransportError) -> str:
    if isinstance(error, StreamFull):
        return f"the journal has no room for frame {frame}: nothing more is decided until a snapshot has made some ({error})"
    return f"journal frame {frame} is in doubt, sent again: {error}"
