"""What a key may be written as: a dotted path into a run, or an expression in CEL.

Rule: a plain path is never CEL, whatever CEL would make of it; and of CEL only that is refused which no reader could take.
"""

from __future__ import annotations

import re
from itertools import pairwise

from mesh_sdk.errors import DefinitionError
from mesh_sdk.protocol.bounds import KEY_CHARACTERS_MAX
from mesh_sdk.protocol.definitions import CEL, PATH

is_path = re.compile(r"(input|metadata)(\.[A-Za-z0-9_-]+)+").fullmatch

_LITERAL = re.compile(
    r"""[bB]?[rR][bB]?(?:"{3}.*?"{3}|'{3}.*?'{3}|"[^"\n]*"|'[^'\n]*')"""
    r"""|[bB]?(?:"{3}(?:\\.|[^\\])*?"{3}|'{3}(?:\\.|[^\\])*?'{3}|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*')"""
    r"""|(?P<comment>//[^\n]*)""",
    re.DOTALL,
)
_TEXT = '""'
_TOKEN = re.compile(r'""|\w+|\S')
_VARIABLE = re.compile(r"(?<![\w.])(?:input|metadata)\b")
_BRACKETS = {")": "(", "]": "[", "}": "{"}
_UNFINISHED = frozenset("-+*/%&|<>=!?:.,")


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
    if not isinstance(key, str) or not key.strip():
        raise DefinitionError(f"{what} is {key!r}: use a dotted path such as 'input.user_id'")
    if len(key) > KEY_CHARACTERS_MAX:
        raise DefinitionError(f"{what} has {len(key):,} characters, {KEY_CHARACTERS_MAX} are the most: use a key function")
    if is_path(key):
        return PATH
    if reason := _objection(key):
        raise DefinitionError(f"{what} is {key!r}, {reason}: use a dotted path such as 'input.user_id', or an expression in CEL")
    return CEL


def _objection(expression: str) -> str:
    """Why no reader of CEL could take an expression; "" when one might."""
    bare = _LITERAL.sub(lambda found: " " if found["comment"] else _TEXT, expression)
    tokens = _TOKEN.findall(bare)
    for quote in ("'", '"'):
        if quote in tokens:
            return f"with a {quote} that is not closed"
    if not tokens or tokens[-1] in _UNFINISHED or ".." in bare:
        return "which is not complete"
    if reason := _unbalanced(tokens):
        return reason
    for before, after in pairwise(tokens):
        if (_is_operand(before) or before in _BRACKETS) and _is_operand(after):
            return f"with no operator before {'a text' if after == _TEXT else repr(after)}"
    if not _VARIABLE.search(bare) and any(_is_operand(token) and token != _TEXT for token in tokens):
        return "which starts at neither input nor metadata"
    return ""


def _is_operand(token: str) -> bool:
    return token == _TEXT or (token != "in" and re.match(r"\w", token) is not None)


def _unbalanced(tokens: list[str]) -> str:
    opened: list[str] = []
    for token in tokens:
        if token in _BRACKETS.values():
            opened.append(token)
        elif token in _BRACKETS and (not opened or opened.pop() != _BRACKETS[token]):
            return f"with a {token} that was not opened"
    return f"with a {opened[-1]} that is not closed" if opened else ""
