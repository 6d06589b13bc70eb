"""Natural batching: the records of one sender to one subject travel in frames, one stored message each.

With nothing in flight a frame leaves at once; what is put while one is in flight goes into the next. No timers, no
waiting: idle, a frame holds one record, busy, hundreds share one write. Rule: one frame in flight, and the very same
frame (same message id) is sent again until the stream has it, so that nothing is lost and the order stays.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import Any

from mesh_sdk.protocol.codec import FRAME_BYTES_MAX, FRAME_RECORDS_MAX, encode
from mesh_sdk.transport.backoff import Backoff
from mesh_sdk.transport.bus import Bus
from mesh_sdk.transport.errors import Busy, Disconnected, StreamFull, StreamMissing, TimedOut, TransportError

BUFFER_RECORDS_MAX = 20_000
BUFFER_BYTES_MAX = 32 * 1024 * 1024

_APPEND_TIMEOUT_S = 2.0
"""Short: what was sent to a stream without a leader is never answered, and sending again doubles nothing."""
_PASSING = (TimedOut, Disconnected, Busy, StreamFull, StreamMissing)
"""What a frame waits out: the same may well be accepted later."""

_log = logging.getLogger(__name__)


class _Frame:
    """Records that travel together; `future` is the sequence under which they were stored.

    A frame that was cut has several pieces with one future: the `final` one completes it.
    """

    __slots__ = ("final", "future", "holds", "message_id", "records", "resent", "size")

    def __init__(self, future: asyncio.Future[int], *, final: bool = True) -> None:
        self.final = final
        self.records: list[Any] = []
        self.holds: list[Any] = []
        self.size = 0
        self.future = future
        self.message_id = ""
        self.resent = 0


class FrameWriter:
    """Sends records to one subject, in order, each stored once.

    Args:
        bus: where to.
        subject: one stream's.
        wrap: makes the frame's struct from its records and how often it was sent before.
        name: prefix of the message ids; no other writer, of this process or any, ever had it.
        on_stored: gets the holds of the frame's records once it is stored, before its future is done.
        records_max: most records of a frame.
        bytes_max: most bytes of a frame, unless a single record has more.
        buffer_max: records in the buffer at which `full` becomes true.
        buffer_bytes_max: the same for bytes (of the size hints).
    """

    def __init__(
        self,
        bus: Bus,
        subject: str,
        wrap: Callable[[list[Any], int], Any],
        *,
        name: str,
        on_stored: Callable[[list[Any]], None] | None = None,
        records_max: int = FRAME_RECORDS_MAX,
        bytes_max: int = FRAME_BYTES_MAX,
        buffer_max: int = BUFFER_RECORDS_MAX,
        buffer_bytes_max: int = BUFFER_BYTES_MAX,
    ) -> None:
        self.frames = 0
        """Frames stored so far."""
        self._bus = bus
        self._subject = subject
        self._wrap = wrap
        self._name = name
        self._on_stored = on_stored
        self._records_max = records_max
        self._bytes_max = bytes_max
        self._buffer_max = buffer_max
        self._buffer_bytes_max = buffer_bytes_max
        self._loop = asyncio.get_running_loop()
        self._queue: deque[_Frame] = deque()
        self._records = 0
        self._bytes = 0
        self._ids = 0
        self._scheduled = False
        self._in_flight = False
        self._closed = False
        self._retry: asyncio.TimerHandle | None = None
        self._backoff = Backoff(0.05, 1.0)
        self._room = asyncio.Event()
        self._remove_listener = bus.on_connection(self._connection)

    # ---- putting

    def put(self, record: Any, size_hint: int = 0, hold: Any = None) -> asyncio.Future[int]:
        """Have a record sent. Never refuses: whoever puts stops making more while `full`.

        Args:
            record: anything that `wrap` takes.
            size_hint: about how many bytes it encodes to; needed only for records that may be large.
            hold: handed to `on_stored`.

        Returns:
            The frame's future, shared by its records: the stream's sequence, or the error for which the server refused
            the frame for good. Await it through `asyncio.shield`.
        """
        queue = self._queue
        frame = queue[-1] if queue else None
        if frame is None or frame.message_id or len(frame.records) >= self._records_max or frame.size + size_hint > self._bytes_max:
            frame = _Frame(self._loop.create_future())
            queue.append(frame)
        frame.records.append(record)
        frame.holds.append(hold)
        frame.size += size_hint
        self._records += 1
        self._bytes += size_hint
        if not self._scheduled and not self._in_flight and self._retry is None:
            self._scheduled = True
            self._loop.call_soon(self._send)
        return frame.future

    @property
    def full(self) -> bool:
        """Whether the buffer is at its limit: make no more records until there is room."""
        return self._records >= self._buffer_max or self._bytes >= self._buffer_bytes_max

    @property
    def waiting(self) -> int:
        """Records put and not yet stored."""
        return self._records

    async def wait_room(self) -> None:
        """Return when the buffer is not full."""
        while self.full and not self._closed:
            self._room.clear()
            await self._room.wait()

    async def flush(self, timeout: float) -> None:
        """Return when everything put so far is stored (or refused for good).

        Raises:
            TimedOut: it was not, in time.
        """
        if not self._queue:
            return
        _, pending = await asyncio.wait({self._queue[-1].future}, timeout=timeout)
        if pending:
            raise TimedOut(f"{self._subject}: {self._records} records are not stored after {timeout:g} s")

    async def close(self) -> None:
        """Send no more. What is not stored by now may or may not be: its futures end with `Disconnected`."""
        self._closed = True
        self._remove_listener()
        if self._retry is not None:
            self._retry.cancel()
        for frame in self._queue:
            _end(frame, Disconnected(f"{self._subject}: the writer was closed before the server had everything"))
        self._queue.clear()
        self._records = self._bytes = 0
        self._room.set()

    # ---- sending

    def _send(self) -> None:
        self._scheduled = False
        self._retry = None
        if self._in_flight or self._closed or not self._queue or not self._bus.connected:
            return  # when there is a connection again, `_connection` sends
        frame = self._queue[0]
        try:
            data = encode(self._wrap(frame.records, frame.resent))
        except Exception as error:  # whatever a record holds, it must not stop those behind it
            _log.exception("%s: a frame of %d records can't be encoded", self._subject, len(frame.records))
            return self._set_aside(frame, error)
        if len(data) > self._bytes_max and len(frame.records) > 1 and not frame.message_id:
            self._split(frame, len(data) // self._bytes_max + 1)
            return self._send()
        if not frame.message_id:
            self._ids += 1
            frame.message_id = f"{self._name}-{self._ids}"
        self._in_flight = True
        stored = self._bus.append_soon(self._subject, data, message_id=frame.message_id, timeout=_APPEND_TIMEOUT_S)
        stored.add_done_callback(self._answered)

    def _split(self, frame: _Frame, pieces: int) -> None:
        """Cut a frame in pieces; its future waits for the last of them."""
        count = len(frame.records)
        length = -(-count // min(pieces, count))
        cuts = range(0, count, length)
        self._queue.popleft()
        for at in reversed(cuts):
            piece = _Frame(frame.future, final=frame.final and at == cuts[-1])
            piece.records = frame.records[at : at + length]
            piece.holds = frame.holds[at : at + length]
            piece.size = frame.size * len(piece.records) // count
            self._queue.appendleft(piece)

    def _set_aside(self, frame: _Frame, error: Exception) -> None:
        """Find the record that can't be encoded, and refuse it alone."""
        if len(frame.records) > 1:
            self._split(frame, 2)
        else:
            self._remove(frame)
            _end(frame, error)
        self._send()

    def _remove(self, frame: _Frame) -> None:
        self._queue.popleft()
        self._records -= len(frame.records)
        self._bytes = max(0, self._bytes - frame.size)
        if not self.full:
            self._room.set()

    def _answered(self, stored: asyncio.Future[int]) -> None:
        self._in_flight = False
        error = Disconnected("cancelled") if stored.cancelled() else stored.exception()
        if self._closed:
            return
        if isinstance(error, _PASSING):
            frame = self._queue[0]
            frame.resent += 1
            if frame.resent == 1:
                _log.warning("%s: a frame of %d records waits: %s", self._subject, len(frame.records), error)
            self._retry = self._loop.call_later(self._backoff.next(), self._send)
            return
        self._backoff.reset()
        frame = self._queue[0]
        self._remove(frame)
        if error is None:
            self._stored(frame, stored.result())
        else:
            _log.error("%s: a frame of %d records was refused: %s", self._subject, len(frame.records), error)
            _end(frame, error)
        self._send()

    def _stored(self, frame: _Frame, sequence: int) -> None:
        self.frames += 1
        if self._on_stored is not None:
            try:
                self._on_stored(frame.holds)
            except Exception:  # the frame is stored, whatever the callback makes of it: the next ones have to go on
                _log.exception("%s: on_stored failed", self._subject)
        if frame.final and not frame.future.done():
            frame.future.set_result(sequence)

    def _connection(self, up: bool) -> None:
        if not up or self._in_flight:
            return
        if self._retry is not None:
            self._retry.cancel()
        self._backoff.reset()
        self._send()


def _end(frame: _Frame, error: BaseException) -> None:
    if not frame.future.done():
        frame.future.set_exception(error if isinstance(error, TransportError) else TransportError(str(error)))
        frame.future.exception()  # nobody has to look at it
