"""`rate_limits=` of steps and tasks.

Rule: a limit that could never let its step pass is refused at definition, as far as it is known there.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import timedelta

from mesh_sdk.durations import duration_ms
from mesh_sdk.errors import DefinitionError
from mesh_sdk.expressions import is_path, shortened
from mesh_sdk.limits import RateLimit
from mesh_sdk.protocol.bounds import KEY_CHARACTERS_MAX, LIMITS_MAX, PER_MS_MAX, UNITS_MAX
from mesh_sdk.protocol.definitions import RateDefinition

_is_of_a_run = re.compile(r"(?<![\w.-])(?:input|metadata)[.\[]").search
_TIMES_MS = {"second": 1_000, "minute": 60_000, "hour": 3_600_000, "day": 86_400_000, "week": 604_800_000}


def read_rate_limits(value: object, what: str) -> tuple[RateDefinition, ...]:
    """Read the option.

    Args:
        value: a list of `RateLimit`.
        what: names the step in messages.

    Raises:
        DefinitionError: for what is no rate limit, has a key, limit, time or units that can't be, or stands there twice.
    """
    if value is None:
        return ()
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise DefinitionError(f"rate_limits of {what} is {value!r}: use a list, such as [RateLimit('mails', limit=10, per='second')]")
    if len(value) > LIMITS_MAX:
        raise DefinitionError(f"rate_limits of {what} has {len(value)} of them, {LIMITS_MAX} are the most")
    rates = tuple(_rate(each, what) for each in value)
    seen: set[str] = set()
    for rate in rates:
        if rate.key in seen:
            key = shortened(rate.key)
            raise DefinitionError(f"rate_limits of {what} has two of the key {key}: keep one, or give each a key of its own")
        seen.add(rate.key)
    return rates


def _rate(value: object, what: str) -> RateDefinition:
    if not isinstance(value, RateLimit):
        raise DefinitionError(f"rate_limits of {what} holds {value!r}: use RateLimit('mails', limit=10, per='second')")
    what = f"rate limit {shortened(value.key)} of {what}"
    _check_key(value.key, what)
    limit, units = _count(value.limit, "limit", what), _count(value.units, "units", what)
    if isinstance(limit, int) and isinstance(units, int) and units > limit:
        raise DefinitionError(f"units of the {what} is {units}, more than its limit of {limit}: it could never pass")
    return RateDefinition(key=value.key, limit=limit, per_ms=_per(value.per, what), units=units)


def _check_key(key: object, what: str) -> None:
    if callable(key):
        raise DefinitionError(f"key of the {what} is a function: rates have none; use a name, or a path such as 'input.user_id'")
    if not isinstance(key, str) or not key.strip() or not key.isprintable() or len(key) > KEY_CHARACTERS_MAX:
        raise DefinitionError(f"key of the {what}: use 1 to {KEY_CHARACTERS_MAX} printable characters, or a path such as 'input.user_id'")
    if key.startswith("metadata.") or (_is_of_a_run(key) and not is_path(key)):
        why = "metadata" if is_path(key) else "expressions in CEL"
        raise DefinitionError(
            f"key of the {what} is no path of the input, and rates take no {why}: "
            "use a name, or a dotted path of the input such as 'input.user_id'"
        )


def _count(value: object, name: str, what: str) -> int | str:
    if isinstance(value, str) and value.startswith("input.") and is_path(value):
        return value
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= UNITS_MAX:
        numbers = f"a whole number from 1 to {UNITS_MAX:,}"
        raise DefinitionError(f"{name} of the {what} is {shortened(value)}: use {numbers}, or a path of the input such as 'input.{name}'")
    return value


def _per(value: object, what: str) -> int:
    if isinstance(value, str) and value in _TIMES_MS:
        return _TIMES_MS[value]
    choices = f"use {', '.join(_TIMES_MS)}, or a duration such as '10s'"
    if isinstance(value, bool) or not isinstance(value, str | int | float | timedelta):
        raise DefinitionError(f"per of the {what} is {shortened(value)}: {choices}")
    try:
        milliseconds = duration_ms(value, f"per of the {what}")
    except ValueError:
        raise DefinitionError(f"per of the {what} is {shortened(value)}: {choices}") from None
    if milliseconds > PER_MS_MAX:
        raise DefinitionError(f"per of the {what} is {shortened(value)}, more than a year: {choices}")
    return milliseconds
