"""Methods that decorators mark until their class is decorated: what may be marked, and by one decorator only.

Rule: nothing that was marked is lost without a word: who overrides a marked method marks its own, or sets it to None.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mesh_sdk.errors import DefinitionError


def markable(thing: object, decorator: str) -> Callable[..., Any]:
    """The function behind what a decorator was put on.

    Args:
        thing: a function, or a static or class method.
        decorator: names it in messages.

    Raises:
        DefinitionError: when it is none of them.
    """
    inner = thing.__func__ if isinstance(thing, staticmethod | classmethod) else thing
    if isinstance(inner, type) or not callable(inner):
        raise DefinitionError(f"{decorator} decorates a method, this is {thing!r}")
    return inner


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
