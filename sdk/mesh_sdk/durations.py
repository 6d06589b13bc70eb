"""Durations as users write them: `"30s"`, `"5m"`, `"1h30m"`, a `timedelta`, or seconds. Pure.

Rule: inside the mesh a duration is an integer of milliseconds; this is the only place that makes one.
"""

from __future__ import annotations

import math
import re
from datetime import timedelta

Duration = str | float | timedelta
"""What every option that takes a duration accepts."""

_UNITS_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_WHOLE = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|s|m|h|d))+")
_DURATION_MS_MAX = 10 * 366 * 86_400_000


def duration_ms(value: object, what: str, error: type[Exception] = ValueError, *, zero: bool = False) -> int:
    """Read a duration.

    Args:
        value: `"30s"`, `"1h30m"`, `"250ms"`, a `timedelta`, or a number of seconds.
        what: names the option in the message, e.g. `timeout of step 'reserve'`.
        error: the exception to raise.
        zero: whether 0 is a duration that makes sense here.

    Returns:
        Milliseconds, at least 1 for anything above zero.

    Raises:
        error: when it is no duration, is negative, or is longer than ten years.
    """
    milliseconds = _milliseconds(value)
    if milliseconds is None:
        raise error(f"{what} is {value!r}, which is no duration: use '30s', '5m', '1h30m', a timedelta or seconds")
    if milliseconds < 0 or (milliseconds == 0 and not zero):
        raise error(f"{what} is {value!r}: it must be {'at least' if zero else 'more than'} zero")
    if milliseconds > _DURATION_MS_MAX:
        raise error(f"{what} is {value!r}: more than ten years")
    return max(1, round(milliseconds)) if milliseconds else 0


def _milliseconds(value: object) -> float | None:
    if isinstance(value, timedelta):
        return value / timedelta(milliseconds=1)
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return value * 1_000 if math.isfinite(value) else None
    if isinstance(value, str):
        text = value.strip()
        if _WHOLE.fullmatch(text):
            return sum(float(number) * _UNITS_MS[unit] for number, unit in _PART.findall(text))
    return None
