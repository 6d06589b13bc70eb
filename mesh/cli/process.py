"""The frame of a long-running process: its event loop, the `ready` line, signals, and the garbage collector's settings.

Rule: the first SIGTERM or SIGINT asks to drain, the second cancels.
"""

from __future__ import annotations

import asyncio
import gc
import signal
from collections.abc import Callable, Coroutine
from typing import Any

import click

from mesh_sdk.errors import MeshError

OnReady = Callable[[str], None]

_GC_THRESHOLDS = (50_000, 3, 700)
"""The second one bounds a pass while much is made that stays: 150,000 objects, some 10 ms. What goes, goes without the collector."""


def run(main: Callable[[OnReady], Coroutine[Any, Any, None]]) -> None:
    """Run a process of the mesh to its end. `main(on_ready)` calls `on_ready(what)` once, when it is ready."""
    gc.set_threshold(*_GC_THRESHOLDS)
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(main(_say_ready))


async def until_signal(main: Callable[[asyncio.Event], Coroutine[Any, Any, None]]) -> None:
    """Run `main(stop)`, which drains and returns once `stop` is set.

    Raises:
        MeshError: when a second signal ended it before it had drained.
    """
    stop = asyncio.Event()
    task = asyncio.ensure_future(main(stop))

    def on_signal() -> None:
        if stop.is_set():
            task.cancel()
        stop.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    try:
        await task
    except asyncio.CancelledError:
        raise MeshError("a second signal ended the process before it had drained") from None


def _say_ready(what: str) -> None:
    click.echo(f"ready {what}")
    # What is there now stays: it needn't be looked through again and again (a third more throughput, measured).
    gc.collect()
    gc.freeze()


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ModuleNotFoundError:  # Windows has none
        return None
    return uvloop.new_event_loop
