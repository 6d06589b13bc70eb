"""A stream in memory: messages by sequence, expectations, message ids, limits, expiry. Told by facts measured on a real server.

Rule: nothing here takes time or chance; both are the server's.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from enum import Enum, auto
from functools import lru_cache
from typing import Any, NamedTuple

from mesh_sdk.transport.headers import number, value
from tests.simulation.network import Line

OVERHEAD_BYTES = 34
WRONG_SEQUENCE = (10071, "wrong last sequence")
FULL = (10077, "maximum bytes exceeded")
TORN = (10176, "batch publish is incomplete and was abandoned")
_MARKER = b"NATS/1.0\r\nNats-Marker-Reason: MaxAge\r\n\r\n"


class Message(NamedTuple):
    """A stored message."""

    sequence: int
    time_ns: int
    subject: str
    data: bytes
    headers: bytes
    previous: int
    """The last message of its subject before it; 0: none."""

    @property
    def size(self) -> int:
        return OVERHEAD_BYTES + len(self.subject) + len(self.data) + len(self.headers)


class Away(Enum):
    """What is the matter with the one server that has a stream."""

    DEAD = auto()
    FROZEN = auto()


class Rejected(Exception):
    """The stream does not take it: `args` are the server's code and description."""


class Stream:
    """One stream.

    Args:
        config: as `STREAM.CREATE` gets it.
        created: the server's timestamp.

    Attributes:
        lone: it has one copy; such a stream answers a repeat whose expectation does not hold any more with 10071, others with
            `duplicate`. One in memory is lost whole with its server, and never goes back to an older state, which three copies in
            memory can do: this is why lanes have one (decision 8).
        away: the server that has it, on a cluster, is dead or frozen; None when it is not.
        held: what that server does when it wakes.
    """

    def __init__(self, config: dict[str, Any], created: str) -> None:
        self.name: str = config["name"]
        self.created = created
        self.lone = config["num_replicas"] == 1
        self.away: Away | None = None
        self.held: list[tuple[Callable[..., None], tuple[Any, ...]]] = []
        self._empty()
        self.consumers: dict[str, Any] = {}
        self.line = Line()
        self.on_stored: Callable[[Message], None] = lambda message: None
        self.configure(config)

    def _empty(self) -> None:
        self.messages: dict[int, Message] = {}
        self.order: list[int] = []
        self.by_subject: dict[str, list[int]] = {}
        self.ids: dict[str, int] = {}
        self.last = 0
        self.bytes = 0

    def lose(self) -> None:
        """Its server was restarted, others remember that there is such a stream and which consumers: they begin at the beginning."""
        self._empty()
        for consumer in self.consumers.values():
            consumer.begin_again()

    def configure(self, config: dict[str, Any]) -> None:
        """Take other settings."""
        self.config = config
        self.memory = config["storage"] == "memory"
        self.max_bytes: int = config["max_bytes"]
        self.republish: dict[str, str] | None = config.get("republish")
        self._tails = tuple(subject[:-1] for subject in config["subjects"] if subject.endswith(">"))
        self._exact = frozenset(config["subjects"])

    def takes(self, subject: str) -> bool:
        """Whether messages to this subject are stored here."""
        return subject.startswith(self._tails) or subject in self._exact

    # ---- writing

    def check(self, subject: str, headers: bytes, size: int) -> None:
        """Refuse what can't be stored.

        Raises:
            Rejected: an expectation does not hold, or the stream is full.
        """
        expected = value(headers, b"Nats-Expected-Last-Subject-Sequence")
        if expected is not None:
            about = value(headers, b"Nats-Expected-Last-Subject-Sequence-Subject")
            last = self.last_of(about.decode() if about else subject)
            if last != int(expected):
                raise Rejected(WRONG_SEQUENCE[0], f"{WRONG_SEQUENCE[1]}: {last}")
        replaced = self.messages.get(self.last_of(subject)) if self.config["max_msgs_per_subject"] == 1 else None
        needed = self.bytes + size - (replaced.size if replaced is not None else 0)
        if self.config["discard"] == "new" and 0 < self.max_bytes < needed:
            raise Rejected(*FULL)

    def said(self, error: Rejected) -> str:
        """A refusal in words, for whoever counts."""
        kind = "full" if error.args[0] == FULL[0] else "batch torn" if error.args[0] == TORN[0] else "expectation refused"
        return f"{self.name.rpartition('_')[2].lower()} {kind}"

    def repeat(self, headers: bytes, subject: str) -> int:
        """The sequence of the message that this one repeats; 0: it is news."""
        id = value(headers, b"Nats-Msg-Id")
        found = self.ids.get(id.decode(), 0) if id else 0
        if found and self.lone:
            expected = value(headers, b"Nats-Expected-Last-Subject-Sequence")
            if expected is not None and self.last_of(subject) != int(expected):
                return 0
        return found

    def store(self, subject: str, data: bytes, headers: bytes, time_ns: int) -> Message:
        """Store a message that has been checked."""
        self.last += 1
        mine = self.by_subject.setdefault(subject, [])
        message = Message(self.last, time_ns, subject, data, headers, mine[-1] if mine else 0)
        if self.config["max_msgs_per_subject"] == 1:
            for old in tuple(mine):
                self._remove(old)
        mine = self.by_subject.setdefault(subject, [])
        mine.append(self.last)
        self.order.append(self.last)
        self.messages[self.last] = message
        self.bytes += message.size
        id = value(headers, b"Nats-Msg-Id")
        if id:
            self.ids[id.decode()] = self.last
        while self.config["discard"] == "old" and 0 < self.max_bytes < self.bytes:
            self._remove(self.order[0])
        self.on_stored(message)
        return message

    def expire(self, sequence: int, time_ns: int) -> Message | None:
        """A message's time is over; the marker that takes its place if it was its subject's last."""
        message = self.messages.get(sequence)
        if message is None or self.last_of(message.subject) != sequence:
            return None
        self._remove(sequence)
        return self.store(message.subject, b"", _MARKER, time_ns)

    def purge(self, subject: str, before: int) -> int:
        """Remove messages; how many."""
        gone = [m.sequence for m in self.messages.values() if (not before or m.sequence < before) and matches(subject, m.subject)]
        for sequence in gone:
            self._remove(sequence, order=False)
        self.order = sorted(self.messages)
        if not subject:
            self.last = max(self.last, before - 1)  # one that has not come so far goes on from there
        return len(gone)

    def _remove(self, sequence: int, *, order: bool = True) -> None:
        message = self.messages.pop(sequence)
        self.bytes -= message.size
        mine = self.by_subject[message.subject]
        mine.remove(sequence)
        if not mine:
            del self.by_subject[message.subject]
        if order:
            del self.order[bisect_left(self.order, sequence)]

    # ---- reading

    def last_of(self, subject: str) -> int:
        """Sequence of a subject's last message; 0: it has none."""
        mine = self.by_subject.get(subject)
        return mine[-1] if mine else 0

    def after(self, subject: str, start: int) -> Iterator[Message]:
        """Messages of a subject (wildcards allowed) from a sequence on."""
        if "*" not in subject and ">" not in subject:
            mine = self.by_subject.get(subject, [])
            for place in range(bisect_left(mine, start), len(mine)):
                yield self.messages[mine[place]]
            return
        for place in range(bisect_left(self.order, start), len(self.order)):
            message = self.messages[self.order[place]]
            if matches(subject, message.subject):
                yield message

    def count_after(self, subject: str, start: int) -> int:
        """How many messages `after` would give."""
        if "*" not in subject and ">" not in subject:
            mine = self.by_subject.get(subject, [])
            return len(mine) - bisect_left(mine, start)
        return sum(1 for _ in self.after(subject, start))

    def info(self) -> dict[str, Any]:
        """What `STREAM.INFO` says."""
        first = self.order[0] if self.order else self.last + 1 if self.last else 0
        state = {"first_seq": first, "last_seq": self.last, "messages": len(self.order), "bytes": self.bytes}
        return {
            "created": self.created,
            "state": state,
            "config": {"max_bytes": self.max_bytes, "num_replicas": self.config["num_replicas"]},
        }


