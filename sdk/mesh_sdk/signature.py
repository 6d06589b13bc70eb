"""What a step's function looks like: which parameter is the context, which the input, and their types.

Rule: one or two parameters. The one annotated `Context` (else named `ctx` or `context`, else the last) is the context.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ForwardRef, TypeVar, get_args, get_origin, get_type_hints

from mesh_sdk.errors import DefinitionError
from mesh_sdk.serialize import UNTYPED, is_untyped

_CONTEXT_TEXT = re.compile(r"^(?:\w+\.)*Context(?:\[.*\])?$", re.DOTALL)
_CONTEXT_NAMES = ("ctx", "context")
_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_PARAMETERS_MAX = 2

Namespace = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class StepSignature:
    """How a step's function is called.

    Attributes:
        is_async: it is a coroutine function.
        wants_input: it takes the input besides the context.
        context_first: it takes the context before the input.
        input_type: type of its input parameter, or the `T` of its `Context[T]`; `UNTYPED` when neither is given.
        output_type: its return annotation, or `UNTYPED`.
    """

    is_async: bool
    wants_input: bool
    context_first: bool
    input_type: Any
    output_type: Any


def caller_namespace(depth: int = 2) -> Namespace:
    """Local names where a decorator is used, so that annotations kept as text may name local classes."""
    return sys._getframe(depth).f_locals


def read_signature(
    function: Callable[..., Any], what: str, namespace: Namespace, *, method: bool = False, role: str = "step"
) -> StepSignature:
    """Find out how a step's function is called.

    Args:
        function: the function, or a method that is not bound yet.
        what: names the step in messages.
        namespace: names that its annotations may use besides its module's.
        method: the first parameter is `self`.
        role: that the function has.

    Raises:
        DefinitionError: when it can't be a step.
    """
    _refuse_generators(function, what, role)
    parameters = _parameters(function, what, method, role)
    annotations = _Annotations(function, namespace, what)
    types = [annotations.of_parameter(parameter) for parameter in parameters]
    place = _context_place(parameters, types, what)
    wants_input = len(parameters) == _PARAMETERS_MAX
    input_type = types[1 - place] if wants_input else _context_input(types[place])
    return StepSignature(
        is_async=inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__),
        wants_input=wants_input,
        context_first=wants_input and place == 0,
        input_type=input_type,
        output_type=annotations.of_result(),
    )


def _refuse_generators(function: Callable[..., Any], what: str, role: str) -> None:
    inner = inspect.unwrap(function)
    if inspect.isgeneratorfunction(inner) or inspect.isasyncgenfunction(inner):
        raise DefinitionError(f"{what} is a generator: a {role} returns its output, it can't yield")


def _parameters(function: Callable[..., Any], what: str, method: bool, role: str) -> list[inspect.Parameter]:
    try:
        found = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError) as error:
        raise DefinitionError(f"{what}: {function!r} can't be called as a {role}: {error}") from error
    if method:
        found = found[1:]
    for parameter in found:
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY and parameter.default is inspect.Parameter.empty:
            raise DefinitionError(f"{what} needs the keyword {parameter.name!r}: a {role} takes the input and the context, nothing else")
    positional = [parameter for parameter in found if parameter.kind in _POSITIONAL]
    while len(positional) > _PARAMETERS_MAX and positional[-1].default is not inspect.Parameter.empty:
        positional.pop()
    if not 1 <= len(positional) <= _PARAMETERS_MAX:
        names = ", ".join(parameter.name for parameter in positional) or "none"
        raise DefinitionError(
            f"{what} takes {len(positional)} parameters ({names}): a {role} takes the context, or the input and the context"
        )
    return positional


def _context_place(parameters: list[inspect.Parameter], types: list[Any], what: str) -> int:
    for place, annotation in enumerate(types):
        if is_context(annotation):
            return place
    for place, parameter in enumerate(parameters):
        if parameter.name in _CONTEXT_NAMES:
            return place
    last = len(parameters) - 1
    if last == 0 and not is_untyped(types[0]):
        name = parameters[0].name
        raise DefinitionError(
            f"{what} takes only {name!r}, and a sole parameter is the context: write ({name}: …, ctx: Context), or ({name}: Context)"
        )
    return last


def is_context(annotation: object) -> bool:
    """Whether a parameter of this annotation is the step's context."""
    from mesh_sdk.context import Context

    if isinstance(annotation, _Unresolved):
        return True
    origin = get_origin(annotation) or annotation
    return isinstance(origin, type) and issubclass(origin, Context)


def _context_input(annotation: object) -> Any:
    arguments = get_args(annotation)
    if not arguments or isinstance(arguments[0], TypeVar | ForwardRef):
        return UNTYPED
    return arguments[0]


class _Unresolved:
    """An annotation that says `Context` but names something imported for type checkers only."""


class _Annotations:
    """Resolves a function's annotations, one at a time."""

    def __init__(self, function: Callable[..., Any], namespace: Namespace, what: str) -> None:
        inner = inspect.unwrap(function)
        if not hasattr(inner, "__annotations__") and callable(inner):
            inner = getattr(type(inner), "__call__", inner)  # noqa: B004 - its annotations are wanted, not whether it exists
        self._raw: dict[str, Any] = getattr(inner, "__annotations__", {})
        self._globals: dict[str, Any] = getattr(inner, "__globals__", {})
        self._locals = {**namespace, **_closure(inner)}
        self._what = what

    def of_parameter(self, parameter: inspect.Parameter) -> Any:
        raw = self._raw.get(parameter.name, parameter.annotation)
        if raw is inspect.Parameter.empty:
            return UNTYPED
        return self._resolve(raw, f"parameter {parameter.name!r}")

    def of_result(self) -> Any:
        if "return" not in self._raw:
            return UNTYPED
        return self._resolve(self._raw["return"], "its result")

    def _resolve(self, raw: Any, of: str) -> Any:
        holder = type("holder", (), {"__annotations__": {"value": raw}})
        try:
            return get_type_hints(holder, globalns=self._globals, localns=self._locals, include_extras=True)["value"]
        except (NameError, AttributeError, TypeError, SyntaxError) as error:
            if isinstance(raw, str) and _CONTEXT_TEXT.match(raw.strip()):
                return _Unresolved()
            raise DefinitionError(
                f"{self._what}: the annotation {raw!r} of {of} can't be resolved ({error}): "
                "import what it names at run time, not only for type checkers"
            ) from error


def _closure(function: object) -> dict[str, Any]:
    """Names that the function closes over; empty cells are left out."""
    code, cells = getattr(function, "__code__", None), getattr(function, "__closure__", None)
    if code is None or not cells:
        return {}
    found = {}
    for name, cell in zip(code.co_freevars, cells, strict=True):
        try:
            found[name] = cell.cell_contents
        except ValueError:
            continue
    return found
