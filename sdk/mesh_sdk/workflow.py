"""Workflows: one `Workflow` behind both styles, and `Task`, a workflow of one step.

What a worker needs of it:

- `find_workflow(thing) -> (Workflow, instance | None)`: what `register_workflow` was given (class, instance, task,
  workflow) as the one `Workflow` behind it.
- `workflow.definition() -> WorkflowDefinition`: what to register; steps sorted so that parents stand before children.
- `workflow.bind(instance) -> BoundWorkflow`: `.definition` and `.steps`, a list of `step.BoundStep` in the definition's
  order; a class-style workflow is instantiated here when no instance is given, so bind once per worker.

Rule: whatever can't work is refused while it is defined, with a `DefinitionError` that names it.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Never, TypeVar, Unpack, overload

import msgspec

from mesh_sdk.errors import DefinitionError, InvalidInput
from mesh_sdk.graph import check_parents, topological_order
from mesh_sdk.options import StepOptions, StepSettings, WorkflowSettings, check_name, read_step
from mesh_sdk.protocol.codec import encode
from mesh_sdk.protocol.definitions import StepDefinition, WorkflowDefinition
from mesh_sdk.protocol.ids import content_digest
from mesh_sdk.serialize import UNTYPED, dumper, is_untyped, parser
from mesh_sdk.signature import Namespace, caller_namespace, read_signature
from mesh_sdk.starting import Startable
from mesh_sdk.step import BoundStep, I, R, Step, StepMark, StepSpec, bind_step, make_spec, mark_of, step_name
from mesh_sdk.sticky import BoundMoved, MovedSpec, bind_moved, is_moved_mark, read_moved, refuse_options, refuse_unmarked

if TYPE_CHECKING:
    from mesh_sdk.context import Context
    from mesh_sdk.mesh import Mesh

C = TypeVar("C", bound=type)
F = TypeVar("F", bound=Callable[..., Any])

CLASS_MARK = "__mesh_workflow__"


@dataclass(frozen=True, slots=True)
class BoundWorkflow:
    """A workflow as a worker runs it: the definition, its steps in the definition's order, and its `on_moved` if it has one."""

    definition: WorkflowDefinition
    steps: list[BoundStep]
    on_moved: BoundMoved | None = None


class StepDecorator(Generic[I]):
    """What `wf.step(...)` gives: decorates a function of (input, context) or of the context alone."""

    def __init__(self, workflow: Workflow[I], options: StepOptions) -> None:
        self._workflow = workflow
        self._options = options

    @overload
    def __call__(self, function: Callable[[I, Context[Any]], Coroutine[Any, Any, R]], /) -> Step[I, R]: ...
    @overload
    def __call__(self, function: Callable[[Context[Any]], Coroutine[Any, Any, R]], /) -> Step[I, R]: ...
    @overload
    def __call__(self, function: Callable[[I, Context[Any]], R], /) -> Step[I, R]: ...
    @overload
    def __call__(self, function: Callable[[Context[Any]], R], /) -> Step[I, R]: ...
    def __call__(self, function: Callable[..., Any], /) -> Step[I, Any]:
        """Add the function as a step."""
        return self._workflow.add_step(function, self._options, caller_namespace())


