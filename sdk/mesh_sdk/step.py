"""A step: what the user holds (`Step`), what is known of it at definition (`StepSpec`), what a worker runs (`BoundStep`).

`Step[I, R]` is what `wf.step()` gives: calling it runs the function, and it stands for the step in `parents=` and in
`ctx.step_output(step)`. A method marked by `@mesh.step()` stays the method; `step_name` finds the step in all of them.

Rule: whatever the style, a worker only ever sees `BoundStep`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from mesh_sdk.errors import DefinitionError
from mesh_sdk.options import StepSettings
from mesh_sdk.protocol.definitions import StepDefinition
from mesh_sdk.serialize import Dump, Parse, dumper, parser
from mesh_sdk.signature import StepSignature

I = TypeVar("I")  # noqa: E741 - the input, as API names it
R = TypeVar("R")

Invoke = Callable[[Any, Any], Any]
"""(input, context) -> the output, or a coroutine of it when the step is async."""

MARK = "__mesh_step__"


@dataclass(frozen=True, slots=True)
class StepMark:
    """What `@mesh.step()` leaves on a method until its class is decorated."""

    name: str
    settings: StepSettings


@dataclass(frozen=True, slots=True)
class StepSpec:
    """One step as defined, before it is known which instance it runs on.

    Attributes:
        name: unique in its workflow.
        function: the user's function or (unbound) method.
        attribute: the method's name in a class-style workflow, else "".
        settings: its options.
        signature: how it is called.
        input_type: of the value that it is given; `serialize.UNTYPED` for plain JSON values.
        parse_input: reads the run's input; raises `InvalidInput` with Pydantic's message.
        parse_output: reads an output of this step as its declared type.
        dump_output: writes an output; raises `InvalidOutput` naming type and step, or `PayloadTooLarge`.
    """

    name: str
    function: Callable[..., Any]
    attribute: str
    settings: StepSettings
    signature: StepSignature
    input_type: Any
    parse_input: Parse
    parse_output: Parse
    dump_output: Dump


@dataclass(frozen=True, slots=True)
class BoundStep:
    """One step as a worker runs it.

    Attributes:
        index: its place in `WorkflowDefinition.steps`, what assignments name it by.
        name: its name.
        definition: its timeouts, retries and parents, as registered.
        spec: the step as defined.
        is_async: `invoke` gives a coroutine, to be run on the loop; else it blocks, and belongs on a thread.
        wants_input: the function takes the input as a parameter. When it doesn't and `spec.input_type` is untyped, nothing
            needs parsing before the function asks for it.
        invoke: `invoke(input, context)`, whatever the function's own signature.
        parse_input: of `spec`: bytes of the run's input to the value.
        dump_output: of `spec`: the function's result to bytes.
    """

    index: int
    name: str
    definition: StepDefinition
    spec: StepSpec
    is_async: bool
    wants_input: bool
    invoke: Invoke
    parse_input: Parse
    dump_output: Dump


def make_spec(
    workflow: str,
    name: str,
    function: Callable[..., Any],
    settings: StepSettings,
    signature: StepSignature,
    input_type: Any,
    attribute: str = "",
    role: str = "step",
) -> StepSpec:
    """Put together what is known of a step; whatever Pydantic must build is built here, once.

    Raises:
        DefinitionError: when a type can't be used.
    """
    action = f"{workflow}:{name}"
    output = f"output of {role} {action!r}"
    return StepSpec(
        name=name,
        function=function,
        attribute=attribute,
        settings=settings,
        signature=signature,
        input_type=input_type,
        parse_input=parser(input_type, f"input of {role} {action!r}"),
        parse_output=parser(signature.output_type, output),
        dump_output=dumper(signature.output_type, output),
    )


def bind_step(spec: StepSpec, index: int, definition: StepDefinition, instance: object | None) -> BoundStep:
    """Make a step ready to be run.

    Args:
        spec: the step.
        index: its place in the definition.
        definition: as registered.
        instance: of the workflow's class; None for a plain function.
    """
    function = spec.function if instance is None else getattr(instance, spec.attribute)
    return BoundStep(
        index=index,
        name=spec.name,
        definition=definition,
        spec=spec,
        is_async=spec.signature.is_async,
        wants_input=spec.signature.wants_input,
        invoke=_invoke(function, spec.signature),
        parse_input=spec.parse_input,
        dump_output=spec.dump_output,
    )


def _invoke(function: Callable[..., Any], signature: StepSignature) -> Invoke:
    if not signature.wants_input:
        return lambda _input, context: function(context)
    if signature.context_first:
        return lambda value, context: function(context, value)
    return function


class Step(Generic[I, R]):
    """A step of a workflow, as `@wf.step()` gives it: call it and the function runs, with no mesh.

    Attributes:
        name: the step's name.
        workflow_name: the workflow that it belongs to.
        spec: what is known of it.
    """

    def __init__(self, workflow_name: str, spec: StepSpec) -> None:
        self.name = spec.name
        self.workflow_name = workflow_name
        self.spec = spec
        self.__doc__ = spec.function.__doc__
        self.__name__ = getattr(spec.function, "__name__", spec.name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the function itself."""
        return self.spec.function(*args, **kwargs)

    def parse_output(self, data: bytes) -> R:
        """Read an output of this step as its declared type."""
        value: R = self.spec.parse_output(data)
        return value

    def __repr__(self) -> str:
        return f"<Step {self.workflow_name}:{self.name}>"


def mark_of(thing: object) -> StepMark | None:
    """The mark that `@mesh.step()` left on a method, bound or not; None when there is none."""
    mark = getattr(thing, MARK, None)
    return mark if isinstance(mark, StepMark) else None


def step_name(thing: object) -> str:
    """The name of a step, given as a name, a `Step`, a task, or a method marked by `@mesh.step()`.

    Raises:
        DefinitionError: when it is none of them.
    """
    if isinstance(thing, str):
        return thing
    if isinstance(thing, Step):
        return thing.name
    mark = mark_of(thing)
    if mark is not None:
        return mark.name
    only = getattr(thing, "step", None)
    if isinstance(only, Step):
        return only.name
    raise DefinitionError(f"{thing!r} is no step: use its name, or what @mesh.step() or @workflow.step() decorates")
