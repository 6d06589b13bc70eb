"""How the steps of one run are kept together on one worker, and the method that rebuilds what a worker keeps for a run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from mesh_sdk.errors import DefinitionError
from mesh_sdk.signature import Namespace, read_signature

MOVED_MARK = "__mesh_on_moved__"


class StickyStrategy(StrEnum):
    """Whether all steps of a run go to the same worker."""

    SOFT = "SOFT"
    """To the run's worker; to another one if that is gone, draining, or full for longer than `sticky_timeout`."""
    HARD = "HARD"
    """To the run's worker, ever; while it is away the steps wait."""


@dataclass(frozen=True, slots=True)
class MovedSpec:
    """What `on_moved` decorates, before it is known which instance it runs on.

    Attributes:
        name: the function's.
        function: the user's function or (unbound) method.
        attribute: the method's name in a class-style workflow, else "".
        is_async: it is a coroutine function.
    """

    name: str
    function: Callable[..., Any]
    attribute: str
    is_async: bool


@dataclass(frozen=True, slots=True)
class BoundMoved:
    """The same as a worker runs it.

    Attributes:
        invoke: takes the context of the step that comes next.
        is_async: `invoke` gives a coroutine, to be run on the loop; else it blocks, and belongs on a thread.
    """

    invoke: Callable[[Any], Any]
    is_async: bool


def read_moved(
    raw: Any, attribute: str, workflow: str, sticky: StickyStrategy | None, namespace: Namespace, *, inherited: bool = False
) -> MovedSpec:
    """Read what `on_moved` decorates.

    Args:
        raw: the function, or the attribute as it stands in the class.
        attribute: the method's name, "" for a function.
        workflow: the workflow's name.
        sticky: its strategy.
        namespace: names that annotations may use besides the module's.
        inherited: it stands in a base of the workflow's class.

    Raises:
        DefinitionError: when it can't be called, or never would be.
    """
    function = raw.__func__ if isinstance(raw, staticmethod | classmethod) else raw
    name = attribute or str(getattr(function, "__name__", function))
    what = f"on_moved {name!r} of workflow {workflow!r}"
    if sticky is None:
        without = f"set `{name} = None` in its class, to have none" if inherited else "leave on_moved out"
        raise DefinitionError(
            f"{what} would never be called, the workflow is not sticky: give it sticky=StickyStrategy.SOFT or HARD, or {without}"
        )
    signature = read_signature(function, what, namespace, method=bool(attribute) and not isinstance(raw, staticmethod))
    if signature.wants_input:
        raise DefinitionError(f"{what} takes two parameters: it takes the context alone, which has context.workflow_input()")
    return MovedSpec(name, function, attribute, signature.is_async)


def bind_moved(spec: MovedSpec, instance: object | None) -> BoundMoved:
    """Make it ready to be called.

    Args:
        spec: what was decorated.
        instance: of the workflow's class; None for a plain function.
    """
    return BoundMoved(spec.function if instance is None else getattr(instance, spec.attribute), spec.is_async)


def is_moved_mark(thing: object) -> bool:
    """Whether `@mesh.on_moved()` has marked this method."""
    return getattr(thing, MOVED_MARK, False) is True
