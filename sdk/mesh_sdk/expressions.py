"""What a key may be written as: a dotted path into a run, or an expression in CEL.

Rule: a plain path is never CEL, whatever CEL would make of it; and of CEL only that is refused which no scheduler could evaluate.
"""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, distribution
from reprlib import Repr

from mesh_sdk.errors import DefinitionError
from mesh_sdk.protocol import cel
from mesh_sdk.protocol.bounds import KEY_CHARACTERS_MAX
from mesh_sdk.protocol.definitions import CEL, PATH

FUNCTIONS = "a function gives keys as @mesh.concurrency(max_runs=…) on a method, or @workflow.concurrency(…) or @task.concurrency(…) on it"
_SHOWN_CHARACTERS = 60

is_path = re.compile(r"(input|metadata)(\.[A-Za-z0-9_-]+)+").fullmatch

_repr = Repr()
_repr.maxstring = _repr.maxother = _SHOWN_CHARACTERS


def shortened(value: object) -> str:
    """The `repr` of what a user wrote, cut where it is long."""
    return _repr.repr(value)


def language_of(key: object, what: str) -> str:
    """Whether a key is a path or CEL.

    Args:
        key: as the user wrote it.
        what: names it in messages, e.g. `key of the concurrency of task 'charge'`.

    Returns:
        `PATH` or `CEL`.

    Raises:
        DefinitionError: it can be neither.
    """
    if callable(key) and not isinstance(key, type):
        raise DefinitionError(f"{what} is {shortened(key)}: {FUNCTIONS}")
    if not isinstance(key, str) or not key.strip():
        raise DefinitionError(f"{what} is {shortened(key)}: use a dotted path such as 'input.user_id'")
    if len(key) > KEY_CHARACTERS_MAX:
        raise DefinitionError(f"{what} has {len(key):,} characters, {KEY_CHARACTERS_MAX} are the most: use a key function")
    if is_path(key):
        return PATH
    instead = "use a dotted path such as 'input.user_id', or an expression in CEL"
    if reason := cel.objection(key):
        raise DefinitionError(f"{what} is {shortened(key)}, {reason}: {instead}")
    if reason := cel.too_costly(key) or _parser_objection(key):
        raise DefinitionError(f"{what} is {shortened(key)}, and {reason}: {instead}, or a key function")
    return CEL


def _parser_objection(expression: str) -> str:
    """What the parser says to an expression; "" when it takes it, or is not installed where the key is defined."""
    try:
        distribution(cel.DISTRIBUTION)
    except PackageNotFoundError:
        return ""
    import cel as parser  # where a key is written in CEL, and nowhere else: it takes 0.2 s and 26 MB

    try:
        parser.compile(expression)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # a panic of the parser is no Exception
        return cel.parser_said(str(error))
    return ""
