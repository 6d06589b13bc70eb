"""Workflows: one `Workflow` behind both styles, and behind every task.

What a worker needs of it:

- `find_workflow(thing) -> (Workflow, instance | None)`: what `register_workflow` was given (class, instance, task,
  workflow) as the one `Workflow` behind it.
- `workflow.definition() -> WorkflowDefinition`: what to register; steps sorted so that parents stand before children.
- `workflow.bind(instance) -> BoundWorkflow`: `.definition`, `.steps`, a list of `step.BoundStep` in the definition's
  order, and `.key`, its key function; a class-style workflow is instantiated here when no instance is given, so bind
  once per worker.

Rule: whatever can't work is refused while it is defined, with a `DefinitionError` that names it.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Never, TypeVar, Unpack, overload

from mesh_sdk.definition import make_definition
from mesh_sdk.errors import DefinitionError, InvalidInput
from mesh_sdk.graph import check_parents
from mesh_sdk.key_function import KeyLimit, KeyOptions, KeySpec, is_key_mark, limit_of, read_key, read_limit
from mesh_sdk.marks import function_name, refuse_bare, refuse_hidden, refuse_marked, refuse_unmarked
from mesh_sdk.options import StepOptions, StepSettings, WorkflowSettings, check_name, read_step, refuse_unknown
from mesh_sdk.protocol.definitions import WorkflowDefinition
from mesh_sdk.serialize import UNTYPED, dumper, is_untyped, parser
from mesh_sdk.signature import Namespace, caller_namespace, read_signature
from mesh_sdk.starting import Startable
from mesh_sdk.step import BoundStep, I, R, Step, StepMark, StepSpec, bind_step, make_spec, mark_of, step_name
from mesh_sdk.sticky import BoundMoved, MovedSpec, bind_moved, is_moved_mark, read_moved

if TYPE_CHECKING:
    from mesh_sdk.context import Context
    from mesh_sdk.mesh import Mesh

C = TypeVar("C", bound=type)
F = TypeVar("F", bound=Callable[..., Any])
K = TypeVar("K", bound=Callable[..., str | Coroutine[Any, Any, str]])

CLASS_MARK = "__mesh_workflow__"


@dataclass(frozen=True, slots=True)
class BoundWorkflow:
    """A workflow as a worker runs it.

    Attributes:
        definition: as registered.
        steps: in the definition's order.
        on_moved: rebuilds what is kept for a sticky run, if there is one.
        key: the key function, if there is one; it stands in the definition, before the steps.
    """

    definition: WorkflowDefinition
    steps: list[BoundStep]
    on_moved: BoundMoved | None = None
    key: BoundStep | None = None


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
        self._key_function: KeySpec | None = None
        self._definition: WorkflowDefinition | None = None
        self._is_bound = False
        if settings.name is not None:
            self._take_name(settings.name)

    # ---- defining -------------------------------------------------------------------------------------------------

    def step(self, *bare: Never, **options: Unpack[StepOptions]) -> StepDecorator[I]:
        """Add a function as a step of this workflow.

        Args:
            **options: `name, parents, timeout, schedule_timeout, retries, backoff_factor, backoff_max_seconds, priority, rate_limits,
                desired_worker_labels, concurrency, slots`.

        Returns:
            A decorator that gives a `Step`.

        Raises:
            DefinitionError: when the step can't work.
        """
        refuse_bare(bare, "@workflow.step()", "retries=2")
        return StepDecorator(self, options)

    def on_moved(self, *bare: Never, **options: Never) -> Callable[[F], F]:
        """Have a function of the context rebuild `context.local` where it is missing; see `Mesh.on_moved`.

        Returns:
            A decorator that gives the function back.

        Raises:
            DefinitionError: when it can't be.
        """
        refuse_bare(bare, "@workflow.on_moved()", "")
        refuse_unknown(options, (), "@workflow.on_moved()")

        def decorate(function: F) -> F:
            self._check_role(function, "on_moved", "@mesh.on_moved()")
            self._add_moved(function, "", caller_namespace())
            return function

        return decorate

    def concurrency(self, *bare: Never, **options: Unpack[KeyOptions]) -> Callable[[K], K]:
        """Limit how many runs go on at once for each key that a function of the run gives; see `Mesh.concurrency`.

        Args:
            **options: `max_runs, limit_strategy`.

        Returns:
            A decorator that gives the function back.

        Raises:
            DefinitionError: when it can't be.
        """
        refuse_bare(bare, "@workflow.concurrency()", "max_runs=1")
        limit = read_limit(options, "@workflow.concurrency()")

        def decorate(function: K) -> K:
            self._check_role(function, "the key function", "@mesh.concurrency()")
            self._add_key(function, limit, function_name(function), "", caller_namespace())
            return function

        return decorate

    def __call__(self, cls: C, /) -> C:
        """Take the marked methods of a class as this workflow's steps. Returns the class."""
        if not isinstance(cls, type):
            raise DefinitionError(f"mesh.workflow(...) decorates a class, this is {cls!r}: use @mesh.task(...) for a function")
        if self._specs or self._moved is not None or self._key_function is not None:
            raise DefinitionError(f"workflow {self.name!r} has functions already: it can't decorate the class {cls.__name__!r} too")
        self._class = cls
        if self._name is None:
            self._take_name(check_name(cls.__name__, f"class {cls.__qualname__}"))
        namespace = caller_namespace()
        for attribute, raw in _methods(cls):
            self._take(cls, attribute, raw, namespace)
        self.definition()
        setattr(cls, CLASS_MARK, self)
        return cls

    def _take(self, cls: type, attribute: str, raw: Any, namespace: Namespace) -> None:
        refuse_hidden(cls, attribute, raw)
        if (mark := mark_of(raw)) is not None:
            self._add_method(attribute, raw, mark, namespace)
        if is_moved_mark(raw):
            self._add_moved(raw, attribute, namespace, inherited=attribute not in vars(cls))
        else:
            refuse_unmarked(cls, attribute, is_moved_mark, "@mesh.on_moved()", "on_moved")
        if (limit := limit_of(raw)) is not None:
            self._add_key(raw, limit, attribute, attribute, namespace)
        else:
            refuse_unmarked(cls, attribute, is_key_mark, "@mesh.concurrency()", "key function")

    def _add_method(self, attribute: str, raw: Any, mark: StepMark, namespace: Namespace) -> None:
        function = raw.__func__ if isinstance(raw, staticmethod | classmethod) else raw
        what = f"step {self.name}:{mark.name}"
        signature = read_signature(function, what, namespace, method=not isinstance(raw, staticmethod))
        self._add(mark.name, function, mark.settings, signature.input_type, signature, attribute)

    def _check_role(self, function: Any, role: str, decorator: str) -> None:
        if self._class is not None:
            raise DefinitionError(f"workflow {self.name!r} is a class, {self._class.__name__!r}: mark a method of it with {decorator}")
        if isinstance(function, type | Step) or not callable(function) or any(spec.function is function for spec in self._specs.values()):
            raise DefinitionError(f"{function!r} can't be {role} of workflow {self.name!r}: use a function that is no step")
        refuse_marked(function, f"{role} {function_name(function)!r} of workflow {self.name!r}")
        self._refuse_taken(function, role)
        self._refuse_late(function_name(function))

    def _refuse_late(self, name: str) -> None:
        """Refuse what the workers that have this workflow would not know of."""
        if self._is_bound:
            raise DefinitionError(f"workflow {self.name!r} is registered on a worker already: add {name!r} to it before")

    def _refuse_taken(self, function: object, role: str) -> None:
        """Refuse a function that has another role than that of a step already."""
        if self._moved is not None and self._moved.function is function:
            raise DefinitionError(f"{self._moved.name!r} is on_moved of workflow {self.name!r}: it can't be {role} too")
        if self._key_function is not None and self._key_function.step.function is function:
            raise DefinitionError(f"{self._key_function.name!r} is the key function of workflow {self.name!r}: it can't be {role} too")

    def _add_key(self, raw: Any, limit: KeyLimit, name: str, attribute: str, namespace: Namespace) -> None:
        check_name(name, f"the key function of workflow {self.name!r}")
        if self._key_function is not None:
            raise DefinitionError(f"workflow {self.name!r} has two key functions, {self._key_function.name!r} and {name!r}: keep one")
        if name in self._specs:
            raise self._shared(name, self._specs[name].attribute)
        self._key_function = read_key(raw, limit, self.name, name, self.input_type, namespace, attribute=attribute)
        self._definition = None

    def _shared(self, name: str, method: str) -> DefinitionError:
        step = f"step {name!r} (method {method!r})" if method not in ("", name) else f"step {name!r}"
        return DefinitionError(f"{step} and the key function {name!r} of workflow {self.name!r} share a name: rename one")

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
        refuse_marked(function, f"step {function_name(function)!r} of workflow {self.name!r}")
        settings = read_step(options, f"step {function_name(function)!r} of workflow {self.name!r}")
        name = settings.name or check_name(function_name(function), f"a step of workflow {self.name!r}")
        self._refuse_late(name)
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
        self._refuse_taken(function, "a step")
        if name in self._specs:
            raise DefinitionError(f"workflow {self.name!r} has two steps called {name!r}: rename one")
        if self._key_function is not None and self._key_function.name == name:
            raise self._shared(name, attribute)
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
        """The steps, in the definition's order; a key function is none."""
        return [self._specs[step.name] for step in self.definition().steps if not step.kind]

    def definition(self) -> WorkflowDefinition:
        """What a worker registers: the steps sorted so that every parent stands before its children, and a digest.

        Raises:
            DefinitionError: no steps, an unknown parent, or a cycle.
        """
        if self._definition is None:
            self._definition = make_definition(self.name, self.settings, self._specs, self._key_function)
        return self._definition

    def bind(self, instance: object | None = None) -> BoundWorkflow:
        """Make the steps ready to be run, once per worker.

        Args:
            instance: of the workflow's class; without one it is instantiated here.

        Raises:
            DefinitionError: when the class can't be instantiated without arguments.
        """
        definition = self.definition()
        self._is_bound = True
        if instance is None and self._class is not None:
            instance = _instantiate(self._class)
        specs = [spec.step for spec in (self._key_function,) if spec is not None] + self.steps
        bound = [bind_step(spec, index, definition.steps[index], instance) for index, spec in enumerate(specs)]
        key = None if self._key_function is None else bound.pop(0)
        return BoundWorkflow(definition, bound, None if self._moved is None else bind_moved(self._moved, instance), key)

    def __repr__(self) -> str:
        return f"<Workflow {self._name!r} of {len(self._specs)} steps>"


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
    if isinstance(thing, Startable) and isinstance(behind := getattr(thing, "workflow", None), Workflow):
        return behind, None
    kind = thing if isinstance(thing, type) else type(thing)
    found = vars(kind).get(CLASS_MARK)
    if isinstance(found, Workflow):
        return found, None if thing is kind else thing
    raise DefinitionError(
        f"{thing!r} is no workflow: use a task, a workflow, a class decorated with @mesh.workflow(), or an instance of one"
    )


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
