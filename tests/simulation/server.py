"""The simulated NATS server: routes core messages, stores in streams, answers the JetStream API, can stop and come back.

Rule: what clients see depends on the order in which their bytes arrive and on nothing else; every delay and loss is drawn
from the network's chance.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from typing import Any

import msgspec

from mesh_sdk.transport.bus import IN_PROGRESS
from tests.simulation.api import Api
from tests.simulation.connection import Connection
from tests.simulation.consumer import Consumer
from tests.simulation.network import SAME_MOMENT_S, Line, Network
from tests.simulation.process import OUTSIDE
from tests.simulation.stream import TORN, Away, Message, Rejected, Stream, batch_place, stamp, ttl_s
from tests.simulation.subscriptions import Subscriptions

log = logging.getLogger(__name__)

EPOCH_NS = 1_790_000_000_000_000_000
"""The server's wall clock at the loop's zero."""

Later = asyncio.TimerHandle


class Server:
    """One server (or a cluster seen as one: `lone` false).

    A lone server's restart loses what is in memory, the streams themselves included. When a cluster is restarted, one server after the
    other, what has three copies stays, and a stream in memory with one copy is empty (measured: `created` is the same, its consumers
    are there and know nothing). No stream ever goes back to an older state.

    Args:
        network: delays, losses.
        lone: there is one server.
        lanes_bytes_max: what the operator lets a memory stream have.
    """

    def __init__(self, network: Network, *, lone: bool, lanes_bytes_max: int) -> None:
        self.network = network
        self.lone = lone
        self.lanes_bytes_max = lanes_bytes_max
        self.loop = network.loop
        self.up = True
        self.streams: dict[str, Stream] = {}
        self.connections: list[Connection] = []
        self.subscriptions = Subscriptions()
        self.batches: dict[str, list[tuple[str, bytes, bytes]]] = {}
        self.api = Api(self)
        self.stalled_until = 0.0
        self.on_stored: list[Callable[[Stream, Message], None]] = []
        self.on_published: list[Callable[[str, bytes], None]] = []
        self.trace: Callable[[str], None] = lambda text: None
        self.struck: Counter[str] = Counter()
        """What was lost, refused or repeated here, and how often; whoever causes faults counts them here, too."""
        self._life = 0

    @property
    def now(self) -> float:
        return self.loop.time()

    def wall_ns(self) -> int:
        """The server's clock."""
        return EPOCH_NS + int(self.loop.time() * 1_000_000_000)

    def later(self, delay_s: float, call: Callable[..., None], *args: Any) -> Later:
        """Have something happen in this server's present life."""
        life = self._life

        def happen() -> None:
            if self._life == life:
                call(*args)

        return self.loop.call_later(max(delay_s, 0.0), happen, context=OUTSIDE.context)

    # ---- its life

    def stop(self) -> None:
        """Die: connections are cut."""
        self.up = False
        self._life += 1
        for connection in tuple(self.connections):
            connection.cut()
        self.batches.clear()
        for stream in list(self.streams.values()):
            for consumer in list(stream.consumers.values()):
                if self.lone or not consumer.explicit:
                    consumer.delete(b"")
                    del stream.consumers[consumer.name]
            if stream.memory and self.lone:
                del self.streams[stream.name]
            elif stream.memory and stream.lone:
                stream.lose()
                stream.away = None
                stream.held.clear()

    def start(self) -> None:
        """Come back."""
        self.up = True
        for stream in self.streams.values():
            for consumer in stream.consumers.values():
                consumer.requests.clear()
                for sequence, (_, timer) in tuple(consumer.unacked.items()):
                    timer.cancel()
                    consumer.unacked[sequence] = (0, self.later(consumer.ack_wait_s, consumer._unanswered, sequence))
            for message in tuple(stream.messages.values()):
                self._expire_later(stream, message)

    def leave(self, stream: Stream, how: Away) -> None:
        """The server of a cluster that has this stream, which has one copy, is away."""
        stream.away = how

    def come_back(self, stream: Stream) -> None:
        """It is there again: from a restart without what was in its memory, else with all that has come meanwhile."""
        if self.streams.get(stream.name) is not stream or stream.away is None:
            return
        if stream.away is Away.DEAD:
            stream.lose()
            stream.held.clear()
        stream.away = None
        held, stream.held = stream.held, []
        for call, args in held:
            call(*args)

    def attach(self, connection: Connection) -> None:
        """A client is there."""
        self.connections.append(connection)

    def detach(self, connection: Connection) -> None:
        """A client is gone, and with it whom it listens for."""
        if connection in self.connections:
            self.connections.remove(connection)
        self.subscriptions.drop(connection)

    # ---- what arrives

    def published(self, connection: Connection, subject: str, reply: str, headers: bytes, data: bytes) -> None:
        """A client's message has arrived."""
        if subject.startswith("$JS."):
            if subject.startswith("$JS.ACK."):
                self._acked(subject, data)
            else:
                self.jetstream(self.api.call, subject, reply, data)
            return
        for stream in self.streams.values():
            if stream.takes(subject):
                self.jetstream(self._store, stream, subject, reply, headers, data)
                return
        self.route(subject, reply, headers, data)

    def route(self, subject: str, reply: str, headers: bytes, data: bytes) -> None:
        """A core message: to whoever listens, else its sender is told that nobody does."""
        for observe in self.on_published:
            observe(subject, data)
        found = self.subscriptions.of(subject)
        for connection, sid in found:
            if self.network.loses_core(subject):
                self.struck["core message lost"] += 1
            else:
                connection.deliver(sid, subject, reply, data, headers)
        if reply and not found:
            self.send(reply, b"", b"NATS/1.0 503\r\n\r\n")

    def jetstream(self, call: Callable[..., None], *args: Any) -> None:
        """JetStream works: now, or when the stall is over."""
        if self.now < self.stalled_until:
            self.later(self.stalled_until - self.now + self.network.tick(), call, *args)
        else:
            call(*args)

    def _acked(self, subject: str, data: bytes) -> None:
        parts = subject.split(".")
        stream = self.streams.get(parts[2])
        consumer = stream.consumers.get(parts[3]) if stream is not None else None
        if stream is not None and stream.away:
            stream.held.append((self._acked, (subject, data)))
        elif consumer is not None:
            heed = consumer.in_progress if data == IN_PROGRESS else consumer.acked
            heed(int(parts[5]))

    def unanswered(self, stream: Stream, reply: str, call: Callable[..., None], *args: Any) -> None:
        """Something for a stream whose server is away: nobody listens there, or it hears it later."""
        if stream.away is Away.FROZEN:
            stream.held.append((call, args))
        elif reply:
            self.send(reply, b"", b"NATS/1.0 503\r\n\r\n")

    # ---- storing

    def _store(self, stream: Stream, subject: str, reply: str, headers: bytes, data: bytes) -> None:
        if self.streams.get(stream.name) is not stream:
            return
        if stream.away:
            return self.unanswered(stream, reply, self._store, stream, subject, reply, headers, data)
        try:
            place = batch_place(headers)
            sequence = (
                self._store_one(stream, subject, headers, data) if place is None else self._batch(stream, place, subject, headers, data)
            )
        except Rejected as error:
            self.struck[stream.said(error)] += 1
            answer: dict[str, Any] = {"error": {"code": 400, "err_code": error.args[0], "description": error.args[1]}}
        else:
            if sequence is None:
                return
            answer = {"stream": stream.name, "seq": sequence}
        if reply and self.network.loses_ack():
            self.struck["acknowledgement lost"] += 1
        elif reply:
            self.send(reply, msgspec.json.encode(answer), b"", after=stream.line)

    def _store_one(self, stream: Stream, subject: str, headers: bytes, data: bytes) -> int:
        repeated = stream.repeat(headers, subject)
        if repeated:
            self.struck["write came twice"] += 1
            return repeated
        stream.check(subject, headers, len(subject) + len(data) + len(headers) + 34)
        return self._keep(stream, subject, headers, data)

    def _batch(self, stream: Stream, place: tuple[str, int, bool], subject: str, headers: bytes, data: bytes) -> int | None:
        id, number, last = place
        batch = self.batches.setdefault(id, [])
        if len(batch) != number - 1:
            self.batches.pop(id, None)
            if last:
                raise Rejected(*TORN)
            return None
        batch.append((subject, headers, data))
        if not last:
            return None
        del self.batches[id]
        stream.check(batch[0][0], batch[0][1], sum(len(s) + len(h) + len(d) + 34 for s, h, d in batch))
        sequence = 0
        for subject, headers, data in batch:
            sequence = self._keep(stream, subject, headers, data)
        return sequence

    def _keep(self, stream: Stream, subject: str, headers: bytes, data: bytes) -> int:
        message = stream.store(subject, data, headers, self.wall_ns())
        self._expire_later(stream, message)
        for observe in self.on_stored:
            observe(stream, message)
        self._push(stream, message)
        for consumer in tuple(stream.consumers.values()):
            consumer.pump()
        return message.sequence

    def _push(self, stream: Stream, message: Message) -> None:
        """Republish: a core message like any other, which may be lost."""
        rule = stream.republish
        if rule is None or not message.subject.startswith(rule["src"][:-1]):
            return
        subject = rule["dest"][:-1] + message.subject[len(rule["src"]) - 1 :]
        head = (
            f"NATS/1.0\r\nNats-Stream: {stream.name}\r\nNats-Subject: {message.subject}\r\nNats-Sequence: {message.sequence}\r\n"
            f"Nats-Time-Stamp: {stamp(message.time_ns)}\r\nNats-Last-Sequence: {message.previous}\r\n\r\n"
        )
        self.route(subject, "", head.encode(), message.data)

    def _expire_later(self, stream: Stream, message: Message) -> None:
        seconds = ttl_s(message.headers)
        if seconds:
            left = seconds - (self.wall_ns() - message.time_ns) / 1e9
            self.later(left, self._expire, stream, message.sequence)

    def _expire(self, stream: Stream, sequence: int) -> None:
        if stream.expire(sequence, self.wall_ns()) is not None:
            for consumer in tuple(stream.consumers.values()):
                consumer.pump()

    def consumer(self, stream: Stream, config: dict[str, Any]) -> Consumer:
        """Make a consumer."""
        made = stream.consumers[config["name"]] = Consumer(self, stream, config)
        return made

    # ---- what leaves

    def listens(self, inbox: str) -> bool:
        """Whether anybody listens on a subject."""
        return bool(self.subscriptions.of(inbox))

    def status(self, inbox: str, line: bytes, after: Line | None = None) -> None:
        """A status without a message."""
        self.send(inbox, b"", b"NATS/1.0 " + line + b"\r\n\r\n", after=after)

    def send(self, subject: str, data: bytes, headers: bytes, *, reply: str = "", shown: str = "", after: Line | None = None) -> None:
        """A message of the server's own, after a moment; those of one source (`after`) keep their order."""
        at = self.now + self.network.tick()
        if after is not None:
            at = after.at = max(at, after.at + SAME_MOMENT_S)
        life = self._life

        def leave() -> None:
            if self._life != life:
                return
            for connection, sid in self.subscriptions.of(subject):
                connection.deliver(sid, shown or subject, reply, data, headers)

        self.loop.call_at(at, leave, context=OUTSIDE.context)
