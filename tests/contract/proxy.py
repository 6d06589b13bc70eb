"""A TCP proxy that makes faults: connections cut, or kept open while nothing passes."""

from __future__ import annotations

import asyncio
import contextlib


class Proxy:
    """Stands between a client and a server on the loopback."""

    def __init__(self, port: int) -> None:
        self.hole = False
        """While true, bytes vanish in both directions."""
        self.refuse = False
        """While true, new connections are closed at once."""
        self._target = port
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        assert self._server is not None
        return f"nats://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def start(self) -> Proxy:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return self

    def cut(self) -> None:
        """Break every connection."""
        for writer in self._open:
            writer.transport.abort()
        self._open.clear()

    async def close(self) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=5)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self._open.add(writer)
        with contextlib.suppress(OSError, asyncio.CancelledError):
            if self.refuse:
                return writer.transport.abort()
            there, other = await asyncio.open_connection("127.0.0.1", self._target)
            self._open.add(other)
            await asyncio.gather(self._pass(reader, other), self._pass(there, writer))

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                if not self.hole:
                    writer.write(data)
                    await writer.drain()
        writer.transport.abort()
