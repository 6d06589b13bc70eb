"""The connection to NATS: `connect()`, and `Link`, the Bus over nats-py.

Rule: nothing is decided here; each method is one conversation, or makes the object that holds a longer one.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable, Sequence
from typing import Any

from msgspec import Struct
from nats import errors as nats_errors

from mesh_sdk.errors import ConfigurationError, ConnectionFailed, ServerUnsuitable
from mesh_sdk.transport import streams
from mesh_sdk.transport.backoff import Backoff
from mesh_sdk.transport.bus import Callback, Delivery, LaneMessage, Stored, StreamSettings, StreamState
from mesh_sdk.transport.errors import NO_RESPONDERS, Busy, Disconnected, Refused, TimedOut
from mesh_sdk.transport.headers import header, ttl_header
from mesh_sdk.transport.kv import Bucket
from mesh_sdk.transport.lane import PushedLane
from mesh_sdk.transport.objects import ObjectStore
from mesh_sdk.transport.pull import StandingPuller
from mesh_sdk.transport.reader import OrderedReader
from mesh_sdk.transport.settings import ConnectionSettings
from mesh_sdk.transport.wire import Wire

BATCH_MESSAGES_MAX = 1000
"""The server's limit for one atomic batch."""

_OLDEST_SERVER = (2, 12)
_MAX_PAYLOAD_LEAST = 960 * 1024
"""A frame with one record of the largest size, and what it may share the frame with."""
_CLOSE_S = 2.0
_log = logging.getLogger(__name__)


async def connect(
    servers: Sequence[str],
    *,
    name: str,
    connect_timeout: float = 5.0,
    settings: ConnectionSettings | None = None,
    on_waiting: Callable[[str], None] | None = None,
) -> Link:
    """Open a connection that comes back by itself for as long as it is not closed.

    Args:
        servers: URLs, e.g. `nats://127.0.0.1:4222`; several of one cluster.
        name: shown by the server's monitoring.
        connect_timeout: seconds until the first connection has to stand.
        settings: credentials, TLS, timing.
        on_waiting: wait for a JetStream that does not answer yet (a cluster without a majority) for as long as it takes, and say
            so here whenever `connect_timeout` has passed.

    Raises:
        ConnectionFailed: no server could be reached, or none let us in; without `on_waiting` also when JetStream does not answer.
        ServerUnsuitable: no JetStream, or a server older than 2.12.
        ConfigurationError: a URL or a file in the settings can't be used.
    """
    chosen = settings or ConnectionSettings()
    options = _options(servers, name, chosen)
    link = Link(chosen, servers)
    try:
        await link.open(options, connect_timeout)
        await link.check_server(connect_timeout, on_waiting)
    except BaseException:
        await link.close()
        raise
    return link


def _options(servers: Sequence[str], name: str, settings: ConnectionSettings) -> dict[str, Any]:
    for url in servers:
        if "://" in url and not url.startswith(("nats://", "tls://")):
            raise ConfigurationError(f"server URL {url!r}: only nats:// and tls:// are supported")
    options: dict[str, Any] = {
        "servers": list(servers),
        "name": name,
        "max_reconnect_attempts": -1,
        "reconnect_time_wait": settings.reconnect_wait_s,
        "ping_interval": settings.ping_interval_s,
        "max_outstanding_pings": 1,
        "pending_size": 0,
        "user": settings.user or None,
        "password": settings.password or None,
        "token": settings.token or None,
        "user_credentials": settings.credentials or None,
        "nkeys_seed": settings.nkey_seed or None,
        "inbox_prefix": settings.inbox_prefix,
    }
    if settings.tls_ca or settings.tls_certificate:
        options["tls"] = _tls(settings)
    if settings.tls_hostname:
        options["tls_hostname"] = settings.tls_hostname
    return options


def _tls(settings: ConnectionSettings) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=settings.tls_ca or None)
        if settings.tls_certificate:
            context.load_cert_chain(settings.tls_certificate, settings.tls_key or None)
    except (OSError, ssl.SSLError) as error:
        files = ", ".join(filter(None, (settings.tls_ca, settings.tls_certificate, settings.tls_key)))
        raise ConfigurationError(f"TLS files {files}: {error}") from None
    return context


