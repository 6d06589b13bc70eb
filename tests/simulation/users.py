"""Simulated users: start runs in every way there is, cancel some, publish events, wait for results.

Rule: what was acknowledged is written down outside of the process, so that a killed user's starts are still expected.
"""

from __future__ import annotations

import asyncio
import random
from typing import Any

from mesh_sdk import Mesh
from mesh_sdk.errors import MeshError, RunCancelled, RunFailed, RunTimedOut, Unavailable, UnknownWorkflow
from mesh_sdk.protocol.records import CANCELLED, FAILED, SUCCEEDED, TIMED_OUT
from mesh_sdk.refs import RunRef
from tests.simulation.names import NAMES, STICKY_NAMES
from tests.simulation.parts import ClientMachine, Reporter

_STATUS: dict[type[MeshError], str] = {RunFailed: FAILED, RunCancelled: CANCELLED, RunTimedOut: TIMED_OUT}


class Ledger:
    """What users were promised."""

    def __init__(self) -> None:
        self.starts: dict[str, bool] = {}
        """Requested run id → whether it had a key."""
        self.events = 0
        self.results: dict[str, tuple[str, object]] = {}
        """Requested run id → how it ended, as a user was told, and with which result."""


class UserMachine(ClientMachine):
    """One user.

    Args:
        name, rng, reporter: of the machine.
        ledger: of all users.
        workers: ids that runs may be bound to.
    """

    actions = 12
    pace_s = 0.3

    def __init__(self, name: str, rng: random.Random, reporter: Reporter, ledger: Ledger, workers: list[str]) -> None:
        super().__init__(name, rng, reporter)
        self._ledger = ledger
        self._workers = workers
        self._left = -1

    async def use(self, mesh: Mesh) -> None:
        """Do some things, then wait for what comes of them."""
        waiting: list[asyncio.Task[None]] = []
        self._left = self.actions if self._left < 0 else self._left
        while self._left:
            self._left -= 1
            await asyncio.sleep(self.pace_s * self.rng.expovariate(1.0))
            try:
                await self._act(mesh, waiting)
            except (Unavailable, UnknownWorkflow) as error:
                self.reporter.trace(f"{self.name} is refused: {error}")
        if waiting:
            await asyncio.wait(waiting)
            for task in waiting:
                task.result()

    async def _act(self, mesh: Mesh, waiting: list[asyncio.Task[None]]) -> None:
        rng = self.rng
        choice = rng.random()
        if choice < 0.15:
            name = rng.choice(["order.paid", "order.made"])
            await mesh.events.publish(name, {"n": rng.randrange(100)}, id=f"e-{rng.randrange(20)}" if rng.random() < 0.5 else "")
            self._ledger.events += 1
            return
        many = rng.choice([1, 1, 1, 2, 8])
        for ref in await asyncio.gather(*(self._start(mesh) for _ in range(many))):
            waiting.append(asyncio.create_task(self._wait(ref)))
            if rng.random() < 0.08:
                await ref.cancel()

    async def _start(self, mesh: Mesh) -> RunRef[Any]:
        rng = self.rng
        name = rng.choice(NAMES)
        options: dict[str, Any] = {}
        if rng.random() < 0.2:
            options["priority"] = rng.choice([1, 5, 9])
        if rng.random() < 0.1:
            options["key"] = rng.choice("abcdef")
        if rng.random() < 0.1:
            options["delay"] = rng.choice(["100ms", "1s"])
        if name in STICKY_NAMES and rng.random() < 0.2:
            options["sticky_worker"] = rng.choice(self._workers)
        ref: RunRef[Any] = await mesh.startable(name).start(rng.randrange(100), **options)
        self._ledger.starts[ref._requested] = "key" in options
        self.reporter.trace(f"{self.name} has started {name} as {ref._requested} {options or ''}")
        return ref

    async def _wait(self, ref: RunRef[Any]) -> None:
        try:
            self._ledger.results[ref._requested] = SUCCEEDED, await ref.result()
        except (RunFailed, RunCancelled, RunTimedOut) as error:
            self._ledger.results[ref._requested] = _STATUS[type(error)], None
        except MeshError as error:
            self.reporter.trace(f"{self.name}: {ref._requested}: {error!r}")
