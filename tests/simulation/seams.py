"""Where the simulation takes the place of the machine: randomness, wall clock, sockets, threads, helper processes.

Rule: all of it stands here, and is put back at the end.
"""

from __future__ import annotations

import asyncio
import gc
import os
import random
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from unittest.mock import patch

from mesh.scheduler import free, snapshot, trim
from mesh.scheduler.follower import Follower
from mesh_sdk.transport.bus import Delivery
from mesh_sdk.worker.presence import Presence
from tests.simulation.client import SimulatedClient
from tests.simulation.process import OUTSIDE, Helpers, Process, current
from tests.simulation.server import EPOCH_NS, Server
from tests.simulation.witness import witness


class SimulatedPresence(Presence):
    """Beats from a simulated thread of the worker's process instead of a real one."""

    _task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to beat."""
        owner = current()
        self._task = Process(f"{owner.name}/presence", owner).spawn(self._main())

    async def stop(self) -> None:
        """Take the key away."""
        self._stopped.set()
        if self._stop is not None:
            self._stop.set()
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=3.0)


class SeenFollower(Follower):
    """A scheduler's, which has every state of it compared."""

    def _apply_frame(self, delivery: Delivery) -> None:
        witness().follows(self.sequence, delivery.sequence)
        super()._apply_frame(delivery)
        witness().followed(self.sequence, self.state)


class SimulatedClock:
    """A worker's clocks: its machine's wall clock may be wrong."""

    def __init__(self, loop: asyncio.AbstractEventLoop, wrong_ms: int) -> None:
        self.monotonic = self.boot = loop.time
        self._loop = loop
        self._wrong_ms = wrong_ms

    def wall_ms(self) -> int:
        """Milliseconds since 1970, as this machine has it."""
        return EPOCH_NS // 1_000_000 + int(self._loop.time() * 1000) + self._wrong_ms


async def _run_helper(helpers: Helpers, url: str, namespace: str, finished_max: int) -> int:
    """What `trim` does, with a simulated process: it outlives the leader that asked for it."""
    helper, died = helpers.begin(), asyncio.Event()
    helper.on_kill.append(died.set)
    task = helper.spawn(snapshot.make(url, namespace, finished_max))
    task.add_done_callback(lambda _: helper.kill(), context=OUTSIDE.context)
    try:
        await died.wait()
    finally:
        helper.kill()
    if not task.done() or task.exception() is not None:
        raise trim.HelperFailed(f"the helper process ended: {task.exception() if task.done() else 'killed'!r}")
    older: int = task.result()
    return older


@contextmanager
def simulated(server: Server, rng: random.Random, *, snapshot_frames: int, helpers: Helpers | None = None) -> Iterator[None]:
    """Have the machine be a simulated one.

    Args:
        server: what every connection of this program leads to.
        rng: where ids and tokens come from.
        snapshot_frames: journal frames between two snapshots.
        helpers: the processes that make snapshots.
    """
    loop = server.loop
    with (
        patch.object(os, "urandom", rng.randbytes),
        patch.object(random, "_urandom", rng.randbytes),
        patch.object(time, "time_ns", lambda: EPOCH_NS + int(loop.time() * 1e9)),
        patch.object(time, "time", lambda: EPOCH_NS / 1e9 + loop.time()),
        patch.object(os, "getpid", lambda: 1),
        patch.object(socket, "gethostname", lambda: "simulated"),
        patch("mesh_sdk.transport.wire.WireClient", lambda on_lost: SimulatedClient(server, on_lost)),
        patch("mesh_sdk.worker.runtime.Presence", SimulatedPresence),
        patch("mesh.engine.Follower", SeenFollower),
        patch.object(free, "SNAPSHOT_FRAMES", snapshot_frames),
        patch.object(trim, "_run_helper", partial(_run_helper, helpers or Helpers())),
    ):
        gc.disable()
        try:
            yield
        finally:
            gc.enable()
