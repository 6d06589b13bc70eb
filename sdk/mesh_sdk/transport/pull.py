"""Pulling a shared lane: standing requests for as many messages as there is room for.

Deliveries carry the stream's subject, not the request they answer, so demand is counted in total: less one for each
delivery, less what an ended request says it still owed. Rule: never more outstanding at the server than `demand()`
says; every way in which a request ends (filled, expired, refused, lost) gives its count back.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from mesh_sdk.transport import streams
from mesh_sdk.transport.backoff import Backoff
from mesh_sdk.transport.bus import LaneMessage
from mesh_sdk.transport.headers import description, number, origin, status, value

if TYPE_CHECKING:
    from mesh_sdk.transport.wire import Wire

_EXPIRES_S = 2.0
"""Short: a request of a worker that went silent must not swallow messages for long; no heartbeats are needed then."""
_GRACE_S = 1.0
_NS = 1_000_000_000
_ACK = b"+ACK"
_PENDING = b"Nats-Pending-Messages"

_log = logging.getLogger(__name__)


class StandingPuller:
    """A `bus.Puller`."""

    def __init__(
        self, wire: Wire, stream: str, consumer: str, demand: Callable[[], int], on_message: Callable[[LaneMessage], None]
    ) -> None:
        self._wire = wire
        self._what = f"{stream} {consumer}"
        self._subject = f"{streams.API}CONSUMER.MSG.NEXT.{stream}.{consumer}"
        self._demand = demand
        self._on_message = on_message
        self._inbox = wire.new_inbox()
        self._inbox_bytes = self._inbox.encode()
        self._sid: int | None = None
        self._owed = 0
        self._requests: dict[bytes, tuple[int, float]] = {}
        self._count = 0
        self._backoff = Backoff(0.05, 0.5)
        self._quiet_until = 0.0
        self._timer = wire.loop.call_later(0, lambda: None)
        self._remove_listener: Callable[[], None] | None = None

    async def start(self) -> None:
        """Begin to pull."""
        self._remove_listener = self._wire.on_connection(self._connection)
        self._sid = self._wire.subscribe_raw(self._inbox + ".*", self._take)
        self._tick()

    async def close(self) -> None:
        """Take nothing more. What the server sends until it knows is delivered again, to somebody, after ack_wait."""
        self._timer.cancel()
        if self._remove_listener is not None:
            self._remove_listener()
        if self._sid is not None:
            self._wire.unsubscribe_raw(self._sid)
            self._sid = None

    def poke(self) -> None:
        """Demand may have grown: ask for the difference, if it is worth a request."""
        missing = self._demand() - self._owed
        if missing <= 0 or missing < self._owed or self._sid is None or not self._wire.connected:
            return
        now = self._wire.loop.time()
        if now < self._quiet_until:
            return
        self._count += 1
        token = b"%x" % self._count
        self._requests[token] = (missing, now)
        self._owed += missing
        request = b'{"batch":%d,"expires":%d}' % (missing, _EXPIRES_S * _NS)
        self._wire.publish(self._subject, request, f"{self._inbox}.{self._count:x}")

    def _connection(self, up: bool) -> None:
        self._forget()
        if up:
            self._quiet_until = 0.0
            self.poke()

    def _forget(self) -> None:
        self._requests.clear()
        self._owed = 0

    def _take(self, subject: bytes, reply: bytes, data: bytes, headers: bytes | None) -> None:
        if subject.startswith(self._inbox_bytes):
            self._take_status(subject[len(self._inbox_bytes) + 1 :], headers)
            return
        came = origin(reply)
        self._owed = max(0, self._owed - 1)
        self._backoff.reset()
        acks = reply.decode()
        try:
            self._on_message(LaneMessage(came.sequence, came.deliveries, data, partial(self._acknowledge, acks), acks))
        finally:
            self.poke()

    def _acknowledge(self, reply: str) -> None:
        self._wire.publish(reply, _ACK)

    def _take_status(self, token: bytes, headers: bytes | None) -> None:
        code = status(headers)
        request = self._requests.pop(token, None)
        if headers is None or request is None or code == 100:
            return
        if value(headers, _PENDING) is not None:
            self._owed = max(0, self._owed - number(headers, _PENDING))
        else:
            self._owed = max(0, self._owed - request[0])
        if code in (404, 408):
            self._backoff.reset()
            self.poke()
            return
        text = description(headers)
        if code == 503 or any(word in text for word in ("leadership", "shutdown", "deleted")):
            self._forget()
        else:
            _log.warning("pulling %s: status %d %s", self._what, code, text)
        self._quiet_until = self._wire.loop.time() + self._backoff.next()
        self._tick()

    def _tick(self) -> None:
        """Ask again after a quiet time, and give up requests that must have ended without a word."""
        self._timer.cancel()
        now = self._wire.loop.time()
        for token in [token for token, (_, sent) in self._requests.items() if now - sent > _EXPIRES_S + _GRACE_S]:
            del self._requests[token]
        self._owed = min(self._owed, sum(batch for batch, _ in self._requests.values()))
        self.poke()
        wait = max(0.01, self._quiet_until - now) if self._quiet_until > now else _EXPIRES_S / 2
        self._timer = self._wire.loop.call_later(wait, self._tick)
