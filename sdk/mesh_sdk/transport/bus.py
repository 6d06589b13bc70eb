"""The narrow interface between the mesh's loops and JetStream.

The scheduler, the workers and the clients know NATS only through what stands here, so that a simulated bus and clock
can take its place. `connection.Link` is the real one; `tests/contract/` holds whatever implements this to one set of
tests.

Rule: callbacks are plain functions, called on the event loop, one message at a time and in order; they must not block.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

from msgspec import Struct

Callback = Callable[[str, str, bytes], None]
"""(subject, reply, data) of a core message."""


class Stored(Struct, frozen=True, gc=False):
    """A message as a stream holds it."""

    sequence: int
    time_ms: int
    """The server's timestamp, milliseconds since 1970."""
    subject: str
    data: bytes
    headers: Mapping[str, str]


class Delivery(NamedTuple):
    """A message on its way from a stream."""

    sequence: int
    time_ms: int
    subject: str
    data: bytes
    pending: int
    """How many more the stream holds for this reader at the moment of delivery."""
    headers: Mapping[str, str] | None


class StreamState(Struct, frozen=True):
    """What a stream holds."""

    created: str
    """The server's timestamp of the stream's creation: another value means another stream."""
    first: int
    last: int
    messages: int
    bytes: int
    limit_bytes: int
    replicas: int = 1


class StreamSettings(Struct, frozen=True):
    """A stream to be there, with its limits. Streams are of limits retention and refuse new messages when full."""

    name: str
    subjects: tuple[str, ...]
    max_bytes: int
    memory: bool = False
    replicas: int = 1
    max_per_subject: int = -1
    max_age_s: float = 0
    duplicate_window_s: float = 120
    republish: tuple[str, str] | None = None
    atomic: bool = False
    direct: bool = False
    ttl: bool = False
    """Accepts per-message TTLs and leaves markers when a subject's last message expires."""
    rollup: bool = False
    discard_old: bool = False
    description: str = ""


class Subscription(Protocol):
    """Ends with `close`: the callback is not called again."""

    async def close(self) -> None: ...


class Reader(Protocol):
    """Reads a stream in order from a sequence, each message once, over reconnects and server restarts.

    A stream that has lost its end (or was made anew) stores old sequences again: the reader says so in an error log and
    goes on after what the stream still holds, its `position` going back; whoever keeps positions compares times.

    Acknowledges nothing: the position is the caller's. Deliveries come by the `on_message(delivery)` it was made with;
    `pause()` stops asking for more (what was asked for still comes), `resume()` goes on.
    """

    position: int
    """Sequence of the last message delivered (of this filter)."""
    caught_up: bool
    """Everything that the stream held at some moment since the last (re)start has been delivered."""

    async def start(self) -> None:
        """Begin; returns when the stream is being read, which may wait for the stream or the connection.

        Raises:
            Disconnected: when the connection, or the reader, is closed meanwhile.
        """

    async def close(self) -> None: ...
    def pause(self) -> None: ...
    def resume(self) -> None: ...


IN_PROGRESS = b"+WPI"
"""Says that a message is being worked on; see `LaneMessage.reply`."""


class LaneMessage(NamedTuple):
    """A message of a shared lane. `ack()` once each of its steps is durably reported."""

    sequence: int
    deliveries: int
    """1 the first time; more: somebody else may have run it."""
    data: bytes
    ack: Callable[[], None]
    reply: str = ""
    """Where `IN_PROGRESS` starts `ack_wait` anew; on any connection of the same user."""


class Puller(Protocol):
    """Standing pulls of one durable consumer; asks for as many messages as `demand()` says there is room for.

    Survives reconnects, leader changes and a consumer or stream that is away (503: waits and asks again).
    Call `poke()` when demand may have grown.
    """

    async def start(self) -> None: ...
    async def close(self) -> None: ...
    def poke(self) -> None: ...


