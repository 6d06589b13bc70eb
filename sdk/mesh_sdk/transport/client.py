"""nats-py, with the few places corrected that a loop can't live with. It connects, authenticates, parses and reconnects.

Rule: whatever reaches into nats-py's private parts stands in this file. What differs from `nats.aio.client.Client`:

- messages of our own subscriptions go straight to a plain function, without a queue and a task between;
- a lost connection is told at once, and its socket aborted: closing one whose peer is away would wait for its unsent bytes;
- an error line of the server ends the connection, not the client (which would never come back);
- a ping whose waiter has gone, or anything else that ends the read loop, doesn't leave a connection that nobody reads.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from nats import errors as nats_errors
from nats.aio.client import Client
from nats.aio.subscription import Subscription

from mesh_sdk.transport.backoff import Backoff

Handler = Callable[[bytes, bytes, bytes, bytes | None], None]
"""(subject, reply, data, raw headers) of one message."""

_log = logging.getLogger(__name__)

_PING = b"PING\r\n"
_NOT_PERMITTED = "permissions violation"


class WireClient(Client):
    """A nats-py client whose subscriptions have plain handlers.

    Args:
        on_lost: called once per lost connection, before anything else happens.
    """

    def __init__(self, on_lost: Callable[[Exception], None]) -> None:
        super().__init__()
        self.handlers: dict[int, Handler] = {}
        self._ours: dict[int, Subscription] = {}
        self._on_lost = on_lost

    # ---- what the wire uses

    def socket(self) -> asyncio.WriteTransport:
        """The transport of the present connection, to write to directly."""
        transport: asyncio.WriteTransport = self._transport._io_writer.transport  # type: ignore[union-attr]
        return transport

    def abort(self) -> None:
        """Drop the socket, if there is one, with whatever it has not sent."""
        if self._transport and not self.socket().is_closing():
            self.socket().abort()

    def register(self, subject: str, handler: Handler, queue: str = "") -> int:
        """Have messages of a subscription handled; a reconnect subscribes again by itself. Returns its id."""
        self._sid += 1
        sid: int = self._sid
        self._subs[sid] = self._ours[sid] = Subscription(self, sid, subject, queue=queue)
        self.handlers[sid] = handler
        return sid

    def unregister(self, sid: int) -> None:
        """Forget a subscription: what still comes for it is dropped."""
        self._subs.pop(sid, None)
        self._ours.pop(sid, None)
        self.handlers.pop(sid, None)

    def keep_subscriptions(self) -> None:
        """A first try to connect that fails makes nats-py forget all subscriptions: remember them again."""
        self._subs.update(self._ours)

    def ping(self) -> asyncio.Future[bool]:
        """Ask the server for a sign; it comes after everything that was written before."""
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._pongs.append(future)
        self.socket().write(_PING)
        return future

    @property
    def server_info(self) -> dict[str, Any]:
        """What the server said of itself when the connection began."""
        info: dict[str, Any] = self._server_info
        return info

    # ---- what nats-py calls

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes) -> None:
        handler = self.handlers.get(sid)
        if handler is None:
            return
        try:
            handler(subject, reply, data, headers)
        except Exception:  # a faulty callback must not end the read loop of everybody else
            _log.exception("the handler of %r failed", subject)

    async def _process_pong(self) -> None:
        if not self._pongs:
            return
        future = self._pongs.pop(0)
        self._pings_outstanding = 0
        if not future.done():
            future.set_result(True)

    async def _process_err(self, err_msg: str) -> None:
        error = nats_errors.Error(f"nats: {err_msg.strip(chr(39))}")
        self._err = error
        if _NOT_PERMITTED in err_msg:
            await self._error_cb(error)
        else:
            await self._process_op_err(error)

    async def _process_op_err(self, e: Exception) -> None:
        if not self.is_closed and not self.is_reconnecting:
            self._on_lost(e)
            self.abort()
        await super()._process_op_err(e)

    async def _connect_to_server(self, s: Any) -> None:
        # A try that got no further than the socket leaves it open: the next one would replace it without closing it.
        self.abort()
        await super()._connect_to_server(s)

    async def _attempt_reconnect(self) -> None:
        backoff = Backoff(0.1, 2.0)
        while True:
            try:
                return await super()._attempt_reconnect()
            except Exception:  # whatever a half-started server says: nobody else would try again
                _log.exception("a try to reconnect failed")
                await backoff.wait(asyncio.Event())

    async def _read_loop(self) -> None:
        await super()._read_loop()
        task = asyncio.current_task()
        if task is None or task.cancelling():
            return
        if self._reading_task is task and self.is_connected:
            await self._process_op_err(nats_errors.Error("nats: the read loop ended"))
