"""What a step can ask and do while it runs: its run, its input, the outputs of its parents, children, logs.

Rule: plain calls, in sync and async steps alike. A context reads its attempt and asks its host (the worker) for the rest;
it decides nothing itself.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Protocol, cast, overload

import msgspec
from typing_extensions import TypeVar

from mesh_sdk.durations import Duration, duration_ms
from mesh_sdk.errors import InvalidInput, MeshError, SpawnError, StepCancelled
from mesh_sdk.labels import DesiredLabels
from mesh_sdk.step import Step, step_name

if TYPE_CHECKING:
    from mesh_sdk.refs import RunRef
    from mesh_sdk.starting import Startable
    from mesh_sdk.worker.attempt import Attempt

Input = TypeVar("Input", default=Any)
Output = TypeVar("Output")
ChildInput = TypeVar("ChildInput", default=Any)
ChildOutput = TypeVar("ChildOutput", default=Any)

LOGGER = logging.getLogger("mesh.step")

current_context: ContextVar[Context[Any] | None] = ContextVar("mesh_context", default=None)
"""The context of the step that runs here, so that any log record made in a step can say which."""

_UNREAD: Any = object()


@dataclass(frozen=True, slots=True)
class Spawn(Generic[ChildInput, ChildOutput]):
    """A child to spawn, for `Context.spawn_workflows`.

    Attributes:
        workflow: its name, or the task or workflow itself.
        input: what it starts with.
        key: names the child among its siblings, so that a retry which spawns in another order finds it again.
        sticky: run it on this worker.
        priority: 1 to 9; 0 is the workflow's own.
        metadata: given to the run.
        desired_worker_labels: stand in place of those of the same names that its steps want.
    """

    workflow: str | Startable[ChildInput, ChildOutput]
    input: Any = None
    key: str = ""
    sticky: bool = False
    priority: int = 0
    metadata: Mapping[str, str] | None = None
    desired_worker_labels: DesiredLabels | None = None


class WorkerView(Protocol):
    """What a step may know about the worker that it runs on."""

    def id(self) -> str:
        """The worker's id."""
        ...

    def name(self) -> str:
        """The worker's name."""
        ...

    def labels(self) -> dict[str, str | int | float]:
        """A copy of the worker's labels."""
        ...

    def has_workflow(self, name: str) -> bool:
        """Whether a workflow of this name is registered on the worker."""
        ...


class Host(Protocol):
    """What a context needs of the worker. Every call may come from the event loop or from a step's thread."""

    view: WorkerView

    def spawn(self, attempt: Attempt, spawn: Spawn[Any, Any]) -> RunRef[Any]: ...
    def refresh(self, attempt: Attempt, extend_ms: int) -> None: ...
    def release_slot(self, attempt: Attempt) -> None: ...
    def stream(self, attempt: Attempt, chunk: bytes) -> None: ...
    def local(self, attempt: Attempt) -> MutableMapping[str, Any]: ...


