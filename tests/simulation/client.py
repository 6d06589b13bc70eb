"""Stands in for nats-py under `mesh_sdk.transport`: the methods of `transport.client.WireClient` over a simulated connection.

Everything above it is the real thing: `Link`, `Wire`, readers, pullers, lanes, buckets. Rule: a lost connection is told at
once and comes back by itself, with its subscriptions, while the process lives.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from mesh_sdk.transport.client import Handler
from tests.simulation.connection import Connection
from tests.simulation.process import current
from tests.simulation.server import Server

log = logging.getLogger(__name__)


class SimulatedClient:
    """See the module.

    Args:
        server: to connect to.
        on_lost: called once per lost connection.
    """

    max_payload = 1024 * 1024

    def __init__(self, server: Server, on_lost: Callable[[Exception], None]) -> None:
        self.handlers: dict[int, Handler] = {}
        self._server = server
        self._on_lost = on_lost
        self._process = current()
        self.servers: list[str] = []
        """As they were named to it: all of them are the one."""
        self._subjects: dict[int, str] = {}
        self._sid = 0
        self._pongs: list[asyncio.Future[bool]] = []
        self._connection: Connection | None = None
        self._closed = False
        self._wait_s = 0.1
        self._reconnected: Callable[[], Awaitable[None]]
        self._reconnecting: asyncio.Task[None] | None = None
        self._process.on_kill.append(self._died)

    @property
    def server_info(self) -> dict[str, Any]:
        """What the server says of itself."""
        return {"version": "2.15.1", **({} if self._server.lone else {"cluster": "simulated"})}

    async def connect(
        self, *, servers: list[str], reconnected_cb: Callable[[], Awaitable[None]], reconnect_time_wait: float, **options: Any
    ) -> None:
        """Connect for the first time."""
        self.servers = servers
        self._reconnected = reconnected_cb
        self._wait_s = reconnect_time_wait
        await self._open()

    async def _open(self) -> None:
        network = self._server.network
        while True:
            await asyncio.sleep(2 * network.latency())
            if self._server.up:
                break
            await asyncio.sleep(self._wait_s)
        self._connection = Connection(self._server, self, self._process)
        for sid, subject in self._subjects.items():
            self._connection.write(f"SUB {subject} {sid}\r\n".encode())

    # ---- what the wire uses

    def socket(self) -> Connection:
        """The connection, to write to."""
        assert self._connection is not None
        return self._connection

    def abort(self) -> None:
        """Drop the connection."""
        if self._connection is not None:
            self._connection.abort()

    def register(self, subject: str, handler: Handler, queue: str = "") -> int:
        """Have messages of a subscription handled; its id."""
        self._sid += 1
        self._subjects[self._sid] = subject
        self.handlers[self._sid] = handler
        return self._sid

    def unregister(self, sid: int) -> None:
        """Forget a subscription."""
        self._subjects.pop(sid, None)
        self.handlers.pop(sid, None)

    def keep_subscriptions(self) -> None:
        """They are kept anyway."""

    def ping(self) -> asyncio.Future[bool]:
        """Ask the server for a sign."""
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._pongs.append(future)
        self.socket().write(b"PING\r\n")
        return future

    async def close(self) -> None:
        """End for good: what was written before still goes out."""
        if self._closed:
            return
        self._closed = True
        if self._reconnecting is not None:
            self._reconnecting.cancel()
        if self._connection is not None and not self._connection.lost:
            self._connection.finish()
        if self._died in self._process.on_kill:
            self._process.on_kill.remove(self._died)

    # ---- what the connection tells

    def ponged(self) -> None:
        """A ping was answered."""
        if self._pongs:
            future = self._pongs.pop(0)
            if not future.done():
                future.set_result(True)

    def delivered(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes | None) -> None:
        """A message has come."""
        handler = self.handlers.get(sid)
        if handler is None:
            return
        try:
            handler(subject, reply, data, headers)
        except Exception:  # as in the real one: a faulty callback must not end the read loop of everybody else
            log.exception("the handler of %r failed", subject)

    def connection_lost(self, connection: Connection) -> None:
        """It was cut."""
        if connection is not self._connection or self._closed:
            return
        self._pongs.clear()
        self._on_lost(ConnectionError("cut"))
        self._reconnecting = asyncio.get_running_loop().create_task(self._reconnect())

    async def _reconnect(self) -> None:
        await asyncio.sleep(self._wait_s * self._server.network.rng.random())
        await self._open()
        await self.ping()  # its subscriptions are in force
        await self._reconnected()

    def _died(self) -> None:
        if self._connection is not None and not self._connection.lost:
            self._connection.orphan()
