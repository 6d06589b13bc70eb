"""A worker's private lane: stored in a stream, pushed by republish, applied strictly in order.

The stream says with each pushed message what came before it on this lane (`Nats-Last-Sequence`); if that is more than
was applied, something was missed, and the lane is read from the stream until it is whole again. What was purged
meanwhile was answered: it need not be found. Rule: while in doubt (at the start, after a reconnect, at a gap) pushed
messages wait; they are applied in sequence when the lane has been read.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from mesh_sdk.transport import streams
from mesh_sdk.transport.backoff import Backoff
from mesh_sdk.transport.bus import Stored
from mesh_sdk.transport.errors import StreamMissing, TransportError
from mesh_sdk.transport.headers import number, time_ns, value

if TYPE_CHECKING:
    from mesh_sdk.transport.wire import Wire

_WAITING_MAX = 4096
"""Pushed messages kept while the lane is read; past it they are dropped, since reading will find them."""

_log = logging.getLogger(__name__)


class _Pushed(NamedTuple):
    sequence: int
    previous: int
    """What came before it on this lane; 0 also when that was purged."""
    data: bytes
    stamp: str


class PushedLane:
    """A `bus.PrivateLane`.

    Args:
        stream: the lanes' stream; it republishes `lane` to `push` and allows direct get.
        on_message: gets (sequence, data), in order, each once.
        on_reset: called when the stream turns out to have been made anew; what it holds follows from the beginning.
    """

    def __init__(
        self,
        wire: Wire,
        stream: str,
        lane: str,
        push: str,
        on_message: Callable[[int, bytes], None],
        on_reset: Callable[[], None],
    ) -> None:
        self._wire = wire
        self._stream = stream
        self._lane = lane
        self._push = push
        self._on_message = on_message
        self._on_reset = on_reset
        self._position = 0
        self._stamp = ""
        """The server's time of the message at the position: a later one with a lower sequence is of a new stream."""
        self._created = ""
        self._waiting: dict[int, _Pushed] = {}
        self._sid: int | None = None
        self._reading: asyncio.Task[None] | None = None
        self._again = False
        self._identify = True
        self._checking: asyncio.Task[None] | None = None
        self._hurry = asyncio.Event()
        self._remove_listener: Callable[[], None] | None = None

    # ---- life

    async def start(self) -> None:
        """Subscribe, then apply what the lane holds already; returns when that is done.

        While there is no such stream it waits for it.

        Raises:
            TimedOut: when there was no connection for long.
        """
        self._remove_listener = self._wire.on_connection(self._connection)
        self._sid = self._wire.subscribe_raw(self._push, self._take)
        await self._wire.in_force()
        self._read()
        if self._reading is not None:
            await asyncio.wait({self._reading})

    async def close(self) -> None:
        """Apply nothing more."""
        if self._remove_listener is not None:
            self._remove_listener()
        if self._sid is not None:
            self._wire.unsubscribe_raw(self._sid)
            self._sid = None
        for task in (self._reading, self._checking):
            if task is not None:
                task.cancel()

    def check(self) -> None:
        """Look whether the lane's last message was missed; call it now and then, e.g. with each heartbeat."""
        if self._sid is None or self._busy or not self._wire.connected:
            return
        if self._checking is None or self._checking.done():
            self._checking = self._wire.loop.create_task(self._look(), name=f"look at {self._lane}")

    # ---- pushed messages

    @property
    def _busy(self) -> bool:
        return self._reading is not None and not self._reading.done()

    def _connection(self, up: bool) -> None:
        if up:
            self._hurry.set()
        elif not self._wire.closed:
            self._identify = True
            self._read()

    def _take(self, subject: bytes, reply: bytes, data: bytes, headers: bytes | None) -> None:
        sequence = number(headers, b"Nats-Sequence")
        if not sequence:
            _log.warning("%s: a message that no stream has republished was dropped", self._push)
            return
        stamp = (value(headers, b"Nats-Time-Stamp") or b"").decode()
        pushed = _Pushed(sequence, number(headers, b"Nats-Last-Sequence"), data, stamp)
        if not self._busy and self._follows(pushed):
            self._apply(sequence, data, stamp)
        elif sequence > self._position or self._newer(stamp):
            self._keep(pushed)

    def _follows(self, pushed: _Pushed) -> bool:
        return pushed.sequence > self._position >= pushed.previous

    def _keep(self, pushed: _Pushed) -> None:
        """Something was missed, or is being read just now: this one waits until the lane is whole."""
        if len(self._waiting) < _WAITING_MAX:
            self._waiting[pushed.sequence] = pushed
        if pushed.sequence <= self._position:
            self._identify = True
        self._read()
        self._hurry.set()

    def _newer(self, stamp: str) -> bool:
        return bool(self._stamp) and time_ns(stamp) > time_ns(self._stamp)

    def _apply(self, sequence: int, data: bytes, stamp: str) -> None:
        self._position = sequence
        self._stamp = stamp
        try:
            self._on_message(sequence, data)
        except Exception:  # a faulty callback must not end the lane
            _log.exception("%s: the handler of message %d failed", self._lane, sequence)

    # ---- reading the lane

    def _read(self) -> None:
        self._again = True
        if not self._busy:
            self._reading = self._wire.loop.create_task(self._catch_up(), name=f"read {self._lane}")

    async def _catch_up(self) -> None:
        backoff = Backoff(0.05, 1.0)
        while self._again and self._sid is not None:
            try:
                await self._wire.wait_connected()
                self._again = False
                await self._catch_up_once()
            except StreamMissing:  # lost with its server: the leader makes it again
                self._again = True
                await backoff.wait(self._hurry)
            except TransportError as error:
                if self._wire.closed:
                    return
                self._again = True
                _log.warning("can't read lane %s: %s", self._lane, error)
                await backoff.wait(self._hurry)

    async def _catch_up_once(self) -> None:
        if self._identify:
            await self._check_identity()
        for message in await streams.read(self._wire, self._stream, self._lane, self._position + 1):
            self._apply_stored(message)
        for sequence in sorted(self._waiting):
            pushed = self._waiting[sequence]
            if sequence > self._position and not self._follows(pushed):
                self._again = True  # one before it had no room to wait
                return
            del self._waiting[sequence]
            if sequence > self._position:
                self._apply(sequence, pushed.data, pushed.stamp)

    async def _check_identity(self) -> None:
        state = await streams.stream_state(self._wire, self._stream)
        if state is None:
            raise StreamMissing(f"{self._stream}: there is no such stream")
        self._identify = False
        if self._created and (state.created != self._created or state.last < self._position):  # what no stream has was pushed by a stranger
            _log.warning("the lanes of %s were made anew", self._stream)
            self._position = 0
            self._stamp = ""
            born = time_ns(state.created)
            self._waiting = {at: pushed for at, pushed in self._waiting.items() if time_ns(pushed.stamp) > born}
            self._on_reset()
        self._created = state.created

    def _apply_stored(self, message: Stored) -> None:
        self._waiting.pop(message.sequence, None)
        self._apply(message.sequence, message.data, message.headers.get("Nats-Time-Stamp", ""))

    async def _look(self) -> None:
        try:
            last = await streams.last_direct(self._wire, self._stream, self._lane)
        except TransportError as error:
            _log.debug("can't look at lane %s: %s", self._lane, error)
            if isinstance(error, StreamMissing):
                self._identify = True
                self._read()
            return
        if last is None:
            return
        stamp = last.headers.get("Nats-Time-Stamp", "")
        if last.sequence > self._position:
            self._read()
        elif last.sequence < self._position and self._newer(stamp):
            self._identify = True
            self._read()
