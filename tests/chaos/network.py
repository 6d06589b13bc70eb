"""The network of a chaos run: a TCP proxy between each process and each server, on a thread of its own.

Rule: bytes are never lost on a connection that lives on, just as with TCP: a hole holds them back, a cut ends the connection.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterable
from contextlib import suppress
from enum import Enum

CHUNK_BYTES = 65_536
DELAY_S = 0.15
CALL_S = 10.0
LAST_ROUNDS = 4


class Mode(Enum):
    """What a link does."""

    PASS = "pass"
    CUT = "cut"
    """Connections are broken, new ones refused."""
    HOLE = "black hole"
    """Connections stay, nothing passes in either direction."""
    DEAF = "deaf"
    """Nothing passes from the server to the process."""
    MUTE = "mute"
    """Nothing passes from the process to the server."""
    HALF_OPEN = "half-open"
    """The server's side is closed, the process is not told."""
    DELAY = "delay"
    """Everything comes later."""


class Link:
    """What one process has of one server.

    Args:
        port: of the server.
    """

    def __init__(self, port: int) -> None:
        self.port = 0
        self._target = port
        self._mode = Mode.PASS
        self._up, self._down = asyncio.Event(), asyncio.Event()
        self._up.set()
        self._down.set()
        self._near: set[asyncio.StreamWriter] = set()
        self._far: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    def set(self, mode: Mode) -> None:
        was, self._mode = self._mode, mode
        if mode is Mode.CUT or was is Mode.HALF_OPEN:
            _abort(self._near)
            _abort(self._far)
        elif mode is Mode.HALF_OPEN:
            _abort(self._far)
        for gate, shut in ((self._up, (Mode.HOLE, Mode.MUTE, Mode.HALF_OPEN)), (self._down, (Mode.HOLE, Mode.DEAF, Mode.HALF_OPEN))):
            (gate.clear if mode in shut else gate.set)()

    def close(self) -> None:
        if self._server is not None:
            self._server.close()
        _abort(self._near)
        _abort(self._far)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._mode is Mode.CUT:
            return writer.transport.abort()
        self._near.add(writer)
        other: asyncio.StreamWriter | None = None
        try:
            there, other = await asyncio.open_connection("127.0.0.1", self._target)
            self._far.add(other)
            await asyncio.gather(self._pass(reader, other, self._up), self._pass(there, writer, self._down))
        except OSError:
            pass
        finally:
            self._near.discard(writer)
            writer.transport.abort()
            if other is not None:
                self._far.discard(other)
                other.transport.abort()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, gate: asyncio.Event) -> None:
        with suppress(OSError):
            while data := await reader.read(CHUNK_BYTES):
                if not gate.is_set():
                    await gate.wait()
                if self._mode is Mode.DELAY:
                    await asyncio.sleep(DELAY_S)
                writer.write(data)
                await writer.drain()
        if self._mode is not Mode.HALF_OPEN:  # else whoever is left is not told before the link is as it was
            writer.transport.abort()


class Network:
    """All links: every process has its own to each server.

    Args:
        ports: of the servers.
    """

    def __init__(self, ports: Iterable[int]) -> None:
        self._ports = list(ports)
        self._links: dict[str, list[Link]] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="network", daemon=True)
        self._thread.start()

    def url(self, process: str) -> str:
        """Where a process finds the servers."""
        links = self._links.get(process)
        if links is None:
            links = self._links[process] = asyncio.run_coroutine_threadsafe(self._open(), self._loop).result(CALL_S)
        return ",".join(f"nats://127.0.0.1:{link.port}" for link in links)

    async def _open(self) -> list[Link]:
        links = [Link(port) for port in self._ports]
        for link in links:
            await link.start()
        return links

    def set(self, process: str, servers: Iterable[int], mode: Mode) -> None:
        """What the links of a process to these servers do from now on."""

        async def change() -> None:
            for server in servers:
                self._links[process][server].set(mode)

        asyncio.run_coroutine_threadsafe(change(), self._loop).result(CALL_S)

    def close(self) -> None:
        """End every connection, and the thread."""

        async def end() -> None:
            for links in self._links.values():
                for link in links:
                    link.close()
            for _ in range(LAST_ROUNDS):  # what was accepted in the last moment has its task a moment later
                tasks = asyncio.all_tasks() - {asyncio.current_task()}
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                await asyncio.sleep(0)

        asyncio.run_coroutine_threadsafe(end(), self._loop).result(CALL_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(CALL_S)
        self._loop.close()


def _abort(writers: set[asyncio.StreamWriter]) -> None:
    for writer in list(writers):
        writer.transport.abort()
    writers.clear()
