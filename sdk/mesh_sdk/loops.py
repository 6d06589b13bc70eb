"""The client's own loop thread, for code without an event loop: the `_sync` twins and plain `start_nowait`.

Rule: a twin has no logic; it runs the awaitable's own coroutine here and waits.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from mesh_sdk.errors import MeshError

T = TypeVar("T")


class LoopThread:
    """A daemon thread with an event loop that runs until `stop`."""

    def __init__(self) -> None:
        self.loop = _new_loop()
        self._thread = threading.Thread(target=self._run, name="mesh client", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_forever()
        finally:
            self.loop.close()

    def block(self, make: Callable[[], Coroutine[Any, Any, T]], name: str) -> T:
        """Run a coroutine on the thread and wait for what it returns.

        Args:
            make: makes the coroutine.
            name: of the awaitable that this is the twin of, for the message.

        Raises:
            MeshError: on a thread with a running loop, which waiting would stop.
        """
        refuse_running_loop(name)
        future = asyncio.run_coroutine_threadsafe(make(), self.loop)
        try:
            return future.result()
        except BaseException:  # also a KeyboardInterrupt of the waiting thread: nobody wants the result any more
            future.cancel()
            raise

    def stop(self) -> None:
        """End the loop; returns when the thread has ended."""
        self.loop.call_soon_threadsafe(self.loop.stop)
        if threading.current_thread() is not self._thread:
            self._thread.join()


def refuse_running_loop(name: str) -> None:
    """Refuse to wait on a thread whose loop that would stop.

    Raises:
        MeshError: naming what to await instead.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise MeshError(f"{name}_sync() would stop the event loop that runs on this thread: use `await {name}(...)`")


def _new_loop() -> asyncio.AbstractEventLoop:
    if sys.platform == "win32":
        return asyncio.new_event_loop()
    import uvloop

    return uvloop.new_event_loop()