class Workflow(Startable[I, Any]):
    """A DAG of steps. `@wf.step()` adds functions; as a decorator it takes the marked methods of a class.

    Made by `mesh.workflow(...)`.
    """

    def __init__(self, mesh: Mesh, settings: WorkflowSettings, input_type: Any = UNTYPED) -> None:
        super().__init__(mesh)
        self.settings = settings
        self.workflow_priority = settings.priority
        self.idempotency_key = settings.idempotency_key
        self.input_type = input_type
        self._name = settings.name
        self._class: type | None = None
        self._specs: dict[str, StepSpec] = {}
        self._moved: MovedSpec | None = None
        self._definition: WorkflowDefinition | None = None
        if settings.name is not None:
            self._take_name(settings.name)

    # ---- defining -------------------------------------------------------------------------------------------------

    def step(self, *bare: Never, **options: Unpack[StepOptions]) -> StepDecorator[I]:
        """Add a function as a step of this workflow.

        Args:
            **options: `name, parents, timeout, schedule_timeout, retries, backoff_factor, backoff_max_seconds, priority`.

        Returns:
            A decorator that gives a `Step`.

        Raises:
            DefinitionError: when the step can't work.
        """
        refuse_bare(bare, "@workflow.step()")
        return StepDecorator(self, options)

    def on_moved(self, *bare: Never, **options: Never) -> Callable[[F], F]:
        """Have a function of the context rebuild `context.local` where it is missing; see `Mesh.on_moved`.

        Returns:
            A decorator that gives the function back.

        Raises:
            DefinitionError: when it can't be.
        """
        refuse_bare(bare, "@workflow.on_moved()")
        refuse_options(options, "@workflow.on_moved()")

        def decorate(function: F) -> F:
            self._add_function_moved(function, caller_namespace())
            return function

        return decorate

    def __call__(self, cls: C, /) -> C:
        """Take the marked methods of a class as this workflow's steps. Returns the class."""
        if not isinstance(cls, type):
            raise DefinitionError(f"mesh.workflow(...) decorates a class, this is {cls!r}: use @mesh.task(...) for a function")
        if self._specs:
            raise DefinitionError(f"workflow {self.name!r} has steps already: it can't decorate the class {cls.__name__!r} too")
        self._class = cls
        if self._name is None:
            self._take_name(check_name(cls.__name__, f"class {cls.__qualname__}"))
        namespace = caller_namespace()
        for attribute, raw in _methods(cls):
            mark = mark_of(raw)
            if mark is not None:
                self._add_method(attribute, raw, mark, namespace)
            elif is_moved_mark(raw):
                self._add_moved(raw, attribute, namespace, inherited=attribute not in vars(cls))
            if not is_moved_mark(raw):
                refuse_unmarked(cls, attribute)
        self.definition()
        setattr(cls, CLASS_MARK, self)
        return cls

    def _add_method(self, attribute: str, raw: Any, mark: StepMark, namespace: Namespace) -> None:
        function = raw.__func__ if isinstance(raw, staticmethod | classmethod) else raw
        what = f"step {self.name}:{mark.name}"
        signature = read_signature(function, what, namespace, method=not isinstance(raw, staticmethod))
        self._add(mark.name, function, mark.settings, signature.input_type, signature, attribute)

    def _add_function_moved(self, function: Any, namespace: Namespace) -> None:
        if self._class is not None:
            raise DefinitionError(f"workflow {self.name!r} is a class, {self._class.__name__!r}: mark a method of it with @mesh.on_moved()")
        if isinstance(function, type | Step) or not callable(function) or any(spec.function is function for spec in self._specs.values()):
            raise DefinitionError(f"{function!r} can't be on_moved of workflow {self.name!r}: use a function that is no step")
        self._add_moved(function, "", namespace)

    def _add_moved(self, raw: Any, attribute: str, namespace: Namespace, *, inherited: bool = False) -> None:
        moved = read_moved(raw, attribute, self.name, self.settings.sticky, namespace, inherited=inherited)
        if self._moved is not None:
            raise DefinitionError(f"workflow {self.name!r} has two on_moved methods, {self._moved.name!r} and {moved.name!r}: keep one")
        self._moved = moved

    def add_step(self, function: Callable[..., Any], options: StepOptions, namespace: Namespace) -> Step[I, Any]:
        """Add a function as a step; `step` is the decorator for it.

        Raises:
            DefinitionError: when the step can't work.
        """
        if isinstance(function, type) or not callable(function):
            raise DefinitionError(f"{function!r} can't be a step of workflow {self.name!r}: use a function")
        if self._class is not None:
            raise DefinitionError(f"workflow {self.name!r} takes its steps from the class {self._class.__name__!r}: mark a method of it")
        settings = read_step(options, f"step {function_name(function)!r} of workflow {self.name!r}")
        name = settings.name or check_name(function_name(function), f"a step of workflow {self.name!r}")
        self._refuse_foreign(name, settings)
        check_parents(self.name, name, [step_name(parent) for parent in settings.parents], self._specs)
        signature = read_signature(function, f"step {self.name}:{name}", namespace)
        return Step(self.name, self._add(name, function, settings, signature.input_type, signature, ""))

    def _refuse_foreign(self, name: str, settings: StepSettings) -> None:
        for parent in settings.parents:
            if isinstance(parent, Step) and self._specs.get(parent.name) is not parent.spec:
                raise DefinitionError(f"parent {parent!r} of step {name!r} belongs to another workflow, not to {self.name!r}")

    def _add(
        self, name: str, function: Callable[..., Any], settings: StepSettings, input_type: Any, signature: Any, attribute: str
    ) -> StepSpec:
        if self._moved is not None and self._moved.function is function:
            raise DefinitionError(f"{self._moved.name!r} is on_moved of workflow {self.name!r}: it can't be a step too")
        if name in self._specs:
            raise DefinitionError(f"workflow {self.name!r} has two steps called {name!r}: rename one")
        kind = self.input_type if is_untyped(input_type) else input_type
        spec = make_spec(self.name, name, function, settings, signature, kind, attribute)
        self._specs[name] = spec
        self._definition = None
        return spec

    def _take_name(self, name: str) -> None:
        self._name = name
        what = f"input of workflow {name!r}"
        self.dump_input = dumper(self.input_type, what, InvalidInput)
        self.parse_input = parser(self.input_type, what)
        self.parse_result = parser(UNTYPED, f"result of workflow {name!r}")
        self.mesh.remember(self)

    # ---- what it is -----------------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """The workflow's name.

        Raises:
            DefinitionError: when it has none.
        """
        if self._name is None:
            raise DefinitionError("mesh.workflow(...) without a name and not on a class: give it name=")
        return self._name

    @property
    def steps(self) -> list[StepSpec]:
        """The steps, in the definition's order."""
        return [self._specs[step.name] for step in self.definition().steps]

    def definition(self) -> WorkflowDefinition:
        """What a worker registers: the steps sorted so that every parent stands before its children, and a digest.

        Raises:
            DefinitionError: no steps, an unknown parent, or a cycle.
        """
        if self._definition is None:
            bare = self._bare_definition()
            self._definition = msgspec.structs.replace(bare, digest=content_digest(encode(bare)))
        return self._definition

    def _bare_definition(self) -> WorkflowDefinition:
        if not self._specs:
            raise DefinitionError(f"workflow {self.name!r} has no steps: mark its methods with @mesh.step(), or add functions with .step()")
        parents = {spec.name: [step_name(parent) for parent in spec.settings.parents] for spec in self._specs.values()}
        order = topological_order(self.name, parents)
        place = {name: index for index, name in enumerate(order)}
        settings = self.settings
        return WorkflowDefinition(
            name=self.name,
            steps=[self._step_definition(self._specs[name], sorted(place[parent] for parent in parents[name])) for name in order],
            version=settings.version,
            on_events=list(settings.on_events),
            priority=settings.priority,
            sticky="" if settings.sticky is None else settings.sticky.value,
            sticky_timeout_ms=settings.sticky_timeout_ms,
            metadata=settings.metadata,
        )

    def _step_definition(self, spec: StepSpec, parents: list[int]) -> StepDefinition:
        own, workflow = spec.settings, self.settings
        return StepDefinition(
            name=spec.name,
            parents=parents,
            timeout_ms=workflow.timeout_ms if own.timeout_ms is None else own.timeout_ms,
            schedule_timeout_ms=workflow.schedule_timeout_ms if own.schedule_timeout_ms is None else own.schedule_timeout_ms,
            retries=own.retries,
            backoff_factor=own.backoff_factor,
            backoff_max_ms=own.backoff_max_ms,
            priority=own.priority,
        )

    def bind(self, instance: object | None = None) -> BoundWorkflow:
        """Make the steps ready to be run, once per worker.

        Args:
            instance: of the workflow's class; without one it is instantiated here.

        Raises:
            DefinitionError: when the class can't be instantiated without arguments.
        """
        definition = self.definition()
        if instance is None and self._class is not None:
            instance = _instantiate(self._class)
        steps = [bind_step(self._specs[step.name], index, step, instance) for index, step in enumerate(definition.steps)]
        return BoundWorkflow(definition, steps, None if self._moved is None else bind_moved(self._moved, instance))

    def __repr__(self) -> str:
        return f"<Workflow {self._name!r} of {len(self._specs)} steps>"