class PrivateLane(Protocol):
    """The private lane of one incarnation: republished core messages in strict order, gaps filled by direct get."""

    async def start(self) -> None:
        """Subscribe, then apply what the lane holds already; returns when that is done."""

    async def close(self) -> None: ...

    def check(self) -> None:
        """Look whether the lane's last message was missed; call it with each heartbeat."""


class KeyValue(Protocol):
    """A bucket, with raw headers: per-key TTL (1 s at least; 0: none) and expected revisions.

    A key is a token or tokens joined by dots. Its stream is made with `ensure_stream(kv.bucket_stream(...))`.
    """

    async def put(self, key: str, value: bytes, *, ttl_s: float = 0) -> int:
        """Set a key, whatever it was; returns its revision."""
        ...

    async def create(self, key: str, value: bytes, *, ttl_s: float = 0) -> int:
        """Set a key that is not there (never was, deleted, or expired); returns its revision.

        Raises:
            WrongSequence: it is there.
        """
        ...

    async def update(self, key: str, value: bytes, revision: int, *, ttl_s: float = 0) -> int:
        """Compare and set; returns the new revision. Without `ttl_s` the key lives for ever.

        Raises:
            WrongSequence: the key's last revision is another.
        """
        ...

    async def get(self, key: str) -> tuple[bytes, int] | None:
        """Value and revision, through the bucket's leader; None when it is not there."""
        ...

    async def delete(self, key: str, *, revision: int = 0) -> None:
        """Delete a key; with `revision` only if that is its last one.

        Raises:
            WrongSequence: it is another.
        """

    async def entries(self) -> dict[str, tuple[bytes, int]]:
        """Every key there is, with value and revision."""
        ...

    async def watch(self, on_change: Callable[[str, bytes | None, int], None]) -> Subscription:
        """Have `on_change(key, value, revision)` called for every key there is, then for every change.

        The value is None when the key was deleted or has expired. Whenever the bucket has to be read anew (reconnect,
        server restart) every key is told again, and those gone meanwhile as gone, with revision 0. Returns once every
        key that was there has been told.
        """
        ...


class Objects(Protocol):
    """An object store: blobs by name. Its stream is made with `ensure_stream(objects.object_stream(...))`."""

    async def put(self, name: str, data: bytes) -> None: ...
    async def get(self, name: str) -> bytes | None: ...
    async def delete(self, name: str) -> None: ...
    async def names(self) -> list[str]: ...
    async def unfinished(self) -> list[str]:
        """Names under which there are parts of an object and no whole one: it is being put, or whoever did has died."""
        ...


