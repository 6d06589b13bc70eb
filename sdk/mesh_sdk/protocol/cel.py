"""What an expression in CEL, the Common Expression Language, may be here: as far as that can be told without a parser.

Rule: of the language only that is refused which no parser could take, or no evaluation could find; the rest is refused for its cost.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import pairwise

DISTRIBUTION = "common-expression-language"
"""The package that parses and evaluates it."""
VARIABLES = ("input", "metadata")

_LITERAL = re.compile(
    r"""[bB]?[rR][bB]?(?:"{3}.*?"{3}|'{3}.*?'{3}|"[^"\n]*"|'[^'\n]*')"""
    r"""|[bB]?(?:"{3}(?:\\.|[^\\])*?"{3}|'{3}(?:\\.|[^\\])*?'{3}|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*')"""
    r"""|(?P<comment>//[^\n]*)""",
    re.DOTALL,
)
_TEXT = '""'
_TOKEN = re.compile(
    r'""|0[xX][0-9a-fA-F]+[uU]?|\d+(?:\.\d+)?(?:[eE][+-]?\d+)?[uU]?|[A-Za-z_][A-Za-z0-9_]*|==|!=|<=|>=|&&|\|\||\S', re.ASCII
)
_is_name = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII).fullmatch
_is_operand = re.compile(r'""|[A-Za-z0-9_]+(?:[.+-][A-Za-z0-9+-]+)*', re.ASCII).fullmatch
_BRACKETS = {")": "(", "]": "[", "}": "{"}
_OPENED = frozenset("([{")
_BETWEEN = frozenset(("in", "==", "!=", "<=", ">=", "&&", "||", *"+*/%<>?:,"))
"""What stands between two operands; so does `-`, which may stand before one as well."""
_BEFORE = frozenset("-!")
_KNOWN = {*_BETWEEN, *_BEFORE, *_OPENED, *_BRACKETS, "."}

_LOOPS = frozenset(("all", "exists", "exists_one", "map", "filter"))
_LOOPS_MAX = 1
_COSTLY = frozenset(("map", "filter", "matches"))
"""What builds lists costs their length squared, and a pattern may take seconds to be compiled."""
_CONSTANTS = frozenset(("true", "false", "null"))
_TYPES = frozenset(("bool", "bytes", "double", "int", "list", "map", "null_type", "string", "type", "uint", "optional"))
FUNCTIONS = frozenset(("bytes", "contains", "double", "duration", "dyn", "endsWith", "has", "int", "size", "startsWith", "string"))
FUNCTIONS |= {"timestamp", "type", "uint", "of", "none", "ofNonZeroValue", "hasValue", "value", "orValue", "or", *_LOOPS, *_COSTLY}
FUNCTIONS |= {"getDate", "getDayOfMonth", "getDayOfWeek", "getDayOfYear", "getFullYear", "getHours", "getMilliseconds", "getMinutes"}
FUNCTIONS |= {"getMonth", "getSeconds"}
"""Those of the language itself."""

_PLACE = re.compile(r"ERROR: <input>:(\d+):(\d+): ([^\n]*)")
_AT = re.compile(
    r"(?:mismatched input|extraneous input|no viable alternative at input|token recognition error at:) '(.*?)'(?: expecting |$)"
)


def objection(expression: str) -> str:
    """Why no evaluation of an expression could give a value; "" when one might.

    Args:
        expression: as its user wrote it.

    Returns:
        A clause that goes on after the expression, such as `with a ( that is not closed`.
    """
    tokens = _tokens(expression)
    return _unreadable(tokens) or _unbalanced(tokens) or _incomplete(tokens) or _senseless(tokens) or _unknown(tokens)


def too_costly(expression: str) -> str:
    """Why a scheduler does not evaluate an expression, however right it may be; "" when it does."""
    tokens = _tokens(expression)
    calls = [name for name, opens in pairwise(tokens) if opens == "("]
    if sum(name in _LOOPS for name in calls) > _LOOPS_MAX or any(name in _COSTLY for name in calls):
        return "it would cost the scheduler too much: of all, exists and exists_one use one at most, and neither map, filter nor matches"
    return ""


def parser_said(text: str) -> str:
    """What a parser's message comes to, in one line.

    Args:
        text: such as `ERROR: <input>:1:9: Syntax error: mismatched input '!' expecting {…}`, with lines around it.
    """
    found = _PLACE.search(text)
    if found is None:
        return "it can't be read"
    line, character, said = found.groups()
    where = f"at character {character}" if line == "1" else f"in line {line} at character {character}"
    at = _AT.search(said)
    if at is None:
        return "it is nested too deeply" if "Recursion limit" in said else f"it can't be read {where}"
    return f"it can't be read: it ends {where} and is not complete" if at[1] == "<EOF>" else f"it can't be read {where}, {at[1]!r}"


def _tokens(expression: str) -> list[str]:
    return _TOKEN.findall(_LITERAL.sub(lambda found: " " if found["comment"] else _TEXT, expression))


def _unreadable(tokens: Iterable[str]) -> str:
    for token in tokens:
        if token in ("'", '"'):
            return f"with a {token} that is not closed"
        if token not in _KNOWN and not _is_operand(token):
            return f"with {token!r}, which stands for nothing in CEL"
    return ""


def _unbalanced(tokens: Iterable[str]) -> str:
    opened: list[str] = []
    for token in tokens:
        if token in _OPENED:
            opened.append(token)
        elif token in _BRACKETS and (not opened or opened.pop() != _BRACKETS[token]):
            return f"with a {token} that was not opened"
    return f"with a {opened[-1]} that is not closed" if opened else ""


def _incomplete(tokens: list[str]) -> str:
    if not tokens or tokens[-1] in _BETWEEN or tokens[-1] in _BEFORE or tokens[-1] == ".":
        return "which is not complete"
    return f"with nothing before {tokens[0]!r}" if tokens[0] in _BETWEEN else ""


def _senseless(tokens: list[str]) -> str:
    """Why two neighbours can't be such."""
    for before, after in pairwise(tokens):
        shown = "a text" if after == _TEXT else repr(after)
        if before == ".":
            if _is_name(after) is None:
                return f"with no name between '.' and {shown}" if after != "." else "which is not complete"
        elif before in _BRACKETS or (before not in _BETWEEN and _is_operand(before)):
            if after == "!" or (after not in _BETWEEN and _is_operand(after)):
                return f"with no operator before {shown}"
        elif after in _BETWEEN or (before, after) == ("{", "{"):
            return f"with nothing between {before!r} and {shown}"
    return ""


def _unknown(tokens: list[str]) -> str:
    """Which variable or function nobody knows."""
    variables = {*VARIABLES, *_CONSTANTS, *_TYPES, "in", *_items(tokens)}
    around = list(zip(["", *tokens], tokens, [*tokens[1:], ""], strict=False))
    for before, token, after in around:
        if _is_name(token) is None:
            continue
        if after == "(":
            if token not in FUNCTIONS and token != "in":
                return f"with {token}(…), which is no function of CEL"
        elif before != "." and token not in variables:
            return f"with {token!r}, which starts at neither input nor metadata"
    operands = {token for before, token, _ in around if before != "." and _is_operand(token)}
    return "" if operands & {*VARIABLES} or operands <= {_TEXT} else "which starts at neither input nor metadata"


def _items(tokens: list[str]) -> Iterable[str]:
    """The names that loops give to what they go over."""
    return [item for loop, opens, item in zip(tokens, tokens[1:], tokens[2:], strict=False) if loop in _LOOPS and opens == "("]
