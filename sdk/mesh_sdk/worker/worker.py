"""`Worker`: what users make with `mesh.worker(...)`, and run.

Rule: constructing one does no IO; everything that can be refused about it is refused before it connects.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import re
import secrets
import signal
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from importlib import metadata
from typing import TYPE_CHECKING

from mesh_sdk.durations import Duration, duration_ms
from mesh_sdk.errors import DefinitionError, InvalidName, MeshError
from mesh_sdk.labels import Label, read_labels
from mesh_sdk.loops import refuse_running_loop
from mesh_sdk.protocol.subjects import check_token
from mesh_sdk.worker.clock import Clock
from mesh_sdk.worker.identity import Identity
from mesh_sdk.worker.importing import importing
from mesh_sdk.worker.registry import Registry

if TYPE_CHECKING:
    from mesh_sdk.mesh import Mesh
    from mesh_sdk.worker.runtime import Runtime

SLOTS_DEFAULT = 100
SLOTS_MAX = 10_000
"""Each may have a thread; schedulers would take more."""
STICKY_RUNS_DEFAULT = 1_000
STICKY_RUNS_MAX = 1_000_000
GRACE_DEFAULT = "30s"
GC_THRESHOLDS = (50_000, 20, 100)
"""Fewer collections of a heap that hardly changes: a third more throughput, measured."""

_NAME_CHARACTERS_MAX = 50
_NO_TOKEN = re.compile(r"[^A-Za-z0-9_-]+")
_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Worker:
    """Runs steps of the workflows it registers. Made by `mesh.worker(...)`.

    Args:
        mesh: where.
        name: what it is called; several workers may share a name.
        slots: how many steps it runs at once; one with `slots=n` counts n times.
        workflows: classes decorated by `@mesh.workflow()` or instances of them, tasks, workflows.
        labels: what steps may ask of a worker.
        id: names this very worker; else MESH_WORKER_ID, else a new id at each start.
        sticky_runs: for how many sticky runs `context.local` is kept; past it the run goes that was used least recently, except
            where a step of it runs.

    Raises:
        DefinitionError: for slots, sticky_runs, labels or workflows that can't be.
        InvalidName: for an id that can't be part of a subject.
    """

    def __init__(
        self,
        mesh: Mesh,
        name: str,
        *,
        slots: int = SLOTS_DEFAULT,
        workflows: Iterable[object] = (),
        labels: Mapping[str, Label] | None = None,
        id: str | None = None,
        sticky_runs: int = STICKY_RUNS_DEFAULT,
    ) -> None:
        self.mesh = mesh
        self.name = _check_name(name)
        self.slots = _check_count(slots, f"slots of worker {name!r}", SLOTS_MAX)
        self.sticky_runs = _check_count(sticky_runs, f"sticky_runs of worker {name!r}", STICKY_RUNS_MAX)
        self.labels: dict[str, Label] = read_labels(labels, f"worker {name!r}")
        self._id = None if id is None else _check_id(id, name)
        self._registry = Registry()
        self._runtime: Runtime | None = None
        self._ended: asyncio.Event | None = None
        for workflow in workflows:
            self.register_workflow(workflow)

    def register_workflow(self, workflow: object) -> None:
        """Register one more workflow, before the worker is started.

        Args:
            workflow: a class decorated by `@mesh.workflow()`, an instance of one, a task or a workflow.

        Raises:
            DefinitionError: when it is none of them, can't work, has a name that is taken, or the worker runs already.
        """
        if self._runtime is not None:
            raise DefinitionError(f"worker {self.name!r} runs already: register {workflow!r} before it is started")
        self._registry.add(workflow)

    async def set_labels(self, labels: Mapping[str, Label]) -> None:
        """Replace the worker's labels; of a running worker, return once the leader knows.

        Args:
            labels: the new ones.

        Raises:
            DefinitionError: for labels that can't be.
            MeshError: called on another event loop than the one that the worker runs on.
            RegistrationRefused: the leader won't have them.
            Unavailable: it could not be told.
        """
        checked = read_labels(labels, f"worker {self.name!r}")
        runtime = self._runtime
        if runtime is not None:
            runtime.take_labels(checked)
        self.labels = checked
        if runtime is not None:
            await runtime.register_again()

    def set_labels_sync(self, labels: Mapping[str, Label]) -> None:
        """`set_labels` for code without an event loop, such as a sync step of this very worker."""
        refuse_running_loop("worker.set_labels")
        runtime = self._runtime
        if runtime is None:
            self.labels = read_labels(labels, f"worker {self.name!r}")
        else:
            asyncio.run_coroutine_threadsafe(self.set_labels(labels), runtime.loop).result()

    def start(self, *, metrics_port: int | None = None, grace: Duration = GRACE_DEFAULT) -> None:
        """Run until SIGTERM or SIGINT, then drain and return. Blocks; `await worker.serve()` where a loop runs.

        For a program that is nothing but the worker: it logs to standard error if the program has set up no logging, and
        what `serve` would raise is told there in one line.

        Args:
            metrics_port: as for `serve`.
            grace: likewise.

        Raises:
            SystemExit: when there is no server, or the worker is refused: exit code 1, and the reason on standard error.
            DefinitionError: nothing is registered.
        """
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            pass
        else:
            raise MeshError("worker.start() would stop the event loop that runs on this thread: use `await worker.serve()`")
        if importing.get():
            raise MeshError("worker.start() was called while `mesh worker` imports the module: put it under `if __name__ == '__main__':`")
        self._check_registered()
        from mesh_sdk.observe import logs

        if not logging.getLogger().handlers:
            logs.configure()
        try:
            with asyncio.Runner(loop_factory=_loop_factory()) as runner:
                runner.run(self._serve_and_close(metrics_port, grace))
        except MeshError as error:
            raise SystemExit(f"mesh: {error}") from None  # Python prints it to standard error, and exits with 1

    async def _serve_and_close(self, metrics_port: int | None, grace: Duration) -> None:
        try:
            await self.serve(on_ready=_settle, metrics_port=metrics_port, grace=grace)
        finally:
            await self.mesh.close()

    async def serve(
        self,
        *,
        stop: asyncio.Event | None = None,
        on_ready: Callable[[str], None] | None = None,
        metrics_port: int | None = None,
        grace: Duration = GRACE_DEFAULT,
    ) -> None:
        """Run in a program's own loop until told to stop, then drain.

        Args:
            stop: ends it when set; without it SIGTERM and SIGINT do, and a second signal tells running steps to stop.
            on_ready: called with a text once the leader has journaled the registration.
            metrics_port: serve `/metrics`, `/healthz` and `/readyz` there; 0 for any free port. A port that is taken is a warning.
            grace: how long running steps get to finish when the worker is stopped, before they are told to stop.

        Raises:
            ConnectionFailed: no server.
            RegistrationRefused: the id is held by another worker, or the leader won't have the definitions.
            DefinitionError: nothing is registered, or it runs already.
        """
        self._check_registered()
        if self._runtime is not None:
            raise DefinitionError(f"worker {self.name!r} runs already: make a second worker to run it twice")
        grace_s = duration_ms(grace, f"grace of worker {self.name!r}", DefinitionError, zero=True) / 1000
        from mesh_sdk.worker.runtime import Runtime  # only what connects loads nats
        from mesh_sdk.worker.watching import Watching

        identity = self._identity()
        sdk = _version()
        watching = Watching(identity, metrics_port, sdk)
        self._ended = ended = asyncio.Event()
        self._runtime = runtime = Runtime(self.mesh.settings, identity, watching.observer, Clock(), sdk, self.sticky_runs)
        watching.start(runtime)
        told = on_ready or _nothing
        try:
            async with _stopped_by(stop, runtime.request_stop):
                await runtime.run(lambda: told(f"worker {identity.worker}"), grace_s)
        finally:
            watching.stop()
            self._runtime = None
            ended.set()

    async def stop(self) -> None:
        """Drain, and return when the worker has ended. Called again meanwhile, running steps are told to stop."""
        if self._runtime is not None and self._ended is not None:
            ended = self._ended
            self._runtime.request_stop()
            await ended.wait()

    def _check_registered(self) -> None:
        if not len(self._registry):
            raise DefinitionError(f"worker {self.name!r} has nothing registered: give it workflows=[…] or call register_workflow(…)")

    def _identity(self) -> Identity:
        worker = self._id
        if worker is None and (given := os.environ.get("MESH_WORKER_ID")):
            worker = check_token("worker id (MESH_WORKER_ID)", given)
        chosen = worker is not None
        if worker is None:
            worker = f"{_NO_TOKEN.sub('-', self.name)[:_NAME_CHARACTERS_MAX]}-{secrets.token_hex(3)}"
        return Identity(worker, chosen, self.name, self.slots, self._registry, self.labels)

    def __repr__(self) -> str:
        return f"<Worker {self.name!r} with {self.slots} slots for {', '.join(self._registry.names()) or 'nothing'}>"


def _check_name(name: object) -> str:
    if not isinstance(name, str) or not name.strip() or not name.isprintable():
        raise DefinitionError(f"name of a worker is {name!r}: use printable text")
    return name


def _check_id(id: object, name: str) -> str:
    if not isinstance(id, str):
        raise InvalidName(f"id of worker {name!r} is {id!r}: use text")
    return check_token("worker id", id)


def _check_count(count: object, what: str, most: int) -> int:
    if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= most:
        raise DefinitionError(f"{what} is {count!r}: use a whole number from 1 to {most}")
    return count


@asynccontextmanager
async def _stopped_by(stop: asyncio.Event | None, request: Callable[[], None]) -> AsyncIterator[None]:
    """Have a stop requested when `stop` is set; without one, at each SIGTERM and SIGINT."""
    if stop is None:
        with _signals(request):
            yield
        return
    waiting = asyncio.ensure_future(stop.wait())
    waiting.add_done_callback(lambda task: None if task.cancelled() else request())
    try:
        yield
    finally:
        waiting.cancel()


@contextmanager
def _signals(request: Callable[[], None]) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    taken = []
    for number in _SIGNALS:
        with suppress(NotImplementedError, RuntimeError, ValueError):  # not the main thread, or Windows: stop() is left
            loop.add_signal_handler(number, request)
            taken.append(number)
    try:
        yield
    finally:
        for number in taken:
            loop.remove_signal_handler(number)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ModuleNotFoundError:
        return None
    return uvloop.new_event_loop


def _settle(_what: str) -> None:
    """What is loaded by now stays: it needn't be looked through again and again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)


def _nothing(_what: str) -> None:
    """Nobody wants to know."""


def _version() -> str:
    try:
        return metadata.version("natsmesh")
    except metadata.PackageNotFoundError:  # run from a checkout
        return ""