class Context(Generic[Input]):
    """The step's view of its run. Made by the worker, never by users; a step called as a plain function takes any stand-in."""

    __slots__ = ("_attempt", "_host", "_input", "_local", "_raw_input")

    def __init__(self, attempt: Attempt, host: Host) -> None:
        self._attempt = attempt
        self._host = host
        self._input: Any = _UNREAD
        self._raw_input: Any = _UNREAD
        self._local: MutableMapping[str, Any] | None = None

    # ---- the run ------------------------------------------------------------------------------------------------

    def workflow_input(self) -> Any:
        """The run's input as plain JSON values."""
        if self._raw_input is _UNREAD:
            self._raw_input = msgspec.json.decode(self._attempt.assign.input)
        return self._raw_input

    @property
    def input(self) -> Input:
        """The run's input, validated: of the type that the step's input parameter or `Context[T]` names."""
        if self._input is _UNREAD:
            self._input = self._attempt.action.parse(bytes(self._attempt.assign.input))
        return cast("Input", self._input)

    @overload
    def step_output(self, step: Step[Any, Output]) -> Output: ...
    @overload
    def step_output(self, step: str | Callable[..., Any]) -> Any: ...

    def step_output(self, step: Any) -> Any:
        """The output of a parent of this step.

        Args:
            step: the step (then the output has its type), its method, or its name (then plain JSON values).

        Raises:
            MeshError: when it is no parent of this step.
        """
        name = step_name(step)
        assign = self._attempt.assign
        output = assign.parents.get(name)
        if output is None and self._attempt.action.is_key:
            raise MeshError(f"step {name!r} has no output yet: key function {assign.name!r} runs before all steps, its input is the run's")
        if output is None:
            parents = ", ".join(repr(parent) for parent in assign.parents) or "none"
            raise MeshError(f"step {name!r} is no parent of step {assign.name!r} (its parents: {parents}): name it in parents=[…]")
        return step.parse_output(bytes(output)) if isinstance(step, Step) else msgspec.json.decode(output)

    @property
    def run_id(self) -> str:
        """The run's id."""
        return self._attempt.assign.run

    @property
    def workflow_name(self) -> str:
        """Name of the run's workflow."""
        return self._attempt.assign.workflow

    @property
    def step_name(self) -> str:
        """Name of this step."""
        return self._attempt.assign.name

    @property
    def attempt(self) -> int:
        """Which attempt this is, from 1: every new assignment counts, after a failure, a loss or a hand-back."""
        return self._attempt.assign.attempt

    @property
    def retry_count(self) -> int:
        """How many of the step's `retries` are used up."""
        return self._attempt.assign.retry_count

    @property
    def metadata(self) -> dict[str, str]:
        """A copy of the run's metadata."""
        origin = self._attempt.assign.origin
        return dict(origin.metadata) if origin else {}

    @property
    def parent_run_id(self) -> str | None:
        """The run that spawned this one; None when none did."""
        origin = self._attempt.assign.origin
        return (origin.parent_run or None) if origin else None

    def triggered_by_event(self) -> bool:
        """Whether an event started the run."""
        origin = self._attempt.assign.origin
        return bool(origin and origin.event)

    @property
    def moved(self) -> bool:
        """Whether the (sticky) run was on another worker before."""
        origin = self._attempt.assign.origin
        return bool(origin and origin.moved)

    @property
    def local(self) -> MutableMapping[str, Any]:
        """Memory of this worker for the run; without sticky an empty mapping for this step alone."""
        if self._local is None:
            self._local = self._host.local(self._attempt)
        return self._local

    @property
    def worker(self) -> WorkerView:
        """The worker that the step runs on."""
        return self._host.view

    # ---- what the step can do -----------------------------------------------------------------------------------

    def log(self, *parts: object, level: int = logging.INFO) -> None:
        """Log a line of this step, to the logger `mesh.step` with the run, step, attempt and worker as extras.

        Args:
            parts: what to say, as for `print`: `str()` of each, with spaces between.
            level: one of the `logging` module's.
        """
        if LOGGER.isEnabledFor(level):
            LOGGER.log(level, "%s", " ".join(map(str, parts)), extra=self.log_fields(), stacklevel=2)

    def log_fields(self) -> dict[str, object]:
        """What tells this attempt's log records from others'."""
        return {"run": self.run_id, "step": self.step_name, "attempt": self.attempt, "worker": self._host.view.id()}

    @property
    def cancelled(self) -> bool:
        """Whether the step was told to stop: its run was cancelled, it timed out, or the worker must end it."""
        return self._attempt.stop is not None

    def raise_if_cancelled(self) -> None:
        """Leave the step if it was told to stop; for sync steps, which can't be interrupted.

        Raises:
            StepCancelled: when it was.
        """
        stop = self._attempt.stop
        if stop is not None:
            raise StepCancelled(f"step {self.step_name!r} was told to stop: {self._attempt.reason or stop.value}")

    def refresh_timeout(self, extend: Duration) -> None:
        """Let this attempt run for `extend` from now, whatever its timeout was.

        Args:
            extend: `"30s"`, `"5m"`, a `timedelta` or seconds.

        Raises:
            MeshError: when it is no duration.
        """
        self._host.refresh(self._attempt, duration_ms(extend, "refresh_timeout", MeshError))

    def release_slot(self) -> None:
        """Give this step's slot back while it runs on, because it only waits from here on. There is no taking it again."""
        self._host.release_slot(self._attempt)

    def put_stream(self, chunk: str | bytes | Any) -> None:
        """Send something to whoever watches the run live; nobody keeps it.

        Args:
            chunk: text, bytes, or anything that can be JSON.
        """
        self._host.stream(self._attempt, _chunk(chunk))

    # ---- children -----------------------------------------------------------------------------------------------

    @overload
    def spawn_workflow(
        self,
        workflow: Startable[ChildInput, ChildOutput],
        input: ChildInput = ...,
        *,
        options: Mapping[str, Any] | None = None,
        sticky: bool = False,
        key: str = "",
        priority: int = 0,
        metadata: Mapping[str, str] | None = None,
        desired_worker_labels: DesiredLabels | None = None,
    ) -> RunRef[ChildOutput]: ...
    @overload
    def spawn_workflow(
        self,
        workflow: str,
        input: Any = None,
        *,
        options: Mapping[str, Any] | None = None,
        sticky: bool = False,
        key: str = "",
        priority: int = 0,
        metadata: Mapping[str, str] | None = None,
        desired_worker_labels: DesiredLabels | None = None,
    ) -> RunRef[Any]: ...

    def spawn_workflow(
        self,
        workflow: Any,
        input: Any = None,
        *,
        options: Mapping[str, Any] | None = None,
        sticky: bool = False,
        key: str = "",
        priority: int = 0,
        metadata: Mapping[str, str] | None = None,
        desired_worker_labels: DesiredLabels | None = None,
    ) -> RunRef[Any]:
        """Start a child run, once, however often this step is tried.

        Args:
            workflow: its name, or the task or workflow itself.
            input: what it starts with.
            options: the keywords below as a mapping, e.g. `{"sticky": True}`.
            sticky: run it on this worker; it must declare a sticky strategy and be registered here.
            key: names the child among its siblings, so that a retry which spawns in another order finds it again.
            priority: 1 to 9; 0 is the workflow's own.
            metadata: given to the run.
            desired_worker_labels: stand in place of those of the same names that its steps want.

        Returns:
            At once; `await ref.result()` gives the child's result, in sync steps `ref.result_sync()`.

        Raises:
            StickyChildError: for a sticky child that can't run on this worker.
            SpawnError: for an unknown option, another input than at an earlier attempt, or a step that has ended.
            StepCancelled: when the step was told to stop, because its run was cancelled or its time is over.
            InvalidInput: when the input does not pass the child's model. Whatever is raised, nothing was written.
        """
        given: dict[str, Any] = {"sticky": sticky, "key": key, "priority": priority, "metadata": metadata}
        given["desired_worker_labels"] = desired_worker_labels
        if options is not None and not isinstance(options, Mapping):
            raise SpawnError(f"options of spawn_workflow is {options!r}: use a mapping such as {{'sticky': True}}")
        for name, value in (options or {}).items():
            if name not in given:
                raise SpawnError(f"spawn_workflow has no option {name!r}: use {', '.join(given)}")
            given[name] = value
        return self._host.spawn(self._attempt, Spawn(workflow, input, **given))

    def spawn_workflows(self, spawns: Iterable[Spawn[Any, ChildOutput]]) -> list[RunRef[ChildOutput]]:
        """Start several children; as many calls of `spawn_workflow`.

        Args:
            spawns: one `Spawn` each.
        """
        if isinstance(spawns, str | Spawn) or not isinstance(spawns, Iterable):
            raise SpawnError(f"spawn_workflows takes a list of Spawn(workflow, input, …), this is {spawns!r}")
        return [self._host.spawn(self._attempt, spawn) for spawn in spawns]


def current_fields() -> dict[str, object]:
    """The `log_fields` of the step that runs here; none outside of steps."""
    context = current_context.get()
    return {} if context is None else context.log_fields()


def _chunk(chunk: object) -> bytes:
    if isinstance(chunk, bytes):
        return chunk
    if isinstance(chunk, str):
        return chunk.encode()
    try:
        return msgspec.json.encode(chunk)
    except (TypeError, msgspec.MsgspecError) as error:
        raise InvalidInput(f"a chunk of type {type(chunk).__name__} can't be sent: {error}") from error
