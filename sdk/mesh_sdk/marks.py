"""Methods that decorators mark until their class is decorated: what may be marked, and by one decorator only.

Rule: nothing that was marked is lost without a word: who overrides a marked method marks its own, or sets it to None.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from mesh_sdk.errors import DefinitionError
from mesh_sdk.key_function import is_key_mark
from mesh_sdk.signature import Namespace
from mesh_sdk.starting import Startable
from mesh_sdk.step import Step, mark_of
from mesh_sdk.sticky import is_moved_mark

_STEP, _MOVED, _KEY = "@mesh.step()", "@mesh.on_moved()", "@mesh.concurrency()"

_ROLES: tuple[tuple[str, str, Callable[[object], bool]], ...] = (
    ("a step", _STEP, lambda thing: mark_of(thing) is not None),
    ("the on_moved method", _MOVED, is_moved_mark),
    ("the key function", _KEY, is_key_mark),
)
"""What a method may be, one of them: (role, the decorator that gives it, who has it)."""

_OF_FUNCTIONS = {
    _STEP: "@workflow.step() or @mesh.task()",
    _MOVED: "@workflow.on_moved()",
    _KEY: "@workflow.concurrency(...) or @task.concurrency(...)",
}
"""What functions take instead."""


def markable(thing: object, decorator: str, namespace: Namespace) -> Callable[..., Any]:
    """The function behind what a decorator was put on.

    Args:
        thing: a function, or a static or class method.
        decorator: names it in messages.
        namespace: the local names where it was put on.

    Raises:
        DefinitionError: when it is none of them, or will be in no class.
    """
    inner = thing.__func__ if isinstance(thing, staticmethod | classmethod) else thing
    if isinstance(inner, type | Step | Startable) or not callable(inner):
        raise DefinitionError(f"{decorator} decorates a method, this is {thing!r}: on functions use {_OF_FUNCTIONS[decorator]}")
    if inner is thing and "__qualname__" not in namespace and not _is_method(inner):
        own, instead = function_name(inner), _OF_FUNCTIONS[decorator]
        raise DefinitionError(f"{decorator} marks methods of a class, and {own!r} is in none, where it would be ignored: use {instead}")
    return inner


def _is_method(function: Callable[..., Any]) -> bool:
    """Whether a function that stands outside of a class body is meant for a class that is made by other means."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    return code is not None and code.co_varnames[: code.co_argcount][:1] in (("self",), ("cls",))


def refuse_other(name: str, things: tuple[object, ...], role: str) -> None:
    """Refuse a method, or the name of one, that has another role already.

    Args:
        name: the method's.
        things: that it may be.
        role: that it is to have.

    Raises:
        DefinitionError: naming the decorators.
    """
    for other, decorator, has in _ROLES:
        if other != role and any(has(thing) for thing in things):
            raise DefinitionError(f"{name!r} is marked with {decorator}: it can't be {role} too, give that a method with a name of its own")


def refuse_marked(function: object, what: str) -> None:
    """Refuse a function that carries a mark which only a class would read.

    Args:
        function: that is to become something outside of a class.
        what: it is to become, for the message.

    Raises:
        DefinitionError: naming the decorator.
    """
    for _, decorator, has in _ROLES:
        if has(function):
            raise DefinitionError(
                f"{what} is marked with {decorator}, which marks methods of a class and would be ignored: "
                f"use {_OF_FUNCTIONS[decorator]}, on a function of its own"
            )


def refuse_hidden(cls: type, attribute: str, raw: object) -> None:
    """Refuse an attribute that is no method any more but has a marked one in it, such as a property of one.

    Args:
        cls: the class.
        attribute: its name there.
        raw: as it stands there.

    Raises:
        DefinitionError: naming both.
    """
    for inner in (getattr(raw, "fget", None), getattr(raw, "func", None)):
        for _, decorator, has in _ROLES:
            if has(inner):
                kind = type(raw).__name__
                raise DefinitionError(f"{cls.__qualname__}.{attribute} is marked with {decorator} and then made a {kind}: leave that out")


def refuse_bare(arguments: tuple[object, ...], decorator: str, example: str) -> None:
    """Refuse a decorator that stands without its parentheses, or with options that are not named.

    Args:
        arguments: that are not named.
        decorator: names it in messages.
        example: of an option, e.g. `max_runs=1`.

    Raises:
        DefinitionError: naming what was decorated or given.
    """
    if not arguments:
        return
    if callable(arguments[0]):
        raise DefinitionError(f"{decorator} needs its parentheses on {arguments[0]!r}: options are given by keyword")
    wanted = f"options are given by keyword, such as {example}" if example else "it takes no options"
    raise DefinitionError(f"{decorator} does not take {arguments[0]!r} as it stands: {wanted}")


def function_name(function: object) -> str:
    """The name that a function gives its step, "" when it has none."""
    return str(getattr(getattr(function, "func", function), "__name__", ""))


def owner_of(function: object) -> str:
    """The class that a method is being defined in, for messages."""
    return str(getattr(function, "__qualname__", "")).rpartition(".")[0] or "one module"


def refuse_unmarked(cls: type, attribute: str, is_marked: Callable[[object], bool], decorator: str, role: str) -> None:
    """Refuse an attribute that takes the place of a base's marked method and is not marked itself; None says that there is none.

    Args:
        cls: the class.
        attribute: its name there.
        is_marked: tells marked ones.
        decorator: that marks.
        role: what the class is then without, e.g. `on_moved`.

    Raises:
        DefinitionError: naming both.
    """
    found = [(base, vars(base)[attribute]) for base in cls.__mro__ if attribute in vars(base)]
    own = found[0][0]
    for base, each in found:
        if each is None:
            return
        if is_marked(each):
            raise DefinitionError(
                f"{own.__qualname__}.{attribute} takes the place of {base.__qualname__}.{attribute}, which is marked with "
                f"{decorator}, and is not: mark it too, or set `{attribute} = None` to have no {role}"
            )