class Link(Wire):
    """The Bus over nats-py; made by `connect()`."""

    def __init__(self, settings: ConnectionSettings, servers: Sequence[str]) -> None:
        super().__init__(settings)
        self._servers = ", ".join(servers)
        self._batches = 0

    # ---- opening and closing

    async def open(self, options: dict[str, Any], timeout: float) -> None:
        """Connect for the first time; see `connect()`."""
        refused: asyncio.Future[None] = self.loop.create_future()
        last: list[Exception] = []

        async def on_error(error: Exception) -> None:
            last[:] = [error]
            if "permissions violation" in str(error).lower():
                _log.warning("the server at %s does not permit it: %s", self._servers, error)
            else:
                _log.debug("connection to %s: %s", self._servers, error)
            if "authorization" in str(error).lower() and not refused.done():
                refused.set_result(None)

        async def on_reconnected() -> None:
            self.is_up()

        connecting = self.loop.create_task(
            self.client.connect(error_cb=on_error, reconnected_cb=on_reconnected, **options), name="nats connect"
        )
        try:
            await asyncio.wait({connecting, refused}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
            if not connecting.done():
                raise self._no_connection(refused.done(), last, timeout)
            connecting.result()
        except (OSError, ValueError, nats_errors.Error) as error:
            raise ConnectionFailed(f"can't connect to {self._servers}: {error}; check the URL and the credentials") from error
        finally:
            refused.cancel()
            connecting.cancel()
        self.is_up()

    def _no_connection(self, refused: bool, last: list[Exception], timeout: float) -> ConnectionFailed:
        if refused:
            return ConnectionFailed(f"{self._servers} refuses the connection: {last[0]}; check user, token or credentials")
        why = f" ({last[0]})" if last else ""
        return ConnectionFailed(
            f"no NATS server answers at {self._servers} within {timeout:g} s{why}; start one there (`mesh dev` brings its own) "
            "or set MESH_URL"
        )

    async def check_server(self, timeout: float, on_waiting: Callable[[str], None] | None = None) -> None:
        """Make sure that the server is one we can use; see `connect()`.

        Raises:
            ServerUnsuitable: it is older than 2.12, has no JetStream for us, or takes small messages only.
            ConnectionFailed: it stopped answering.
        """
        version = str(self.client.server_info.get("version", ""))
        if _version(version) < _OLDEST_SERVER:
            oldest = ".".join(map(str, _OLDEST_SERVER))
            raise ServerUnsuitable(f"the server at {self._servers} is nats-server {version}; the mesh needs {oldest} or newer")
        if self.max_payload < _MAX_PAYLOAD_LEAST:
            raise ServerUnsuitable(
                f"the server at {self._servers} lets through messages of {self.max_payload} bytes; the mesh needs "
                f"{_MAX_PAYLOAD_LEAST} or more: set max_payload (1MB is the server's own default)"
            )
        backoff = Backoff(0.05, 0.5)
        deadline = self.loop.time() + timeout
        while True:
            try:
                await streams.call(self, "INFO", None, _Nothing, max(0.1, deadline - self.loop.time()))
                return
            except (Busy, Disconnected, TimedOut) as error:  # a cluster that is about to elect its leader
                if self.loop.time() >= deadline:
                    told = f"JetStream at {self._servers} does not answer ({error}): is a majority of the cluster's servers up?"
                    if on_waiting is None:
                        raise ConnectionFailed(f"{told} Gave up after {timeout:g} s") from None
                    on_waiting(told)
                    deadline = self.loop.time() + timeout
                await backoff.wait(asyncio.Event())
            except Refused as error:
                if error.code == NO_RESPONDERS and self.client.server_info.get("jetstream") and self.loop.time() < deadline:
                    await backoff.wait(asyncio.Event())  # it is starting, or about to end
                    continue
                raise ServerUnsuitable(
                    f"the server at {self._servers} has no JetStream for this account ({error}); start it with `-js` or `jetstream {{}}`"
                ) from None

    async def close(self) -> None:
        """Close for good; what was written before still goes out, whoever waits for an answer gets `Disconnected`."""
        if self._closed:
            return
        self.shut()
        closing = self.loop.create_task(self.client.close(), name="nats close")
        _, pending = await asyncio.wait({closing}, timeout=_CLOSE_S)
        if pending:  # the peer is away and bytes are left: nobody will take them
            self.client.abort()
            closing.cancel()
        elif closing.exception() is not None:
            _log.warning("closing the connection to %s: %s", self._servers, closing.exception())

    # ---- core messages

    async def request(self, subject: str, data: bytes, timeout: float) -> bytes:
        """Ask and wait for one answer.

        Raises:
            NoResponders, TimedOut, Disconnected.
        """
        return await self.ask(subject, data, timeout)

    async def subscribe(self, subject: str, callback: Callback) -> CoreSubscription:
        """Have core messages delivered; in force at the server when this returns, and again after each reconnect.

        Raises:
            TimedOut: when there was no connection for long.
        """

        def handle(subject: bytes, reply: bytes, data: bytes, headers: bytes | None) -> None:
            # Answers go to inboxes: elsewhere we would write what the asker may not, into the journal even.
            callback(subject.decode(), "" if reply.startswith((b"mesh.", b"$")) else reply.decode(), data)

        subscription = CoreSubscription(self, self.subscribe_raw(subject, handle))
        try:
            await self.in_force()
        except BaseException:
            await subscription.close()
            raise
        return subscription

    # ---- appending

    def append_soon(
        self, subject: str, data: bytes, *, expect: int | None = None, message_id: str = "", ttl_s: float = 0, timeout: float = 5
    ) -> asyncio.Future[int]:
        """`append`, already on its way when this returns."""
        headers = b""
        if expect is not None:
            headers = b"Nats-Expected-Last-Subject-Sequence: %d\r\n" % expect
        if message_id:
            headers += header("Nats-Msg-Id", message_id)
        if ttl_s:
            headers += ttl_header(ttl_s)
        return self.store(subject, data, headers, timeout)

    async def append(
        self, subject: str, data: bytes, *, expect: int | None = None, message_id: str = "", ttl_s: float = 0, timeout: float = 5
    ) -> int:
        """Store a message; see `bus.Bus.append`."""
        return await self.append_soon(subject, data, expect=expect, message_id=message_id, ttl_s=ttl_s, timeout=timeout)

    def append_batch_soon(
        self, messages: Sequence[tuple[str, bytes]], *, expect_subject: str, expect: int, timeout: float = 5
    ) -> asyncio.Future[int]:
        """`append_batch`, already on its way when this returns."""
        fence = b"Nats-Expected-Last-Subject-Sequence: %d\r\nNats-Expected-Last-Subject-Sequence-Subject: %s\r\n" % (
            expect,
            expect_subject.encode(),
        )
        if len(messages) == 1:
            return self.store(messages[0][0], messages[0][1], fence, timeout)
        future: asyncio.Future[int] = self.loop.create_future()
        if not 0 < len(messages) <= BATCH_MESSAGES_MAX:
            future.set_exception(Refused(f"a batch of {len(messages)} messages: it has to have 1 to {BATCH_MESSAGES_MAX}"))
            return future
        self._batches += 1
        batch = f"Nats-Batch-Id: {self.unique}-{self._batches:x}\r\nNats-Batch-Sequence: ".encode()
        token, reply = self.ack_token()
        end = len(messages)
        lines: list[bytes] = []
        try:
            for place, (subject, data) in enumerate(messages, 1):
                headers = b"%s%d\r\n" % (batch, place)
                if place == 1:
                    headers += fence
                if place == end:
                    lines.append(self.frame(subject, data, reply, headers + b"Nats-Batch-Commit: 1\r\n"))
                else:
                    lines.append(self.frame(subject, data, "", headers))
        except (Refused, ValueError) as error:
            future.set_exception(error)
            return future
        return self.store_lines(b"".join(lines), expect_subject, token, future, timeout)

    async def append_batch(self, messages: Sequence[tuple[str, bytes]], *, expect_subject: str, expect: int, timeout: float = 5) -> int:
        """Store all messages at once or none; see `bus.Bus.append_batch`."""
        return await self.append_batch_soon(messages, expect_subject=expect_subject, expect=expect, timeout=timeout)

    # ---- streams

    async def last(self, stream: str, subject: str) -> Stored | None:
        """The last message of a subject, read through the stream's leader."""
        return await streams.message(self, stream, {"last_by_subj": subject})

    async def get(self, stream: str, sequence: int) -> Stored | None:
        """One message, read through the stream's leader."""
        return await streams.message(self, stream, {"seq": sequence})

    async def read(self, stream: str, subject: str, start: int = 1) -> list[Stored]:
        """Everything the stream holds of a subject (wildcards allowed) from a sequence on, in order."""
        return await streams.read(self, stream, subject, start)

    async def purge(self, stream: str, *, subject: str = "", before: int = 0) -> int:
        """Remove messages (of a subject) with a sequence below `before` (0: all). Returns how many."""
        return await streams.purge(self, stream, subject=subject, before=before)

    async def ensure_stream(self, settings: StreamSettings, *, timeout: float = 5) -> StreamState:
        """Create the stream, or bring the one that is there to these settings."""
        return await streams.ensure_stream(self, settings, timeout)

    async def stream_state(self, stream: str, *, timeout: float = 5) -> StreamState | None:
        """What the stream holds; None when there is no such stream."""
        return await streams.stream_state(self, stream, timeout)

    async def delete_stream(self, stream: str, *, timeout: float = 5) -> None:
        """Delete a stream; one that is not there is as good as deleted."""
        await streams.delete_stream(self, stream, timeout)

    async def ensure_consumer(self, stream: str, name: str, subject: str, *, ack_wait_s: float, memory: bool) -> None:
        """A durable pull consumer with explicit acks; created or left as it is."""
        await streams.ensure_consumer(self, stream, name, subject, ack_wait_s=ack_wait_s, memory=memory)

    async def delete_consumer(self, stream: str, name: str) -> None:
        """Delete a consumer; one that is not there is as good as deleted."""
        await streams.delete_consumer(self, stream, name)

    async def consumers(self, stream: str) -> list[str]:
        """Names of a stream's consumers."""
        return await streams.consumers(self, stream)

    # ---- longer conversations

    def reader(self, stream: str, subject: str, start: int, on_message: Callable[[Delivery], None], *, window: int = 256) -> OrderedReader:
        """Read `subject` of a stream from sequence `start` on; at most `window` messages are asked for ahead."""
        return OrderedReader(self, stream, subject, on_message, start=start, window=window)

    def puller(self, stream: str, consumer: str, demand: Callable[[], int], on_message: Callable[[LaneMessage], None]) -> StandingPuller:
        """Pull a shared lane; see `bus.Bus.puller`."""
        return StandingPuller(self, stream, consumer, demand, on_message)

    def private_lane(
        self, stream: str, lane: str, push: str, on_message: Callable[[int, bytes], None], on_reset: Callable[[], None]
    ) -> PushedLane:
        """Follow a private lane; see `bus.Bus.private_lane`."""
        return PushedLane(self, stream, lane, push, on_message, on_reset)

    def bucket(self, name: str) -> Bucket:
        """The bucket of this name; its stream is made by `ensure_stream(kv.bucket_stream(...))`."""
        return Bucket(self, name)

    def objects(self, name: str) -> ObjectStore:
        """The object store of this name; its stream is made by `ensure_stream(objects.object_stream(...))`."""
        return ObjectStore(self, name)


class CoreSubscription:
    """A core subscription; ends with `close`."""

    def __init__(self, wire: Wire, sid: int) -> None:
        self._wire = wire
        self._sid = sid

    async def close(self) -> None:
        """Deliver nothing more."""
        self._wire.unsubscribe_raw(self._sid)


class _Nothing(Struct):
    pass


def _version(text: str) -> tuple[int, ...]:
    numbers = text.split("-", 1)[0].split(".")[:2]
    return tuple(int(part) for part in numbers if part.isdigit())
