"""The clients of one mesh: one for each event loop and process, and one on a thread of our own for code without a loop.

Rule: a client is used on its own loop only. Whoever comes from another loop or thread is brought there, or gets another
client; a forked child never touches its parent's.
"""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures.thread  # noqa: F401 - its own exit hook can not be set any more when ours runs
import logging
import os
import threading
import weakref
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from concurrent.futures import wait as wait_futures
from typing import Any, TypeVar

from mesh_sdk.cancelling import cancel_run
from mesh_sdk.client import CLOSE_S, Client
from mesh_sdk.config import Settings
from mesh_sdk.loops import LoopThread, refuse_running_loop
from mesh_sdk.protocol.records import Cancel, Done
from mesh_sdk.refs import RunRef
from mesh_sdk.serialize import UNTYPED, parser

T = TypeVar("T")

_log = logging.getLogger("mesh.client")
_parse_result = parser(UNTYPED, "result of the run")
_in_use: weakref.WeakSet[Clients] = weakref.WeakSet()


class Clients:
    """See the module.

    Args:
        settings: gives where the mesh is, at first use.
    """

    def __init__(self, settings: Callable[[], Settings]) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._process = os.getpid()
        self._by_loop: dict[asyncio.AbstractEventLoop, Client] = {}
        self._thread: LoopThread | None = None
        self._inherited: list[object] = []
        """Of the parent process: kept, so that nothing of it is finalised here."""

    # ---- finding one ----------------------------------------------------------------------------------------------

    def here(self) -> Client:
        """The client of the running loop.

        Raises:
            RuntimeError: when no loop runs on this thread.
        """
        loop = asyncio.get_running_loop()
        client = self._by_loop.get(loop)
        if client is None or self._process != os.getpid():
            return self._make(loop)
        return client

    def anywhere(self) -> Client:
        """The client of the running loop, else the one on our own thread."""
        try:
            return self.here()
        except RuntimeError:
            return self._background()

    def _background(self) -> Client:
        thread = self._loop_thread()
        return self._by_loop.get(thread.loop) or self._make(thread.loop)

    def _loop_thread(self) -> LoopThread:
        with self._lock:
            self._leave_parent()
            if self._thread is None:
                self._thread = LoopThread()
            return self._thread

    def _make(self, loop: asyncio.AbstractEventLoop) -> Client:
        settings = self._settings()
        with self._lock:
            self._leave_parent()
            client = self._by_loop.get(loop)
            if client is None:
                orphans = [ended for ended in self._by_loop if ended.is_closed()]
                client = self._by_loop[loop] = Client(settings, loop)
                _in_use.add(self)
                for ended in orphans:
                    _adopt(self._by_loop.pop(ended), client)
            return client

    def _leave_parent(self) -> None:
        """After a fork the parent's loops, sockets and thread are not ours."""
        if self._process == os.getpid():
            return
        self._inherited += [self._by_loop, self._thread]
        self._by_loop, self._thread, self._process = {}, None, os.getpid()

    def forked(self) -> None:
        """In a forked child: another thread of the parent may have held the lock."""
        self._lock = threading.Lock()

    def ref(self, run_id: str) -> RunRef[Any]:
        """A reference to a run that was started elsewhere."""
        return RunRef(ClientRuns(self, None), run_id, _parse_result)

    # ---- using one ------------------------------------------------------------------------------------------------

    def block(self, make: Callable[[], Coroutine[Any, Any, T]], name: str) -> T:
        """Run a coroutine on our own loop thread and wait for what it returns.

        Args:
            make: makes the coroutine.
            name: of the awaitable that the caller is the `_sync` twin of.

        Raises:
            MeshError: on a thread with a running loop.
        """
        refuse_running_loop(name)
        return self._loop_thread().block(make, name)

    async def on(self, home: Client | None, make: Callable[[Client], Coroutine[Any, Any, T]]) -> T | None:
        """Run a coroutine on the loop of the client that knows best; None when that loop has ended."""
        if home is None:
            return None
        if home.loop is asyncio.get_running_loop() and self._by_loop.get(home.loop) is home:
            return await make(home)
        if self._by_loop.get(home.loop) is not home or not home.loop.is_running() or self._process != os.getpid():
            return None
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(make(home), home.loop))

    # ---- ending ---------------------------------------------------------------------------------------------------

    async def close(self) -> None:
        """End the client of this loop and the one on our own thread; the next use opens new ones."""
        here = self._by_loop.pop(asyncio.get_running_loop(), None)
        if here is not None:
            await here.close()
        with self._lock:
            thread, self._thread = self._thread, None
        if thread is not None and self._process == os.getpid():
            background = self._by_loop.pop(thread.loop, None)
            if background is not None:
                await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(background.close(), thread.loop))
            thread.stop()

    def close_sync(self) -> None:
        """`close` for code without an event loop."""
        refuse_running_loop("mesh.close")
        thread = self._thread
        if thread is not None:
            asyncio.run(self.close())

    def flush_at_exit(self) -> None:
        """Give what `start_nowait` has not stored yet its last CLOSE_S; say what was not stored."""
        if self._process != os.getpid():
            return
        unstored = {loop: client for loop, client in self._by_loop.items() if client.unstored}
        if not unstored:
            return
        background = self._background()
        for loop, client in unstored.items():
            if not loop.is_running() and client is not background:
                _adopt(client, background)
        flushing: dict[Future[bool], Client] = {}
        for client in {background, *(client for loop, client in unstored.items() if loop.is_running())}:
            flushing[asyncio.run_coroutine_threadsafe(client.unstored.flush(CLOSE_S), client.loop)] = client
        wait_futures(flushing, timeout=CLOSE_S)
        for client in flushing.values():
            client.log_unstored()


