"""A stream's consumers: pulls that wait, deliveries in order, acknowledgements, redelivery after `ack_wait`.

Rule: deliveries of one consumer leave in the order of their consumer sequence; a request that ends says what it still owed.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tests.simulation.network import Line
from tests.simulation.stream import Message, Stream

if TYPE_CHECKING:
    from tests.simulation.server import Server

_NS = 1_000_000_000


class Request:
    """A pull that waits for messages."""

    __slots__ = ("inbox", "left", "timer")

    def __init__(self, inbox: str, left: int) -> None:
        self.inbox = inbox
        self.left = left
        self.timer: asyncio.TimerHandle | None = None


class Consumer:
    """One consumer.

    Args:
        server: sends for it.
        stream: whose messages.
        config: as `CONSUMER.CREATE` gets it.
    """

    def __init__(self, server: Server, stream: Stream, config: dict[str, Any]) -> None:
        self.server = server
        self.stream = stream
        self.name: str = config["name"]
        self.filter: str = config["filter_subject"]
        self.explicit = config["ack_policy"] == "explicit"
        self.ack_wait_s = config.get("ack_wait", 0) / _NS
        self.next = config.get("opt_start_seq", 1)
        self.delivered = 0
        self.requests: deque[Request] = deque()
        self.unacked: dict[int, tuple[int, asyncio.TimerHandle]] = {}
        """sequence → (deliveries, when it comes again)."""
        self.again: deque[int] = deque()
        self.deliveries: dict[int, int] = {}
        self.first: deque[int] = deque()
        """Of `last_per_subject`: what is told before what is new."""
        if config.get("deliver_policy") == "last_per_subject":
            self.first = deque(sorted(stream.last_of(subject) for subject in stream.by_subject if _fits(self.filter, subject)))
            self.next = stream.last + 1
        self.heart: asyncio.TimerHandle | None = None
        self.deleted = False
        self.line = Line()
        self.sent_at = 0.0

    def begin_again(self) -> None:
        """Its server has lost what it knew."""
        self.delete(b"")
        self.deleted = False
        self.next, self.delivered, self.heart = 1, 0, None
        for memory in (self.unacked, self.deliveries, self.again, self.first):
            memory.clear()

    def _waits(self, call: Callable[..., None], *args: Any) -> bool:
        """Whether the server stands still: what it was to do now it does when it wakes."""
        if self.stream.away:
            self.stream.held.append((call, args))
        return bool(self.stream.away)

    @property
    def pending(self) -> int:
        """How many messages wait for it."""
        return len(self.first) + self.stream.count_after(self.filter, self.next)

    # ---- pulls

    def pull(self, inbox: str, batch: int, expires_ns: int, heartbeat_ns: int) -> None:
        """A request for messages."""
        request = Request(inbox, batch)
        self.requests.append(request)
        request.timer = self.server.later(expires_ns / _NS, self._expire, request)
        if heartbeat_ns and self.heart is None:
            self.heart = self.server.later(heartbeat_ns / _NS, self._beat, heartbeat_ns / _NS)
        self.pump()

    def _beat(self, every_s: float) -> None:
        if self._waits(self._beat, every_s):
            return
        self.heart = None
        while self.requests and not self.server.listens(self.requests[0].inbox):
            self._drop(self.requests.popleft())
        if self.requests and not self.deleted:
            if self.server.now - self.sent_at >= every_s / 2:
                self.server.status(self.requests[0].inbox, b"100 Idle Heartbeat", after=self.line)
            self.heart = self.server.later(every_s, self._beat, every_s)

    def _expire(self, request: Request) -> None:
        if self._waits(self._expire, request):
            return
        if request in self.requests:
            self.requests.remove(request)
            head = b"408 Request Timeout\r\nNats-Pending-Messages: %d\r\nNats-Pending-Bytes: 0" % request.left
            self.server.status(request.inbox, head, after=self.line)

    @staticmethod
    def _drop(request: Request) -> None:
        if request.timer is not None:
            request.timer.cancel()

    def pump(self) -> None:
        """Deliver what there is to whoever asks."""
        while self.requests and not self.deleted:
            request = self.requests[0]
            if not self.server.listens(request.inbox):
                self._drop(self.requests.popleft())
                continue
            found = self._next()
            if found is None:
                return
            request.left -= 1
            if request.left <= 0:
                self._drop(self.requests.popleft())
            self._deliver(request.inbox, found)

    def _next(self) -> Message | None:
        for line in (self.again, self.first):
            while line:
                found = self.stream.messages.get(line.popleft())
                if found is not None:
                    return found
        found = next(self.stream.after(self.filter, self.next), None)
        if found is not None:
            self.next = found.sequence + 1
        return found

    def _deliver(self, inbox: str, message: Message) -> None:
        self.delivered += 1
        count = self.deliveries[message.sequence] = self.deliveries.get(message.sequence, 0) + 1
        if not self.explicit:
            del self.deliveries[message.sequence]
        else:
            self.server.struck["shared message redelivered"] += count > 1
            timer = self.server.later(self.ack_wait_s, self._unanswered, message.sequence)
            self.unacked[message.sequence] = (count, timer)
        ack = f"$JS.ACK.{self.stream.name}.{self.name}.{count}.{message.sequence}.{self.delivered}.{message.time_ns}.{self.pending}"
        self.sent_at = self.server.now
        self.server.send(inbox, message.data, message.headers, reply=ack, shown=message.subject, after=self.line)

    # ---- acknowledgements

    def acked(self, sequence: int) -> None:
        """A message is done with."""
        entry = self.unacked.pop(sequence, None)
        if entry is not None:
            entry[1].cancel()
        self.deliveries.pop(sequence, None)
        if sequence in self.again:
            self.again.remove(sequence)

    def in_progress(self, sequence: int) -> None:
        """A message is being worked on: its time begins anew."""
        entry = self.unacked.get(sequence)
        if entry is not None:
            entry[1].cancel()
            self.unacked[sequence] = (entry[0], self.server.later(self.ack_wait_s, self._unanswered, sequence))

    def _unanswered(self, sequence: int) -> None:
        if self._waits(self._unanswered, sequence):
            return
        if self.unacked.pop(sequence, None) is None or self.deleted:
            return
        if sequence in self.stream.messages:
            self.again.append(sequence)
            self.pump()

    def delete(self, why: bytes) -> None:
        """It is gone: whoever waits is told."""
        self.deleted = True
        if self.heart is not None:
            self.heart.cancel()
        for _, timer in self.unacked.values():
            timer.cancel()
        for request in self.requests:
            self._drop(request)
            if why:
                self.server.status(request.inbox, why, after=self.line)
        self.requests.clear()


def _fits(pattern: str, subject: str) -> bool:
    return subject.startswith(pattern[:-1]) if pattern.endswith(">") else subject == pattern
