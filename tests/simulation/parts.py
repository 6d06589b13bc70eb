"""The programs of a simulated mesh as machines that can be started, stopped, frozen and killed: schedulers, workers, clients.

Rule: what runs here is what runs in production; a machine only starts it, and starts it again when it has ended.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Coroutine, Iterable, Mapping
from types import MappingProxyType
from typing import Any, Protocol

from mesh.engine import Engine
from mesh_sdk import Mesh
from mesh_sdk.config import Settings
from mesh_sdk.errors import MeshError, RegistrationRefused, Unavailable
from mesh_sdk.transport.errors import TransportError
from mesh_sdk.worker.identity import Identity
from mesh_sdk.worker.observer import Nobody
from mesh_sdk.worker.registry import Registry
from mesh_sdk.worker.runtime import Runtime
from tests.simulation.process import OUTSIDE, Process, current
from tests.simulation.seams import SimulatedClock
from tests.simulation.witness import witness

URL = "nats://simulated"
NAMESPACE = "sim"
SETTINGS = Settings((URL,), NAMESPACE, 5.0)
GRACE_S = 1.0


class Reporter(Protocol):
    """Where machines tell what happens."""

    def fail(self, text: str) -> None: ...
    def trace(self, text: str) -> None: ...


class Machine:
    """One part of the mesh, over all its lives.

    Args:
        name: for the trace.
        rng: of the seed.
        reporter: told of what should not happen.
    """

    def __init__(self, name: str, rng: random.Random, reporter: Reporter) -> None:
        self.name = name
        self.rng = rng
        self.reporter = reporter
        self.lives = 0
        self.wanted = True
        self.process: Process | None = None

    @property
    def up(self) -> bool:
        """Whether it runs (or stands still)."""
        return self.process is not None and not self.process.dead

    def start(self) -> None:
        """Begin a life."""
        if self.up or not self.wanted:
            return
        self.lives += 1
        self.process = process = Process(f"{self.name}#{self.lives}")
        self.reporter.trace(f"{process.name} starts")
        task = process.spawn(self._main())
        task.add_done_callback(lambda task: self._ended(process, task), context=OUTSIDE.context)

    def start_later(self, seconds: float) -> None:
        """Begin a life after a while."""
        asyncio.get_running_loop().call_later(seconds, self.start, context=OUTSIDE.context)

    def kill(self) -> None:
        """kill -9, and a supervisor that starts it again."""
        if self.process is not None and self.up:
            self.reporter.trace(f"{self.process.name} is killed")
            self.process.kill()
            self.start_later(self.rng.choice([0.05, 0.5, 2.0, 4.0]) * self.rng.random() + 0.01)

    def _ended(self, process: Process, task: asyncio.Task[Any]) -> None:
        if process.dead:
            return
        error = None if task.cancelled() else task.exception()
        self.reporter.trace(f"{process.name} ends: {error!r}")
        if error is not None and not isinstance(error, MeshError | TransportError):
            self.reporter.fail(f"{process.name} has ended with {error!r}")
        process.kill()
        self.start_later(0.2 + self.rng.random())

    async def _main(self) -> None:
        raise NotImplementedError

    def stop(self) -> None:
        """SIGTERM."""


class SchedulerMachine(Machine):
    """A scheduler."""

    engine: Engine
    limits: tuple[int, int] = (1_000, 100)
    """Live runs, finished runs remembered."""

    async def _main(self) -> None:
        self.engine = Engine(URL, NAMESPACE, live_runs_max=self.limits[0], finished_runs_max=self.limits[1])
        self._stop = asyncio.Event()
        self.reporter.trace(f"{self.name} is scheduler {self.engine.id}")
        await self.engine.run(lambda line: self.reporter.trace(f"{self.name}: {line}"), self._stop)

    @property
    def term(self) -> int:
        """The number of the term that it leads in, as it knows; 0: it does not lead."""
        return self.engine._term.number if hasattr(self, "engine") and self.engine._term is not None else 0

    def stop(self) -> None:
        """SIGTERM."""
        if self.up and hasattr(self, "_stop"):
            self._stop.set()


class WorkerMachine(Machine):
    """A worker, with an id that stays or one that is new at each start."""

    runtime: Runtime | None = None
    slots = 2
    registered: Iterable[object] = ()
    fixed = True
    labels: Mapping[str, str | int] = MappingProxyType({})
    """What whoever runs it has it say of itself."""

    async def _main(self) -> None:
        witness().slots[current()] = self.slots
        witness().pauses[current()] = lambda: self.paused
        registry = Registry()
        for workflow in self.registered:
            registry.add(workflow)
        id = self.name if self.fixed else f"{self.name}-{self.lives}"
        identity = Identity(id, self.fixed, self.name, self.slots, registry, dict(self.labels))
        witness().labelled(id, self.labels)
        clock: Any = SimulatedClock(asyncio.get_running_loop(), self.rng.choice([0, 0, 900, -900, 5_000]))
        self.runtime = Runtime(SETTINGS, identity, Nobody(), clock, "sim")
        await self.runtime.run(lambda: self.reporter.trace(f"worker {id} is ready"), GRACE_S)

    def stop(self) -> None:
        """SIGTERM."""
        if self.up and self.runtime is not None:
            self.runtime.request_stop()

    def relabel(self, labels: Mapping[str, str | int]) -> None:
        """Have it say something else of itself, as often as it takes until the leader knows."""
        self.labels = labels
        if self.up and self.process is not None and self.runtime is not None:
            self.process.spawn(self._tell_labels(self.runtime, labels))

    async def _tell_labels(self, runtime: Runtime, labels: Mapping[str, str | int]) -> None:
        witness().labelled(runtime._identity.worker, labels)
        runtime.take_labels(labels)
        while labels is self.labels:
            try:
                return await runtime.register_again()
            except Unavailable as error:
                self.reporter.trace(f"{self.name} could not tell its labels: {error}")
            except RegistrationRefused as error:  # an incarnation after this one, or a process, says it
                return self.reporter.trace(f"{self.name} is refused with its labels: {error}")

    @property
    def paused(self) -> bool:
        """Whether it takes nothing from its shared lane, as an operator wanted it."""
        session = self.runtime._session if self.up and self.runtime is not None else None
        return session is not None and session.paused

    @property
    def holds(self) -> int:
        """Slots in use by its own count."""
        return self.runtime.slots.used if self.up and self.runtime is not None else 0


class ClientMachine(Machine):
    """A program that starts runs; `use` is what it does."""

    mesh: Mesh

    def use(self, mesh: Mesh) -> Coroutine[Any, Any, None]:
        """What the program does."""
        raise NotImplementedError

    async def _main(self) -> None:
        self.mesh = Mesh(URL, NAMESPACE)
        await self.use(self.mesh)
        self.wanted = False
        await self.mesh.close()
