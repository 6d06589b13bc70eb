"""Concurrency keys written in CEL, the Common Expression Language; there only with the extra `natsmesh[cel]`.

Rule: whoever evaluates here is the leader, so nothing may take long, whatever a user wrote or sent: an expression is short and has one
loop at most, what it is given is small, and every failure is a ValueError that says why.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, distribution
from typing import Any

from msgspec import json

from mesh.core.keys import Evaluate
from mesh_sdk.protocol.bounds import KEY_CHARACTERS_MAX
from mesh_sdk.protocol.cel import DISTRIBUTION, FUNCTIONS, parser_said, too_costly

EXPRESSIONS_KEPT = 256
"""Compiled ones."""
VALUES_MAX = 2_000
"""In input and metadata together."""
LEVELS_MAX = 100
"""How deeply they may be nested."""
CHARACTERS_MAX = 65_536
"""Of all texts in them together, names of fields included."""
REASON_CHARACTERS_MAX = 200

SHOWN_CHARACTERS_MAX = 60
"""Of a value that is no key."""

_UNDEFINED = re.compile(r"Undefined variable or function: '([^']*)'").match
_KINDS: tuple[tuple[type, str], ...] = (
    (Mapping, "an object"),
    (list, "a list"),
    (bytes, "bytes"),
    (timedelta, "a duration"),
    (datetime, "a time"),
)
"""What values are called that are no keys."""

Program = Callable[[Mapping[str, Any]], Any]


def evaluator() -> Evaluate | None:
    """What evaluates CEL here; None when the extra is not installed."""
    try:
        distribution(DISTRIBUTION)
    except PackageNotFoundError:
        return None
    return evaluate


def evaluate(expression: str, variables: Mapping[str, Any]) -> Any:
    """The value of an expression.

    Args:
        expression: of up to 512 characters.
        variables: JSON values by name.

    Raises:
        ValueError: it can't be read, takes too much, finds nothing, or its value is none that a key can be made of.
    """
    program = _compiled(expression)
    if isinstance(program, str):
        raise ValueError(program)
    if reason := _too_much(variables):
        raise ValueError(reason)
    value = _guarded(lambda: program(variables))
    if isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    raise ValueError(f"it is {_shown(value)}: it must be a text, a number or a truth value")


@lru_cache(EXPRESSIONS_KEPT)
def _compiled(expression: str) -> Program | str:
    """The expression, ready to be evaluated; or why it can't be."""
    import cel  # with the first expression: it takes 0.2 s and 26 MB, which nobody else has to spend

    if len(expression) > KEY_CHARACTERS_MAX:
        return f"it has {len(expression):,} characters, {KEY_CHARACTERS_MAX} are the most"
    if reason := too_costly(expression):
        return reason
    try:
        program: Program = _guarded(lambda: cel.compile(expression)).execute
    except ValueError as error:
        return str(error)
    return program


def _guarded(call: Callable[[], Any]) -> Any:
    """Call into the library; whatever it raises is a ValueError with one line."""
    try:
        return call()
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # a panic of the library is no Exception, and must not end the term either
        raise ValueError(_reason(error)) from error


def _reason(error: BaseException) -> str:
    text = str(error)
    if isinstance(error, KeyError):
        text = f"there is no field {text}"
    elif text.startswith("Failed to parse"):
        text = parser_said(text)
    elif (name := _UNDEFINED(text)) is not None:
        text = _undefined(name[1])
    text = text.partition("\n")[0] or type(error).__name__
    return text if len(text) <= REASON_CHARACTERS_MAX else f"{text[:REASON_CHARACTERS_MAX]}…"


def _undefined(name: str) -> str:
    """The library says the same of a function that it does not have and of one that does not take what it was given."""
    if name in FUNCTIONS:
        return f"{name}(…) does not take what it was given: null, or a value of another kind; see to it with `!= null` or has(…)"
    return f"there is no variable or function {name!r}: variables are input and metadata, functions those of CEL itself"


def _shown(value: Any) -> str:
    """A value that is no key, in the words of JSON."""
    if value is None or isinstance(value, float):
        return "null" if value is None else str(value)
    kind = next((name for kind, name in _KINDS if isinstance(value, kind)), "a value of its own kind")
    try:
        text = json.encode(value, order="sorted").decode() if isinstance(value, Mapping | list) else str(value)
    except (TypeError, ValueError, RecursionError):
        return kind  # what CEL puts into lists need not be JSON
    return f"{kind} ({text if len(text) <= SHOWN_CHARACTERS_MAX else text[:SHOWN_CHARACTERS_MAX] + '…'})"


def _too_much(variables: Mapping[str, Any]) -> str:
    """Why the variables would take too long to hand over; "" when they would not."""
    values = characters = 0
    left: list[tuple[int, Any]] = [(0, variables)]
    while left:
        level, value = left.pop()
        values += 1
        if isinstance(value, Mapping):
            left += [(level + 1, each) for each in value.values()]
            characters += sum(map(len, value))
        elif isinstance(value, list):
            left += [(level + 1, each) for each in value]
        elif isinstance(value, str):
            characters += len(value)
        if level > LEVELS_MAX:
            return f"the input is nested too deeply for CEL, {LEVELS_MAX} levels are the most: use a path or a key function"
        if values + len(left) > VALUES_MAX or characters > CHARACTERS_MAX:
            most = f"{VALUES_MAX:,} values and {CHARACTERS_MAX:,} characters are the most"
            return f"the input is too large for CEL, {most}: use a path or a key function"
    return ""
