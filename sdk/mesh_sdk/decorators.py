"""How workflows are written down: the part of `Mesh` that defines, does no IO, and refuses what can't work."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Never, TypeVar, Unpack, cast, overload

from mesh_sdk.errors import DefinitionError
from mesh_sdk.key_function import KEY_MARK, KeyLimit, KeyOptions, is_key_mark, read_limit
from mesh_sdk.labels import Label, read_labels
from mesh_sdk.marks import function_name, markable, owner_of, refuse_bare, refuse_marked, refuse_other
from mesh_sdk.options import (
    StepOptions,
    TaskOptions,
    WorkflowOptions,
    check_name,
    read_step,
    read_workflow,
    refuse_unknown,
    split_task,
)
from mesh_sdk.serialize import UNTYPED
from mesh_sdk.signature import caller_namespace
from mesh_sdk.step import MARK, I, R, StepMark, mark_of
from mesh_sdk.sticky import MOVED_MARK, is_moved_mark
from mesh_sdk.task import Task, make_task
from mesh_sdk.workflow import K, Workflow

if TYPE_CHECKING:
    from mesh_sdk.context import Context
    from mesh_sdk.mesh import Mesh
    from mesh_sdk.worker.worker import Worker

F = TypeVar("F", bound=Callable[..., Any])

SLOTS_DEFAULT = 100
STICKY_RUNS_DEFAULT = 1_000


class TaskDecorator:
    """What `@mesh.task(...)` gives: decorates a function of (input, context) or of the context alone."""

    def __init__(self, mesh: Mesh, options: TaskOptions) -> None:
        self._mesh = mesh
        self._options = options

    @overload
    def __call__(self, function: Callable[[I, Context[Any]], Coroutine[Any, Any, R]], /) -> Task[I, R]: ...
    @overload
    def __call__(self, function: Callable[[Context[Any]], Coroutine[Any, Any, R]], /) -> Task[None, R]: ...
    @overload
    def __call__(self, function: Callable[[I, Context[Any]], R], /) -> Task[I, R]: ...
    @overload
    def __call__(self, function: Callable[[Context[Any]], R], /) -> Task[None, R]: ...
    def __call__(self, function: Callable[..., Any], /) -> Task[Any, Any]:
        """Make the function a workflow of one step."""
        return _task(self._mesh, function, self._options, depth=3)


class StepMarker:
    """What `@mesh.step(...)` gives: marks a method and returns it."""

    def __init__(self, options: StepOptions) -> None:
        self._options = options

    def __call__(self, function: F, /) -> F:
        """Mark the method; `@mesh.workflow()` on its class makes it a step."""
        namespace = caller_namespace()
        inner = markable(function, "@mesh.step()", namespace)
        own = function_name(inner)
        settings = read_step(self._options, f"step {own!r}")
        mark = StepMark(settings.name or check_name(own, "a step"), settings)
        before = namespace.get(own)
        if before is not None and mark_of(before) is not None:
            raise DefinitionError(f"two steps called {own!r} in {owner_of(inner)}: rename one")
        refuse_other(own, (function, before), "a step")
        setattr(function, MARK, mark)
        return function


class MovedMarker:
    """What `@mesh.on_moved()` gives: marks a method and returns it."""

    def __call__(self, function: F, /) -> F:
        """Mark the method; `@mesh.workflow()` on its class finds it."""
        namespace = caller_namespace()
        inner = markable(function, "@mesh.on_moved()", namespace)
        own = function_name(inner)
        before = namespace.get(own)
        refuse_other(own, (function, before), "the on_moved method")
        if is_moved_mark(before):
            raise DefinitionError(f"two on_moved methods called {own!r} in {owner_of(inner)}: keep one")
        setattr(function, MOVED_MARK, True)
        return function


class KeyMarker:
    """What `@mesh.concurrency(...)` gives: marks a method and returns it."""

    def __init__(self, limit: KeyLimit) -> None:
        self._limit = limit

    def __call__(self, function: K, /) -> K:
        """Mark the method; `@mesh.workflow()` on its class finds it."""
        namespace = caller_namespace()
        inner = markable(function, "@mesh.concurrency()", namespace)
        own = function_name(inner)
        before = namespace.get(own)
        refuse_other(own, (function, before), "the key function")
        if is_key_mark(function):
            raise DefinitionError(f"{own!r} is marked with @mesh.concurrency() twice: keep one")
        if is_key_mark(before):
            raise DefinitionError(f"two key functions called {own!r} in {owner_of(inner)}: keep one")
        setattr(function, KEY_MARK, self._limit)
        return function


class Definitions:
    """The decorators of a mesh."""

    # ---- class style and graphs of functions ------------------------------------------------------------------------

    @overload
    def workflow(self, *, input: type[I], **options: Unpack[WorkflowOptions]) -> Workflow[I]: ...
    @overload
    def workflow(self, *, input: None = None, **options: Unpack[WorkflowOptions]) -> Workflow[Any]: ...
    def workflow(self, *bare: Never, input: Any = None, **options: Unpack[WorkflowOptions]) -> Workflow[Any]:
        """A workflow: decorates a class whose methods are marked with `@mesh.step()`, or takes functions by `.step()`.

        Args:
            input: type of its input, validated by Pydantic; plain JSON values without it.
            **options: `name, on_events, timeout, schedule_timeout, sticky, sticky_timeout, priority, default_metadata, version,
                idempotency_key, concurrency`.

        Returns:
            The workflow; as a decorator it returns the class.

        Raises:
            DefinitionError: an option that can't be.

        Example:
            >>> @mesh.workflow(on_events=["user:create"])
            ... class Welcome:
            ...     @mesh.step()
            ...     def greet(self, context: Context):
            ...         return {"hello": context.workflow_input()["name"]}
        """
        refuse_bare(bare, "@mesh.workflow()", "name='orders'")
        settings = read_workflow(options, f"workflow {options['name']!r}" if options.get("name") else "mesh.workflow(...)")
        return Workflow(cast("Mesh", self), settings, UNTYPED if input is None else input)

    def step(self, *bare: Never, **options: Unpack[StepOptions]) -> StepMarker:
        """Mark a method of a class as a step of the workflow that `@mesh.workflow()` makes of the class.

        Args:
            **options: `name, parents, timeout, schedule_timeout, retries, backoff_factor, backoff_max_seconds, priority, rate_limits,
                desired_worker_labels, concurrency, slots`.

        Raises:
            DefinitionError: an option that can't be.
        """
        refuse_bare(bare, "@mesh.step()", "retries=2")
        return StepMarker(options)

    # ---- one function -----------------------------------------------------------------------------------------------

    @overload
    def task(self, function: Callable[[I, Context[Any]], Coroutine[Any, Any, R]], /) -> Task[I, R]: ...
    @overload
    def task(self, function: Callable[[Context[Any]], Coroutine[Any, Any, R]], /) -> Task[None, R]: ...
    @overload
    def task(self, function: Callable[[I, Context[Any]], R], /) -> Task[I, R]: ...
    @overload
    def task(self, function: Callable[[Context[Any]], R], /) -> Task[None, R]: ...
    @overload
    def task(self, **options: Unpack[TaskOptions]) -> TaskDecorator: ...
    def task(self, *functions: Callable[..., Any], **options: Unpack[TaskOptions]) -> Any:
        """A workflow of one step, made of a function of (input, context) or of the context alone.

        Args:
            *functions: the function, when used without parentheses.
            **options: those of workflows and of steps together.

        Returns:
            The task, typed by the function; calling it still runs the function.

        Raises:
            DefinitionError: the function can't be a step, or an option can't be.

        Example:
            >>> @mesh.task(retries=2)
            ... async def charge(order: Order, ctx: Context) -> Receipt:
            ...     return Receipt(order_id=order.id, charged=order.total)
        """
        if functions:
            return _task(cast("Mesh", self), functions[0], options, depth=3)
        return TaskDecorator(cast("Mesh", self), options)

    # ---- sticky runs ------------------------------------------------------------------------------------------------

    def on_moved(self, *bare: Never, **options: Never) -> MovedMarker:
        """Mark the method of a sticky workflow's class that rebuilds `context.local` on a worker where it is missing.

        It is called as `(self, context)` before a step, on the step's attempt and within its timeout, when what the worker
        should keep for the run is not there: the run was on another worker (`context.moved`), the worker was started anew,
        an attempt of the run failed on it, or it had to make room. Once, however many steps begin together; what it raises
        fails them. In function style: `@workflow.on_moved()`. A subclass inherits it; one that overrides it marks its own, or
        sets it to None to have none.

        Raises:
            DefinitionError: with options, or without its parentheses.

        Example:
            >>> @mesh.workflow(sticky=StickyStrategy.SOFT)
            ... class Session:
            ...     @mesh.step()
            ...     def load(self, context: Context): context.local["model"] = read_model()
            ...     @mesh.step(parents=["load"])
            ...     def ask(self, context: Context): return context.local["model"].answer()
            ...     @mesh.on_moved()
            ...     def rebuild(self, context: Context): context.local["model"] = read_model()
        """
        refuse_bare(bare, "@mesh.on_moved()", "")
        refuse_unknown(options, (), "@mesh.on_moved()")
        return MovedMarker()

    # ---- flow control -----------------------------------------------------------------------------------------------

    def concurrency(self, *bare: Never, **options: Unpack[KeyOptions]) -> KeyMarker:
        """Mark the method of a workflow's class that gives the key by which its runs are limited.

        It is called as `(self, context)` or `(self, input, context)` on a worker before the run is admitted, outside of the
        worker's slots and within ten seconds, and returns a text of 1 to 512 characters; when it fails, the run fails. It is no
        step: it has no output that steps could read. In function style: `@workflow.concurrency(...)`. Where a part of the input or
        metadata is the key, `concurrency="input.user_id"` on the workflow needs no worker for it. A subclass inherits it; one
        that overrides it marks its own, or sets it to None to have none.

        Args:
            **options: `max_runs`, how many runs with one key go on at once, 1 unless given, and `limit_strategy`, what happens to
                those beyond, `ConcurrencyLimitStrategy.GROUP_ROUND_ROBIN` unless given.

        Raises:
            DefinitionError: an option that can't be.

        Example:
            >>> @mesh.workflow(on_events=["message"])
            ... class Chat:
            ...     @mesh.concurrency(max_runs=1, limit_strategy=ConcurrencyLimitStrategy.CANCEL_IN_PROGRESS)
            ...     def session(self, context: Context) -> str: return context.workflow_input()["session_id"]
            ...     @mesh.step()
            ...     def answer(self, context: Context): ...
        """
        refuse_bare(bare, "@mesh.concurrency()", "max_runs=1")
        return KeyMarker(read_limit(options, "@mesh.concurrency()"))

    # ---- workers ----------------------------------------------------------------------------------------------------

    def worker(
        self,
        name: str,
        slots: int | None = None,
        workflows: Iterable[Any] = (),
        labels: Mapping[str, Label] | None = None,
        id: str | None = None,
        max_runs: int | None = None,
        sticky_runs: int = STICKY_RUNS_DEFAULT,
    ) -> Worker:
        """A worker of this mesh. Nothing is connected before it starts.

        Args:
            name: what kind of worker it is; shown, need not be unique.
            slots: how many steps it runs at once, 100 unless given.
            workflows: classes, instances, tasks and workflows that it runs.
            labels: what steps may ask for.
            id: names this one worker; `MESH_WORKER_ID`, or a new one at each start, unless given.
            max_runs: the older name of `slots`.
            sticky_runs: for how many sticky runs `context.local` is kept in memory; past it the run goes that was used least
                recently, except where a step of it runs.

        Raises:
            DefinitionError: a name, number of slots or sticky runs, label or workflow that can't be.
        """
        from mesh_sdk.worker.worker import Worker

        if slots is not None and max_runs is not None and slots != max_runs:
            raise DefinitionError(f"worker {name!r} has slots={slots} and max_runs={max_runs}, which is the older name of slots: give one")
        chosen = next((count for count in (slots, max_runs) if count is not None), SLOTS_DEFAULT)
        return Worker(
            cast("Mesh", self),
            name,
            slots=chosen,
            workflows=workflows,
            labels=read_labels(labels, f"worker {name!r}"),
            id=id,
            sticky_runs=sticky_runs,
        )


def _task(mesh: Mesh, function: Callable[..., Any], options: TaskOptions, depth: int) -> Task[Any, Any]:
    if isinstance(function, type) or not callable(function):
        raise DefinitionError(f"@mesh.task decorates a function, this is {function!r}")
    own = function_name(function)
    refuse_marked(function, f"task {own!r}")
    for_workflow, for_step = split_task(options, f"task {own!r}")
    chosen = for_workflow.get("name")
    name = check_name(own if chosen is None else chosen, f"task {own!r}")
    settings = read_workflow({**for_workflow, "name": name}, f"task {name!r}")
    workflow: Workflow[Any] = Workflow(mesh, settings)
    return make_task(workflow, function, {**for_step, "name": name}, caller_namespace(depth))