def _adopt(client: Client, by: Client) -> None:
    """What a client on a loop that has ended could not store, another one does: the same start, with the same id."""
    for start in client.unstored.take():
        by.loop.call_soon_threadsafe(by.put_soon, by.unstored.add(start.record, start.size, start.priority))


class ClientRuns:
    """Answers for the runs that one client started: the source of their `RunRef`s.

    Args:
        clients: of the mesh.
        home: the client that started them, which hears of their ends; None for runs started elsewhere.
    """

    __slots__ = ("_clients", "_home")

    def __init__(self, clients: Clients, home: Client | None) -> None:
        self._clients = clients
        self._home = home

    async def done(self, requested: str, keyed: bool) -> Done:
        """Wait for the run's end."""
        done = await self._clients.on(self._home, lambda home: home.done(requested, ask=keyed))
        return await self._clients.here().done(requested, ask=True) if done is None else done

    async def accepted(self, requested: str, keyed: bool) -> str:
        """Wait until the start is stored and, with a key, answered."""
        run = await self._clients.on(self._home, lambda home: home.accepted(requested, keyed))
        return await self._clients.here().accepted(requested, keyed) if run is None else run

    async def cancel(self, run_id: str, reason: str) -> None:
        """Store a request to cancel the run; of one that was started elsewhere it has to be seen whether there is one."""
        if self._home is None:
            await cancel_run(self._clients.here(), run_id, reason)
        else:
            await self._clients.here().control(Cancel(run_id, reason), f"the cancel of run {run_id}")

    async def status(self, run_id: str) -> str:
        """The run's status now."""
        from mesh_sdk.reads import RunInfo, read

        return (await read(self._clients, "runs.get", {"run_id": run_id}, RunInfo)).status

    def block(self, make: Callable[[], Coroutine[Any, Any, T]], name: str) -> T:
        """Run a coroutine on our own loop thread and wait for what it returns."""
        return self._clients.block(make, name)


def _flush_all() -> None:
    for clients in list(_in_use):
        clients.flush_at_exit()


def _forget_locks() -> None:
    for clients in list(_in_use):
        clients.forked()


atexit.register(_flush_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_locks)