class Bus(Protocol):
    """One connection to NATS."""

    @property
    def connected(self) -> bool: ...

    @property
    def max_payload(self) -> int: ...

    @property
    def clustered(self) -> bool:
        """Whether the server at hand belongs to a cluster, of however many servers."""
        ...

    def on_connection(self, listener: Callable[[bool], None]) -> Callable[[], None]:
        """Have `listener(False)` called when the connection is lost, `listener(True)` when it is back.

        When it is back every subscription is in force again. The first connection is not told.

        Returns:
            A function that ends this.
        """
        ...

    def publish(self, subject: str, data: bytes, reply: str = "") -> bool:
        """Send a core message now; False (and dropped) while not connected or while the socket takes no more.

        Raises:
            Refused: it is larger than `max_payload`.
        """
        ...

    async def request(self, subject: str, data: bytes, timeout: float) -> bytes:
        """Ask and wait for one answer.

        Raises:
            NoResponders: at once, when nobody listens.
            TimedOut, Disconnected.
        """
        ...

    async def subscribe(self, subject: str, callback: Callback) -> Subscription:
        """Have core messages delivered; in force at the server when this returns, and again after each reconnect.

        Raises:
            TimedOut: when there was no connection for long.
        """
        ...

    async def append(
        self, subject: str, data: bytes, *, expect: int | None = None, message_id: str = "", ttl_s: float = 0, timeout: float = 5
    ) -> int:
        """Store a message.

        Args:
            expect: refuse unless the last message *of this subject* has this sequence (0: there is none).
            message_id: a repeat within the stream's window is stored once.

        Returns:
            Its sequence in the stream.

        Raises:
            WrongSequence: `expect` does not hold (10071).
            Busy: the expectation can't be checked now, try again (10164).
            StreamFull: the stream refuses new messages.
            StreamMissing, TimedOut, Disconnected, Refused (any other error of the server).
        """
        ...

    def append_soon(
        self, subject: str, data: bytes, *, expect: int | None = None, message_id: str = "", ttl_s: float = 0, timeout: float = 5
    ) -> asyncio.Future[int]:
        """`append`, already on its way when this returns; every error of it comes through the future."""
        ...

    async def append_batch(self, messages: Sequence[tuple[str, bytes]], *, expect_subject: str, expect: int, timeout: float = 5) -> int:
        """Store all messages (1,000 at most) at once or none, if the last message of `expect_subject` has the sequence `expect`.

        Returns:
            The sequence of the last one; the others stand directly before it, in order.

        Raises:
            As `append`.
        """
        ...

    def append_batch_soon(
        self, messages: Sequence[tuple[str, bytes]], *, expect_subject: str, expect: int, timeout: float = 5
    ) -> asyncio.Future[int]:
        """`append_batch`, already on its way when this returns; every error of it comes through the future."""
        ...

    async def last(self, stream: str, subject: str) -> Stored | None:
        """The last message of a subject, read through the stream's leader."""
        ...

    async def get(self, stream: str, sequence: int) -> Stored | None:
        """One message, read through the stream's leader."""
        ...

    async def read(self, stream: str, subject: str, start: int = 1) -> list[Stored]:
        """Everything the stream holds of a subject (wildcards allowed) from a sequence on, in order."""
        ...

    async def purge(self, stream: str, *, subject: str = "", before: int = 0) -> int:
        """Remove messages (of a subject) with a sequence below `before` (0: all). Returns how many."""
        ...

    async def ensure_stream(self, settings: StreamSettings, *, timeout: float = 5) -> StreamState:
        """Create the stream, or bring the one that is there to these settings (all but `memory`, which can't change)."""
        ...

    async def stream_state(self, stream: str, *, timeout: float = 5) -> StreamState | None:
        """What the stream holds; None when there is no such stream."""
        ...

    async def delete_stream(self, stream: str, *, timeout: float = 5) -> None:
        """Delete a stream; one that is not there is as good as deleted.

        Raises:
            TimedOut: also when the only server that holds it is away. The others forget it all the same.
        """
        ...

    async def ensure_consumer(self, stream: str, name: str, subject: str, *, ack_wait_s: float, memory: bool) -> None:
        """A durable pull consumer with explicit acks; created or left as it is."""
        ...

    async def delete_consumer(self, stream: str, name: str) -> None: ...

    async def consumers(self, stream: str) -> list[str]:
        """Names of a stream's consumers."""
        ...

    def reader(self, stream: str, subject: str, start: int, on_message: Callable[[Delivery], None], *, window: int = 256) -> Reader:
        """Read `subject` of a stream from sequence `start` on; at most `window` messages are asked for ahead."""
        ...

    def puller(self, stream: str, consumer: str, demand: Callable[[], int], on_message: Callable[[LaneMessage], None]) -> Puller:
        """Pull a shared lane. `demand()` says how many messages may be outstanding at the server right now (0: none);
        the puller asks for the difference to what it has already asked for.
        """
        ...

    def private_lane(
        self, stream: str, lane: str, push: str, on_message: Callable[[int, bytes], None], on_reset: Callable[[], None]
    ) -> PrivateLane:
        """Follow a private lane. `on_message(sequence, data)`; `on_reset()` when the stream has been made anew."""
        ...

    def bucket(self, name: str) -> KeyValue: ...

    def objects(self, name: str) -> Objects: ...

    async def close(self) -> None: ...


Connect = Callable[[], Awaitable[Bus]]
"""Opens a connection; each caller gets its own."""
