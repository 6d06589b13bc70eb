"""One connection as bytes: writes, subscriptions, questions and their answers. No JetStream beyond the acknowledgement.

Rules: a write goes out now or is refused, never into a buffer that outlives the connection. Whatever waits for an
answer ends: with the answer, `TimedOut`, or `Disconnected` when the connection is lost.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import Struct

from mesh_sdk.transport.client import Handler, WireClient
from mesh_sdk.transport.errors import (
    NO_RESPONDERS,
    Disconnected,
    NoResponders,
    Refused,
    ServerError,
    StreamMissing,
    TimedOut,
    TransportError,
    refusal,
)
from mesh_sdk.transport.headers import status
from mesh_sdk.transport.settings import ConnectionSettings

_log = logging.getLogger(__name__)

_SWEEP_S = 0.1
"""How late a timeout may come."""

_HEADERS_BEGIN = b"NATS/1.0\r\n"


class _Ack(Struct):
    seq: int = 0
    error: ServerError | None = None


_decode_ack = msgspec.json.Decoder(_Ack).decode


class _Question:
    """Something asked, whose answer may come in parts: `part(headers, data)` returns True with the last one."""

    __slots__ = ("deadline", "future", "part", "subject")

    def __init__(
        self, future: asyncio.Future[bytes], deadline: float, subject: str, part: Callable[[bytes | None, bytes], bool] | None
    ) -> None:
        self.future = future
        self.deadline = deadline
        self.subject = subject
        self.part = part


class Wire:
    """A connection that is up or down; see the module. `connection.Link` makes a Bus of it."""

    def __init__(self, settings: ConnectionSettings) -> None:
        self.loop = asyncio.get_running_loop()
        self.client = WireClient(self._lost)
        self.unique = secrets.token_hex(8)
        """Names this connection; no other ever had it."""
        self._buffer_max = settings.write_buffer_bytes_max
        self._up = False
        self._was_up = False
        self._closed = False
        self._socket: asyncio.WriteTransport | None = None
        self._listeners: list[Callable[[bool], None]] = []
        self._changed = asyncio.Event()
        self._count = 0
        inbox = f"{settings.inbox_prefix}.{self.unique}"
        self._ack_inbox = f"{inbox}.a."
        self._answer_inbox = f"{inbox}.r."
        self._box_inbox = f"{inbox}.s."
        self._cut = len(self._ack_inbox)
        self._acks: dict[bytes, tuple[asyncio.Future[int], float, str]] = {}
        self._questions: dict[bytes, _Question] = {}
        self._pings: set[asyncio.Future[bool]] = set()
        self._sweeper: asyncio.TimerHandle | None = None
        self._late_subscriptions: dict[int, str] = {}
        self._late_ends: list[int] = []
        self.subscribe_raw(self._ack_inbox + "*", self._on_ack)
        self.subscribe_raw(self._answer_inbox + "*", self._on_answer)

    # ---- up and down

    @property
    def connected(self) -> bool:
        """Whether a write would go out now."""
        return self._up and self._socket is not None and not self._socket.is_closing()

    @property
    def closed(self) -> bool:
        """Whether it was closed for good."""
        return self._closed

    @property
    def max_payload(self) -> int:
        """The largest message, headers included, that the server takes."""
        size: int = self.client.max_payload
        return size

    @property
    def clustered(self) -> bool:
        """Whether the server at hand belongs to a cluster; of how many servers it does not say to everybody."""
        return bool(self.client.server_info.get("cluster"))

    def on_connection(self, listener: Callable[[bool], None]) -> Callable[[], None]:
        """Have `listener(False)` called when the connection is lost, `listener(True)` when every subscription is back.

        Returns:
            A function that ends this.
        """
        self._listeners.append(listener)

        def remove() -> None:
            if listener in self._listeners:
                self._listeners.remove(listener)

        return remove

    async def wait_connected(self) -> None:
        """Return once there is a connection.

        Raises:
            Disconnected: when this one was closed for good.
        """
        while not self._up:
            if self._closed:
                raise Disconnected("this connection was closed")
            self._changed.clear()
            await self._changed.wait()

    def is_up(self) -> None:
        """The client has a connection and has subscribed again to everything."""
        if self._closed:
            return
        self.client.keep_subscriptions()
        self._socket = self.client.socket()
        self._up = True
        for sid, subject in self._late_subscriptions.items():
            self._socket.write(f"SUB {subject} {sid}\r\n".encode())
        for sid in self._late_ends:
            self._socket.write(b"UNSUB %d\r\n" % sid)
        self._late_subscriptions.clear()
        self._late_ends.clear()
        if self._was_up:
            _log.info("connected again")
        self._was_up = True
        self._tell(True)

    def _lost(self, error: Exception) -> None:
        if not self._up:
            return
        self._up = False
        self._socket = None
        _log.warning("the connection was lost (%s); trying to reconnect", str(error) or type(error).__name__)
        self._fail_all(f"the connection to the server was lost: {error!s}")
        self._tell(False)

    def _tell(self, up: bool) -> None:
        self._changed.set()
        for listener in tuple(self._listeners):
            try:
                listener(up)
            except Exception:  # one faulty listener must not keep the others from hearing it
                _log.exception("a connection listener failed")

    def _fail_all(self, why: str) -> None:
        acks, self._acks = self._acks, {}
        questions, self._questions = self._questions, {}
        pings, self._pings = self._pings, set()
        waiting: list[asyncio.Future[Any]] = [entry[0] for entry in acks.values()]
        waiting += [question.future for question in questions.values()]
        waiting += pings
        for future in waiting:
            _fail(future, Disconnected(why))

    def shut(self) -> None:
        """No more writes; everything that waits fails."""
        was_up, self._up = self._up, False
        self._closed = True
        if self._sweeper is not None:
            self._sweeper.cancel()
        self._fail_all("this connection was closed")
        if was_up:
            self._tell(False)
        self._changed.set()

    # ---- writing

    def send(self, data: bytes) -> bool:
        """Write protocol lines now; False (and nothing written) when there is no connection, or it takes no more."""
        socket = self._socket
        if not self._up or socket is None or socket.is_closing() or socket.get_write_buffer_size() > self._buffer_max:
            return False
        socket.write(data)
        return True

    def publish(self, subject: str, data: bytes, reply: str = "") -> bool:
        """Send a core message now; False (and dropped) while not connected.

        Raises:
            Refused: when it is larger than the server takes.
        """
        return self.send(self.frame(subject, data, reply))

    def frame(self, subject: str, data: bytes, reply: str = "", headers: bytes = b"") -> bytes:
        """The protocol lines of one message.

        Raises:
            Refused: when it is larger than the server takes.
            ValueError: when the subject can't be one.
        """
        if " " in subject or not subject.isprintable() or not subject:
            raise ValueError(f"{subject!r} is no subject")
        size = len(data)
        if not headers:
            if size > self.client.max_payload:
                raise Refused(f"{subject}: {size} bytes, the server takes {self.client.max_payload} at most")
            return b"".join((f"PUB {subject} {reply} {size}\r\n".encode(), data, b"\r\n"))
        head = len(headers) + 12
        if size + head > self.client.max_payload:
            raise Refused(f"{subject}: {size + head} bytes with headers, the server takes {self.client.max_payload} at most")
        line = f"HPUB {subject} {reply} {head} {head + size}\r\n".encode()
        return b"".join((line, _HEADERS_BEGIN, headers, b"\r\n", data, b"\r\n"))

    # ---- subscriptions

    def subscribe_raw(self, subject: str, handler: Handler, queue: str = "") -> int:
        """Subscribe now, ahead of whatever is written next; returns the id for `unsubscribe_raw`."""
        sid = self.client.register(subject, handler, queue)
        what = f"{subject} {queue}" if queue else subject
        if not self.send(f"SUB {what} {sid}\r\n".encode()):
            self._late_subscriptions[sid] = what
        return sid

    def unsubscribe_raw(self, sid: int) -> None:
        """End a subscription: its handler is not called again."""
        self.client.unregister(sid)
        if self._late_subscriptions.pop(sid, None) is None and not self.send(b"UNSUB %d\r\n" % sid):
            self._late_ends.append(sid)

    def new_inbox(self) -> str:
        """A reply subject of our own, never used before."""
        self._count += 1
        return f"{self._box_inbox}{self._count:x}"

    async def flush(self, timeout: float = 5) -> None:
        """Return once the server has read everything written before.

        Raises:
            Disconnected, TimedOut.
        """
        if not self.connected:
            raise Disconnected("there is no connection")
        future = self.client.ping()
        self._pings.add(future)
        try:
            async with asyncio.timeout(timeout):
                await future
        except TimeoutError:
            raise TimedOut(f"the server answered no ping within {timeout} s") from None
        finally:
            self._pings.discard(future)

    async def in_force(self, timeout: float = 10.0) -> None:
        """Return once the server knows every subscription made so far.

        Raises:
            TimedOut, Disconnected (closed for good).
        """
        try:
            async with asyncio.timeout(timeout):
                while True:
                    await self.wait_connected()
                    try:
                        return await self.flush(timeout)
                    except Disconnected:
                        continue
        except TimeoutError:
            raise TimedOut(f"no connection for {timeout:g} s") from None

    # ---- questions

    def store(self, subject: str, data: bytes, headers: bytes, timeout: float) -> asyncio.Future[int]:
        """Send a message to a stream; the future is its sequence there, or the error."""
        future: asyncio.Future[int] = self.loop.create_future()
        token, reply = self.ack_token()
        try:
            lines = self.frame(subject, data, reply, headers)
        except (Refused, ValueError) as error:
            future.set_exception(error)
            return future
        return self.store_lines(lines, subject, token, future, timeout)

    def ack_token(self) -> tuple[str, str]:
        """A token and the reply subject that goes with it, for `store_lines`."""
        self._count += 1
        token = f"{self._count:x}"
        return token, self._ack_inbox + token

    def store_lines(self, lines: bytes, subject: str, token: str, future: asyncio.Future[int], timeout: float) -> asyncio.Future[int]:
        """Send protocol lines whose last message asks for an acknowledgement under `token`."""
        if not self.send(lines):
            future.set_exception(Disconnected(f"{subject}: there is no connection, nothing was sent"))
            return future
        self._acks[token.encode()] = (future, self.loop.time() + timeout, subject)
        if self._sweeper is None:
            self._sweeper = self.loop.call_later(_SWEEP_S, self._sweep)
        return future

    def _on_ack(self, subject: bytes, reply: bytes, data: bytes, headers: bytes | None) -> None:
        entry = self._acks.pop(subject[self._cut :], None)
        if entry is None or entry[0].done():
            return
        future, _, where = entry
        if not data:
            future.set_exception(StreamMissing(f"{where}: no stream takes it, or no server that holds it answers", NO_RESPONDERS))
            return
        try:
            ack = _decode_ack(data)
        except msgspec.DecodeError as error:
            future.set_exception(Refused(f"{where}: not an acknowledgement: {error}"))
            return
        if ack.error is None:
            future.set_result(ack.seq)
        else:
            future.set_exception(refusal(ack.error.err_code, ack.error.description, where))

    def ask(
        self,
        subject: str,
        data: bytes,
        timeout: float,
        part: Callable[[bytes | None, bytes], bool] | None = None,
    ) -> asyncio.Future[bytes]:
        """Ask a question; the future is the (last) answer's data, or the error.

        Args:
            part: gets each answer, returns True with the last one. Without it the first is the only one.
        """
        future: asyncio.Future[bytes] = self.loop.create_future()
        self._count += 1
        token = f"{self._count:x}"
        try:
            sent = self.publish(subject, data, self._answer_inbox + token)
        except (Refused, ValueError) as error:
            future.set_exception(error)
            return future
        if not sent:
            future.set_exception(Disconnected("there is no connection: nothing was asked"))
            return future
        self._questions[token.encode()] = _Question(future, self.loop.time() + timeout, subject, part)
        if self._sweeper is None:
            self._sweeper = self.loop.call_later(_SWEEP_S, self._sweep)
        return future

    def _on_answer(self, subject: bytes, reply: bytes, data: bytes, headers: bytes | None) -> None:
        token = subject[self._cut :]
        question = self._questions.get(token)
        if question is None:
            return
        nobody = headers is not None and not data and status(headers) == NO_RESPONDERS
        if not nobody and question.part is not None and not question.part(headers, data):
            return
        del self._questions[token]
        if question.future.done():
            return
        if nobody:
            question.future.set_exception(NoResponders(f"{question.subject}: nobody listens"))
        else:
            question.future.set_result(data)

    def _sweep(self) -> None:
        now = self.loop.time()
        for token in [token for token, entry in self._acks.items() if entry[1] <= now]:
            future, _, subject = self._acks.pop(token)
            _fail(future, TimedOut(f"{subject}: not acknowledged in time, it may have been stored"))
        for token in [token for token, question in self._questions.items() if question.deadline <= now]:
            question = self._questions.pop(token)
            _fail(question.future, TimedOut(f"{question.subject}: no answer in time"))
        more = self._acks or self._questions
        self._sweeper = self.loop.call_later(_SWEEP_S, self._sweep) if more else None


def _fail(future: asyncio.Future[Any], error: TransportError) -> None:
    if not future.done():
        future.set_exception(error)
