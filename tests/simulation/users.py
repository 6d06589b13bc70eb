"""Simulated users: start runs in every way there is, cancel some, publish events, wait for results.

Rule: what was acknowledged is written down outside of the process, so that a killed user's starts are still expected.
"""

from __future__ import annotations

import asyncio
import random
from typing import Any

from mesh_sdk import Mesh, WorkerLabel
from mesh_sdk.errors import MeshError, RunCancelled, RunFailed, RunTimedOut, Unavailable, UnknownWorkflow
from mesh_sdk.protocol.records import CANCELLED, FAILED, SUCCEEDED, TIMED_OUT
from mesh_sdk.refs import RunRef
from tests.simulation.limits import QUOTAS
from tests.simulation.names import LIMITED_NAMES, PLAIN_NAMES, STICKY_NAMES
from tests.simulation.parts import ClientMachine, Reporter

FLOOD = 12
"""Starts at once, so that keys wait for each other."""
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
        too_wide: workflows whose steps take more slots than there may be.
    """

    actions = 12
    pace_s = 0.3

    def __init__(
        self, name: str, rng: random.Random, reporter: Reporter, ledger: Ledger, workers: list[str], too_wide: frozenset[str]
    ) -> None:
        super().__init__(name, rng, reporter)
        self._ledger = ledger
        self._workers = workers
        self._limited = [limited for limited in LIMITED_NAMES if limited not in too_wide]
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
        if choice < 0.22:
            many, one, user = FLOOD, "turns", ""
        else:
            many, one, user = rng.choice([1, 1, 1, 2, 8]), self._name() if rng.random() < 0.5 else "", rng.choice([*QUOTAS])
        for ref in await asyncio.gather(*(self._start(mesh, one or self._name(), user if one else "") for _ in range(many))):
            waiting.append(asyncio.create_task(self._wait(ref)))
            if rng.random() < 0.08:
                await ref.cancel()

    def _name(self) -> str:
        return self.rng.choice(PLAIN_NAMES if self.rng.random() < 0.45 else self._limited)

    def _input(self, name: str, user: str) -> Any:
        """What the run is about: of limited ones a user, most often (in a burst) the same one."""
        rng = self.rng
        if name in PLAIN_NAMES:
            return rng.randrange(100)
        user = user if user and rng.random() < 0.7 else rng.choice("aaabcc")
        about = {"user": user, "tenant": rng.choice("xy"), "n": rng.randint(1, 3), "quota": QUOTAS[user]}
        return about if rng.random() < 0.98 else {"tenant": "x"}

    async def _start(self, mesh: Mesh, name: str, user: str) -> RunRef[Any]:
        rng = self.rng
        options: dict[str, Any] = {}
        if rng.random() < 0.2:
            options["priority"] = rng.choice([1, 5, 9])
        if rng.random() < 0.1:
            options["key"] = rng.choice("abcdef")
        if rng.random() < 0.1:
            options["delay"] = rng.choice(["100ms", "1s"])
        if name in STICKY_NAMES and rng.random() < 0.2:
            options["sticky_worker"] = rng.choice(self._workers)
        if name == "choosy" and rng.random() < 0.3:
            value, comparator = rng.choice([(2, "="), (2, ">="), (1, "!=")])
            options["desired_worker_labels"] = {"gpu": WorkerLabel(value, required=True, comparator=comparator)}
        ref: RunRef[Any] = await mesh.startable(name).start(self._input(name, user), **options)
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