class Task(Startable[I, R]):
    """A workflow of one step, made by `@mesh.task`. Calling it runs the function, with no mesh.

    Attributes:
        workflow: the workflow behind it.
        step: its one step.
    """

    def __init__(self, workflow: Workflow[I], step: Step[I, R]) -> None:
        super().__init__(workflow.mesh)
        self.workflow = workflow
        self.step = step
        self.workflow_priority = workflow.workflow_priority
        self.idempotency_key = workflow.idempotency_key
        self.__doc__ = step.__doc__
        self.__name__ = step.__name__
        what = f"input of task {workflow.name!r}"
        self.dump_input = dumper(step.spec.input_type, what, InvalidInput)
        self.parse_input = step.spec.parse_input
        self.parse_result = step.spec.parse_output
        self.mesh.remember(self)

    @property
    def name(self) -> str:
        """The workflow's name."""
        return self.workflow.name

    def definition(self) -> WorkflowDefinition:
        """What a worker registers."""
        return self.workflow.definition()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the function itself."""
        return self.step(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<Task {self.name!r}>"


def refuse_bare(arguments: tuple[object, ...], decorator: str) -> None:
    """Refuse a decorator that stands without its parentheses.

    Raises:
        DefinitionError: naming what was decorated.
    """
    if arguments:
        raise DefinitionError(f"{decorator} needs its parentheses on {arguments[0]!r}: options are given by keyword")


def make_task(workflow: Workflow[Any], function: Callable[..., Any], options: StepOptions, namespace: Namespace) -> Task[Any, Any]:
    """Make the task of one function.

    Raises:
        DefinitionError: when it can't be a step.
    """
    return Task(workflow, workflow.add_step(function, options, namespace))


def find_workflow(thing: object) -> tuple[Workflow[Any], object | None]:
    """The workflow behind whatever a user registers or starts.

    Args:
        thing: a workflow, a task, a class decorated by `@mesh.workflow()`, or an instance of one.

    Returns:
        The workflow, and the instance when it was one.

    Raises:
        DefinitionError: when it is none of them.
    """
    if isinstance(thing, Workflow):
        return thing, None
    if isinstance(thing, Task):
        return thing.workflow, None
    kind = thing if isinstance(thing, type) else type(thing)
    found = vars(kind).get(CLASS_MARK)
    if isinstance(found, Workflow):
        return found, None if thing is kind else thing
    raise DefinitionError(
        f"{thing!r} is no workflow: use a task, a workflow, a class decorated with @mesh.workflow(), or an instance of one"
    )


def function_name(function: Callable[..., Any]) -> str:
    """The name that a function gives its step, "" when it has none."""
    inner = getattr(function, "func", function)
    return str(getattr(inner, "__name__", ""))


def _methods(cls: type) -> Iterator[tuple[str, Any]]:
    """What may be marked, base classes first, each attribute as the class itself has it."""
    attributes: Mapping[str, None] = {name: None for base in reversed(cls.__mro__) for name in vars(base)}
    for name in attributes:
        yield name, next(vars(base)[name] for base in cls.__mro__ if name in vars(base))


def _instantiate(cls: type) -> object:
    try:
        return cls()
    except TypeError as error:
        raise DefinitionError(
            f"class {cls.__name__!r} can't be instantiated without arguments ({error}): "
            "register an instance of it, worker.register_workflow(YourWorkflow(...))"
        ) from error
