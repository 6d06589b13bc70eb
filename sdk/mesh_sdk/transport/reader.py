"""Reading a stream in order from a position, each message once, whatever happens to connections and servers.

A throwaway consumer that acknowledges nothing delivers to standing pulls. Rule: the consumer's own sequence must be the
last plus one; at any doubt (a gap, a lost connection, a missed heartbeat, an error status) the consumer is dropped and
another one, with a new name, begins after the position. Stream sequences can't show a gap: a filter leaves holes.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

from mesh_sdk.transport import streams
from mesh_sdk.transport.backoff import Backoff
from mesh_sdk.transport.bus import Delivery, StreamState
from mesh_sdk.transport.errors import Disconnected, Refused, StreamMissing, TransportError
from mesh_sdk.transport.headers import description, number, origin, parse, status

if TYPE_CHECKING:
    from mesh_sdk.transport.wire import Wire

_NS = 1_000_000_000
_EXPIRES_S = 30
_HEARTBEAT_S = 1.0
_SILENCE_S = 2.2
"""No delivery and no heartbeat for this long: the consumer is gone."""
_PATIENCE_S = 0.5
_PATIENCE_MOST_S = 3.0
_ELECTION_S = 10.0
"""What is asked while a cluster elects is never answered: for so long it is asked again soon, then with more patience each time."""
_DOUBT_S = 2.0
"""A stream that ends before what was read of it is asked for again for so long: its leader may be a new one that lags."""
_PULL_BYTES_MAX = 16 * 1024 * 1024
_PENDING = b"Nats-Pending-Messages"
_ORDERLY_ENDS = ("batch completed", "maxbytes")
"""What a 409 says when a request has simply ended."""

_log = logging.getLogger(__name__)
_encode = msgspec.json.Encoder().encode


class _Created(Struct):
    num_pending: int = 0


class _Consumer:
    """One throwaway consumer: what it has delivered, what it still owes. Dropped at the first doubt."""

    __slots__ = ("deliver", "heard", "inbox", "name", "next", "owed", "sid", "subject", "token")

    def __init__(self, wire: Wire, stream: str, now: float) -> None:
        self.inbox = wire.new_inbox()
        self.token = self.inbox.encode()
        self.name = f"r{wire.unique}{self.inbox.rsplit('.', 1)[1]}"
        self.subject = f"{streams.API}CONSUMER.MSG.NEXT.{stream}.{self.name}"
        self.next = 1
        self.owed = 0
        self.heard = now
        self.sid = 0


class OrderedReader:
    """A `bus.Reader`.

    Args:
        last_per_subject: begin with the last message of each subject instead of with `start`.
        on_restart: called whenever another consumer takes over, before its first delivery.
        on_caught_up: called when `caught_up` turns true.
    """

    def __init__(
        self,
        wire: Wire,
        stream: str,
        subject: str,
        on_message: Callable[[Delivery], None],
        *,
        start: int = 1,
        window: int = 256,
        last_per_subject: bool = False,
        on_restart: Callable[[], None] | None = None,
        on_caught_up: Callable[[], None] | None = None,
    ) -> None:
        self.position = start - 1
        self.caught_up = False
        self._wire = wire
        self._stream = stream
        self._filter = subject
        self._on_message = on_message
        self._window = window
        self._per_subject = last_per_subject
        self._on_restart = on_restart
        self._on_caught_up = on_caught_up
        self._created = ""
        self._consumer: _Consumer | None = None
        self._paused = False
        self._closed = False
        self._creating: asyncio.Task[None] | None = None
        self._hurry = asyncio.Event()
        self._watchdog: asyncio.TimerHandle | None = None
        self._remove_listener: Callable[[], None] | None = None

    # ---- life

    async def start(self) -> None:
        """Begin; returns when the first consumer stands, which may wait for the stream or the connection.

        Raises:
            Disconnected: when the connection, or this reader, is closed meanwhile.
        """
        self._remove_listener = self._wire.on_connection(self._connection)
        self._restart("start")
        self._watch()
        if self._creating is not None:
            await asyncio.wait({self._creating})
        if self._consumer is None and (self._closed or self._wire.closed):
            raise Disconnected(f"{self._stream}: closed before it could be read")

    async def close(self) -> None:
        """Deliver nothing more."""
        self._closed = True
        if self._remove_listener is not None:
            self._remove_listener()
        if self._watchdog is not None:
            self._watchdog.cancel()
        if self._creating is not None:
            self._creating.cancel()
        self._drop()

    def pause(self) -> None:
        """Ask for no more; what was asked for still comes."""
        self._paused = True

    def resume(self) -> None:
        """Go on after `pause`."""
        self._paused = False
        self._pull()

    # ---- the consumer

    def _connection(self, up: bool) -> None:
        if up:
            self._hurry.set()
        else:
            self._restart("the connection was lost")

    def _restart(self, why: str) -> None:
        if self._closed or self._wire.closed:
            return self._drop()
        if self._consumer is not None:
            _log.info("reading %s %s anew after %d: %s", self._stream, self._filter, self.position, why)
        self._drop()
        self.caught_up = False
        if self._creating is None or self._creating.done():
            self._creating = self._wire.loop.create_task(self._create(), name=f"reader of {self._stream}")

    def _drop(self) -> None:
        consumer, self._consumer = self._consumer, None
        if consumer is None:
            return
        self._wire.unsubscribe_raw(consumer.sid)
        self._wire.publish(f"{streams.API}CONSUMER.DELETE.{self._stream}.{consumer.name}", b"")

    async def _create(self) -> None:
        backoff, patience = Backoff(0.05, 0.3), _PATIENCE_S
        began = self._wire.loop.time()
        while not self._closed:
            try:
                await self._wire.wait_connected()
                return await self._create_one(patience)
            except TransportError as error:
                if self._wire.loop.time() - began > _ELECTION_S:
                    patience = min(_PATIENCE_MOST_S, 1.5 * patience)
                if self._wire.closed:
                    return
                if isinstance(error, Refused) and not isinstance(error, StreamMissing):
                    _log.warning("no consumer to read %s %s: %s", self._stream, self._filter, error)
                await backoff.wait(self._hurry)

    async def _create_one(self, patience: float) -> None:
        consumer = _Consumer(self._wire, self._stream, self._wire.loop.time())

        def handle(subject: bytes, reply: bytes, data: bytes, headers: bytes | None) -> None:
            self._take(consumer, subject, reply, data, headers)

        consumer.sid = self._wire.subscribe_raw(consumer.inbox, handle)
        name = f"CONSUMER.CREATE.{self._stream}.{consumer.name}.{self._filter}"
        try:
            if not self._per_subject:
                await self._find_place(patience)
            body = {"stream_name": self._stream, "config": self._configuration(consumer.name), "action": "create"}
            created = await streams.call(self._wire, name, body, _Created, 2 * patience)
            if not self._wire.connected:
                raise Disconnected("lost while the consumer was made")
        except BaseException:
            self._wire.unsubscribe_raw(consumer.sid)
            raise
        consumer.heard = self._wire.loop.time()
        self._consumer = consumer
        if self._on_restart is not None:
            self._on_restart()
        if created.num_pending == 0:
            self._reached_end()
        self._pull()

    async def _find_place(self, patience: float) -> None:
        """A stream that lost its end, or was made anew, hands out old sequences again: what it stores next is news."""
        state = await self._state(patience)
        known, self._created = self._created, state.created
        place = self.position
        if known and known != state.created:
            place = 0
        elif state.last < place:
            place = state.last
        if place != self.position:
            _log.error("stream %s is not what it was: %d was read, it goes on after %d", self._stream, self.position, place)
        self.position = place

    async def _state(self, patience: float) -> StreamState:
        """The stream as it is; one that seems to have lost its end, only when it goes on to say so."""
        backoff = Backoff(0.1, 0.8)
        deadline = self._wire.loop.time() + _DOUBT_S
        while True:
            state = await streams.stream_state(self._wire, self._stream, patience)
            if state is None:
                raise StreamMissing(f"{self._stream}: there is no such stream")
            whole = state.last >= self.position or self._created not in ("", state.created)
            if whole or self._wire.loop.time() >= deadline:
                return state
            _log.info("stream %s ends at %d, %d was read: it is asked for again", self._stream, state.last, self.position)
            await backoff.wait(self._hurry)

    def _configuration(self, name: str) -> dict[str, Any]:
        config: dict[str, Any] = {
            "name": name,
            "filter_subject": self._filter,
            "ack_policy": "none",
            "mem_storage": True,
            "num_replicas": 1,
            "inactive_threshold": 2 * _EXPIRES_S * _NS,
        }
        if self._per_subject:
            config["deliver_policy"] = "last_per_subject"
        else:
            config["deliver_policy"] = "by_start_sequence"
            config["opt_start_seq"] = self.position + 1
        return config

    # ---- deliveries

    def _pull(self) -> None:
        consumer = self._consumer
        if consumer is None or self._paused or consumer.owed > self._window // 2:
            return
        wanted = self._window - consumer.owed
        request = {
            "batch": wanted,
            "expires": _EXPIRES_S * _NS,
            "idle_heartbeat": int(_HEARTBEAT_S * _NS),
            "max_bytes": max(_PULL_BYTES_MAX, 2 * self._wire.max_payload),
        }
        if not consumer.owed:
            consumer.heard = self._wire.loop.time()
        consumer.owed += wanted
        self._wire.publish(consumer.subject, _encode(request), consumer.inbox)

    def _take(self, consumer: _Consumer, subject: bytes, reply: bytes, data: bytes, headers: bytes | None) -> None:
        if consumer is not self._consumer:
            return
        consumer.heard = self._wire.loop.time()
        if subject == consumer.token:
            self._take_status(consumer, headers)
            return
        came = origin(reply)
        if came.consumer_sequence != consumer.next:
            self._restart(f"delivery {came.consumer_sequence} came instead of {consumer.next}")
            return
        consumer.next += 1
        consumer.owed -= 1
        news = came.sequence > self.position or self._per_subject  # a leader that lags begins a consumer at its own end
        self.position = came.sequence if news else self.position
        found = parse(headers) if headers else None
        reached = came.pending == 0 and not self.caught_up
        self.caught_up = came.pending == 0
        try:
            name = subject.decode(errors="replace")  # a server takes any bytes: what was stored must be told
            if news:
                self._on_message(Delivery(came.sequence, came.time_ns // 1_000_000, name, data, came.pending, found))
        finally:
            if reached:
                self._reached_end()
            self._pull()

    def _reached_end(self) -> None:
        self.caught_up = True
        if self._on_caught_up is not None:
            self._on_caught_up()

    def _take_status(self, consumer: _Consumer, headers: bytes | None) -> None:
        code = status(headers)
        if code == 100 or headers is None:
            return
        if code == 408 or (code == 409 and any(end in description(headers) for end in _ORDERLY_ENDS)):
            consumer.owed = max(0, consumer.owed - number(headers, _PENDING))
            self._pull()
            return
        self._restart(f"status {code} {description(headers)}")

    def _watch(self) -> None:
        consumer = self._consumer
        if consumer is not None and consumer.owed and self._wire.loop.time() - consumer.heard > _SILENCE_S:
            self._restart("nothing was heard of the consumer")
        self._watchdog = self._wire.loop.call_later(_HEARTBEAT_S / 2, self._watch)
