"""Concurrency keys written in CEL, the Common Expression Language; there only with the extra `natsmesh[cel]`.

Rule: whoever evaluates here is the leader, so nothing may take long, whatever a user wrote or sent: an expression is short and has one
loop at most, what it is given is small, and every failure is a ValueError that says why.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, distribution
from typing import Any

from mesh.core.keys import Evaluate
from mesh_sdk.protocol.bounds import KEY_CHARACTERS_MAX

DISTRIBUTION = "common-expression-language"
EXPRESSIONS_KEPT = 256
"""Compiled ones."""
VALUES_MAX = 2_000
"""In input and metadata together."""
CHARACTERS_MAX = 65_536
"""Of all texts in them together, names of fields included."""
REASON_CHARACTERS_MAX = 200

_TEXT = re.compile(
    r"""[rR][bB]?(?:"{3}.*?"{3}|'{3}.*?'{3}|"[^"]*"|'[^']*')"""
    r"""|"{3}(?:\\.|[^\\])*?"{3}|'{3}(?:\\.|[^\\])*?'{3}|"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'"""
    r"""|//[^\n]*""",
    re.DOTALL,
)
"""Literals and comments: what stands in them costs nothing."""
_LOOP = re.compile(r"\.\s*(?:all|exists|exists_one)\s*\(")
_COSTLY = re.compile(r"\.\s*(?:map|filter)\s*\(|\bmatches\s*\(")
"""What builds lists costs their length squared, and a pattern may take seconds to be compiled."""
_WHERE = re.compile(r"ERROR: <input>:(\d+:\d+: [^\n]*)")

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
    shown = "null" if value is None else f"a {type(value).__name__}"
    raise ValueError(f"it is {shown if not isinstance(value, float) else value}: it must be a text, a number or a truth value")


@lru_cache(EXPRESSIONS_KEPT)
def _compiled(expression: str) -> Program | str:
    """The expression, ready to be evaluated; or why it can't be."""
    import cel  # with the first expression: it takes 0.2 s and 26 MB, which nobody else has to spend

    if len(expression) > KEY_CHARACTERS_MAX:
        return f"it has {len(expression):,} characters, {KEY_CHARACTERS_MAX} are the most"
    bare = _TEXT.sub(lambda found: " " if found[0].startswith("//") else "''", expression)
    if len(_LOOP.findall(bare)) > 1 or _COSTLY.search(bare):
        return "it would cost the scheduler too much: of all, exists and exists_one use one at most, and neither map, filter nor matches"
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
    elif (where := _WHERE.search(text)) is not None:
        text = f"it can't be read: {where[1]}"
    text = text.partition("\n")[0] or type(error).__name__
    return text if len(text) <= REASON_CHARACTERS_MAX else f"{text[:REASON_CHARACTERS_MAX]}…"


def _too_much(variables: Mapping[str, Any]) -> str:
    """Why the variables would take too long to hand over; "" when they would not."""
    values = characters = 0
    left: list[Any] = [variables]
    while left:
        value = left.pop()
        values += 1
        if isinstance(value, Mapping):
            left += value.values()
            characters += sum(map(len, value))
        elif isinstance(value, list):
            left += value
        elif isinstance(value, str):
            characters += len(value)
        if values + len(left) > VALUES_MAX or characters > CHARACTERS_MAX:
            most = f"{VALUES_MAX:,} values and {CHARACTERS_MAX:,} characters are the most"
            return f"the input is too large for CEL, {most}: use a path or a key function"
    return ""