def matches(pattern: str, subject: str) -> bool:
    """Whether a subject is one of a pattern's ("" is everything)."""
    if not pattern or pattern == subject:
        return True
    if "*" not in pattern:
        return pattern.endswith(">") and subject.startswith(pattern[:-1])
    wanted, given = pattern.split("."), subject.split(".")
    for place, token in enumerate(wanted):
        if token == ">":
            return len(given) > place
        if place >= len(given) or token not in ("*", given[place]):
            return False
    return len(wanted) == len(given)


def ttl_s(headers: bytes) -> float:
    """The time to live that a message came with; 0: for ever."""
    text = value(headers, b"Nats-TTL")
    return int(text[:-2]) / 1000 if text else 0.0


def batch_place(headers: bytes) -> tuple[str, int, bool] | None:
    """(batch, place, whether it is the last) of a message of an atomic batch."""
    id = value(headers, b"Nats-Batch-Id")
    if id is None:
        return None
    return id.decode(), number(headers, b"Nats-Batch-Sequence"), value(headers, b"Nats-Batch-Commit") is not None


def stamp(time_ns: int) -> str:
    """A timestamp as the server writes it."""
    seconds, rest = divmod(time_ns, 1_000_000_000)
    return f"{_second(seconds)}.{rest:09d}Z"


@lru_cache(maxsize=16)
def _second(seconds: int) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}"
