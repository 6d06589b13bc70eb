"""Keys of concurrency groups and of rates, taken from a run's input: once, when it starts, and journaled.

Rule: whatever users wrote or sent, the answer is a key or a reason that names what was looked for and what was there.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

import msgspec
from msgspec import Raw

from mesh_sdk.protocol.bounds import KEY_CHARACTERS_MAX, UNITS_MAX
from mesh_sdk.protocol.definitions import CEL, ConcurrencyDefinition, RateDefinition

SHOWN_CHARACTERS_MAX = 60
PATH_PREFIX = "input."

is_path = re.compile(r"(input|metadata)(\.[A-Za-z0-9_-]+)+").fullmatch

Evaluate = Callable[[str, Mapping[str, Any]], Any]
"""(expression, its variables) → its value; raises ValueError with the reason."""


class NoKey(Exception):
    """There is no key; the message says why."""


class Keys:
    """Takes keys from one run's input and metadata.

    Args:
        input: JSON.
        metadata: of the run.
        evaluate: for CEL; None where it is not installed.
    """

    def __init__(self, input: Raw, metadata: Mapping[str, str] | None, evaluate: Evaluate | None) -> None:
        self._input = input
        self._metadata = dict(metadata or {})
        self._evaluate = evaluate

    @cached_property
    def _variables(self) -> dict[str, Any]:
        """Read when somebody asks for it: limits by key functions don't."""
        return {"input": _read("the run's input", self._input), "metadata": self._metadata}

    def group(self, limit: ConcurrencyDefinition) -> str:
        """The key of a run or step in a limit."""
        if limit.language != CEL:
            return self._text(limit.key, self._find(limit.key))
        if self._evaluate is None:
            raise NoKey(f"concurrency key {limit.key!r} is CEL, and this scheduler can't read CEL: install natsmesh[cel] with it")
        try:
            return self._text(limit.key, self._evaluate(limit.key, self._variables))
        except ValueError as error:
            raise NoKey(f"concurrency key {limit.key!r} has no value: {error}") from None

    def rate(self, rate: RateDefinition) -> tuple[str, int, int, int]:
        """(key, limit, milliseconds, units) of a rate limit."""
        key = self._text(rate.key, self._find(rate.key)) if rate.key.startswith(PATH_PREFIX) else rate.key
        limit, units = self._number("limit", rate.limit, 1), self._number("units", rate.units, 0)
        if units > limit:
            raise NoKey(
                f"rate {key!r} lets {limit} units pass in {rate.per_ms / 1000:g} s, and the step wants {units} at once: it never could"
            )
        return key, limit, rate.per_ms, units

    def _number(self, what: str, given: int | str, least: int) -> int:
        value = self._find(given) if isinstance(given, str) else given
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= UNITS_MAX:
            raise NoKey(f"{what} {given!r} of a rate limit is {_shown(value)}: it must be a whole number from {least} to {UNITS_MAX:,}")
        return value

    def _find(self, path: str) -> Any:
        value: Any = self._variables
        for place, name in enumerate(names := path.split(".")):
            if not isinstance(value, dict) or name not in value:
                there = ".".join(names[:place])
                raise NoKey(f"{path!r} finds nothing: {there or 'a run'} has no {name!r}, it is {_shown(value)}")
            value = value[name]
        return value

    def _text(self, what: str, value: Any) -> str:
        """A key's text: of a string itself, of a number or a truth value its JSON."""
        if isinstance(value, bool | int | float):
            value = msgspec.json.encode(value).decode()
        if not isinstance(value, str):
            raise NoKey(f"key {what!r} is {_shown(value)}: it must be a text, a number or a truth value")
        return checked_key(f"key {what!r}", value)


def checked_key(what: str, key: str) -> str:
    """The key, if it is not empty nor too long.

    Raises:
        NoKey: it is.
    """
    if not key:
        raise NoKey(f"{what} is empty: it must have 1 to 512 characters")
    if len(key) > KEY_CHARACTERS_MAX:
        raise NoKey(f"{what} has {len(key):,} characters, {KEY_CHARACTERS_MAX} are the most: use a digest of it")
    return key


def function_key(name: str, output: Raw) -> str:
    """The key that a key function gave.

    Raises:
        NoKey: it is none.
    """
    value = _read(f"what key function {name!r} returned", output)
    if not isinstance(value, str):
        raise NoKey(f"key function {name!r} returned {_shown(value)}: it must return a text")
    return checked_key(f"the key that {name!r} returned", value)


def _read(what: str, data: Raw) -> Any:
    """The value of JSON that only its outline is known of: who carried it has skipped over its numbers, and had another stack.

    Raises:
        NoKey: it can't be read.
    """
    try:
        return msgspec.json.decode(data)
    except RecursionError:
        raise NoKey(f"{what} can't be read, so no key can be taken: it is nested too deeply") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise NoKey(f"{what} can't be read, so no key can be taken: {error}") from None


def _shown(value: Any) -> str:
    try:
        text = msgspec.json.encode(value).decode()
    except RecursionError:
        text = f"a {type(value).__name__} that is nested too deeply"
    return text if len(text) <= SHOWN_CHARACTERS_MAX else f"{text[:SHOWN_CHARACTERS_MAX]}…"
