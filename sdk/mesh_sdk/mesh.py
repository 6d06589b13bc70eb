"""`Mesh`: what a program holds of a mesh. It defines workflows and workers, starts runs, publishes events, reads.

Rule: making one does no IO. The connection opens at first use, one for each event loop and process.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Any, Literal, Self, TypeVar, Unpack, overload
from weakref import WeakValueDictionary

from mesh_sdk.clients import Clients
from mesh_sdk.config import Settings, resolve
from mesh_sdk.decorators import Definitions
from mesh_sdk.durations import Duration
from mesh_sdk.events import Events
from mesh_sdk.options import check_name
from mesh_sdk.protocol.subjects import check_token
from mesh_sdk.reads import RunReads, WorkflowReads
from mesh_sdk.refs import RunRef
from mesh_sdk.starting import Named, Startable, StartOptions
from mesh_sdk.task import Task
from mesh_sdk.workers import WorkerReads
from mesh_sdk.workflow import Workflow, find_workflow

I = TypeVar("I")  # noqa: E741 - the input
R = TypeVar("R")

NAMED_MAX = 1_000
"""How many workflows started by name are kept at hand."""


class Mesh(Definitions):
    """A mesh on NATS.

    Args:
        url: of the NATS server, e.g. `nats://127.0.0.1:4222`; several of one cluster as a list or separated by commas.
        namespace: which mesh on that server.
        connect_timeout: how long the first connection may take, 5 s unless given.

    What is not given comes from `MESH_URL` or `NATS_URL` and `MESH_NAMESPACE`, then from `mesh.toml` or `[tool.mesh]` in
    `pyproject.toml`, then from defaults; it is read at first use.

    Raises:
        InvalidName: a namespace that can't be part of a subject.

    Attributes:
        runs: what happened to runs.
        workers: who is there.
        workflows: what was registered.
        events: publishing.
        clients: the connections; internal.
    """

    def __init__(
        self, url: str | Sequence[str] | None = None, namespace: str | None = None, *, connect_timeout: Duration | None = None
    ) -> None:
        if namespace is not None:
            check_token("namespace", namespace)
        self._arguments = (url, namespace, connect_timeout)
        self._settings: Settings | None = None
        self._named: dict[str, Named] = {}
        self._local: WeakValueDictionary[str, Startable[Any, Any]] = WeakValueDictionary()
        self.clients = Clients(lambda: self.settings)
        self.runs = RunReads(self.clients)
        self.workers = WorkerReads(self.clients)
        self.workflows = WorkflowReads(self.clients)
        self.events = Events(self.clients)

    @property
    def settings(self) -> Settings:
        """Where the mesh is.

        Raises:
            ConfigurationError: a setting that can't be used.
        """
        if self._settings is None:
            self._settings = resolve(*self._arguments)
        return self._settings

    def remember(self, workflow: Startable[Any, Any]) -> None:
        """A workflow is defined here: starts by its name follow its key and priority. Internal."""
        self._local[workflow.name] = workflow
        self._named.pop(workflow.name, None)

    def startable(self, workflow: object) -> Startable[Any, Any]:
        """What can be started, given as a name, a task, a workflow or a decorated class.

        Raises:
            DefinitionError: when it is none of them.
        """
        if isinstance(workflow, Task | Workflow):
            return workflow
        if not isinstance(workflow, str):
            return find_workflow(workflow)[0]
        found = self._named.get(workflow)
        if found is None:
            if len(self._named) >= NAMED_MAX:
                self._named.clear()
            name = check_name(workflow, "the workflow to start")
            found = self._named[workflow] = Named(self, name, self._local.get(name))
        return found

    # ---- starting -------------------------------------------------------------------------------------------------

    @overload
    async def start(self, workflow: Startable[None, R], input: None = None, **options: Unpack[StartOptions]) -> RunRef[R]: ...
    @overload
    async def start(self, workflow: Startable[I, R], input: I, **options: Unpack[StartOptions]) -> RunRef[R]: ...
    @overload
    async def start(self, workflow: str | type, input: Any = None, **options: Unpack[StartOptions]) -> RunRef[Any]: ...
    async def start(self, workflow: Any, input: Any = None, **options: Unpack[StartOptions]) -> RunRef[Any]:
        """Start a run; see `starting.Startable.start`.

        Args:
            workflow: its name, or the task, workflow or class. By name the input is validated on the worker only.
            input: anything that can be JSON.
            **options: `priority, metadata, key, delay, sticky_worker, desired_worker_labels`.
        """
        return await self.startable(workflow).start(input, **options)

    @overload
    async def run(self, workflow: Startable[None, R], input: None = None, **options: Unpack[StartOptions]) -> R: ...
    @overload
    async def run(self, workflow: Startable[I, R], input: I, **options: Unpack[StartOptions]) -> R: ...
    @overload
    async def run(self, workflow: str | type, input: Any = None, **options: Unpack[StartOptions]) -> Any: ...
    async def run(self, workflow: Any, input: Any = None, **options: Unpack[StartOptions]) -> Any:
        """Start a run and wait for its result; see `starting.Startable.run`. Arguments: as `start`."""
        return await self.startable(workflow).run(input, **options)

    @overload
    async def run_many(
        self, workflow: Startable[I, R], inputs: Iterable[I], *, return_exceptions: Literal[False] = False, **options: Unpack[StartOptions]
    ) -> list[R]: ...
    @overload
    async def run_many(
        self, workflow: str | type, inputs: Iterable[Any], *, return_exceptions: bool = False, **options: Unpack[StartOptions]
    ) -> list[Any]: ...
    async def run_many(
        self, workflow: Any, inputs: Iterable[Any], *, return_exceptions: bool = False, **options: Unpack[StartOptions]
    ) -> list[Any]:
        """Start any number of runs and wait for all results; see `starting.Startable.run_many`."""
        return await self.startable(workflow).run_many(inputs, return_exceptions=return_exceptions, **options)

    @overload
    def start_nowait(self, workflow: Startable[None, R], input: None = None, **options: Unpack[StartOptions]) -> RunRef[R]: ...
    @overload
    def start_nowait(self, workflow: Startable[I, R], input: I, **options: Unpack[StartOptions]) -> RunRef[R]: ...
    @overload
    def start_nowait(self, workflow: str | type, input: Any = None, **options: Unpack[StartOptions]) -> RunRef[Any]: ...
    def start_nowait(self, workflow: Any, input: Any = None, **options: Unpack[StartOptions]) -> RunRef[Any]:
        """Start a run without waiting; see `starting.Startable.start_nowait`. Arguments: as `start`."""
        return self.startable(workflow).start_nowait(input, **options)

    @overload
    def start_sync(self, workflow: Startable[None, R], input: None = None, **options: Unpack[StartOptions]) -> RunRef[R]: ...
    @overload
    def start_sync(self, workflow: Startable[I, R], input: I, **options: Unpack[StartOptions]) -> RunRef[R]: ...
    @overload
    def start_sync(self, workflow: str | type, input: Any = None, **options: Unpack[StartOptions]) -> RunRef[Any]: ...
    def start_sync(self, workflow: Any, input: Any = None, **options: Unpack[StartOptions]) -> RunRef[Any]:
        """`start` for code without an event loop."""
        return self.clients.block(lambda: self.start(workflow, input, **options), "mesh.start")

    @overload
    def run_sync(self, workflow: Startable[None, R], input: None = None, **options: Unpack[StartOptions]) -> R: ...
    @overload
    def run_sync(self, workflow: Startable[I, R], input: I, **options: Unpack[StartOptions]) -> R: ...
    @overload
    def run_sync(self, workflow: str | type, input: Any = None, **options: Unpack[StartOptions]) -> Any: ...
    def run_sync(self, workflow: Any, input: Any = None, **options: Unpack[StartOptions]) -> Any:
        """`run` for code without an event loop."""
        return self.clients.block(lambda: self.run(workflow, input, **options), "mesh.run")

    def run_many_sync(
        self, workflow: Any, inputs: Iterable[Any], *, return_exceptions: bool = False, **options: Unpack[StartOptions]
    ) -> list[Any]:
        """`run_many` for code without an event loop."""
        return self.clients.block(
            lambda: self.startable(workflow).run_many(inputs, return_exceptions=return_exceptions, **options), "mesh.run_many"
        )

    def ref(self, run_id: str) -> RunRef[Any]:
        """A reference to a run that was started elsewhere.

        Args:
            run_id: its id. That there is no such run is noticed by `status()`, not by `result()`, which would wait for it.
        """
        return self.clients.ref(run_id)

    # ---- ending ---------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        """Open the connection of this loop.

        Raises:
            ConnectionFailed: no server within the connect timeout.
        """
        await self.clients.here().bus()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        """Close it."""
        await self.close()

    async def close(self) -> None:
        """End the client of this loop and the one behind the `_sync` calls; the next use opens new ones."""
        await self.clients.close()

    def close_sync(self) -> None:
        """`close` for code without an event loop."""
        self.clients.close_sync()

    def __repr__(self) -> str:
        return f"<Mesh {self._settings or 'not in use yet'}>"
