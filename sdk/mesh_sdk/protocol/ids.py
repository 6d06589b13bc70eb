"""Ids: run ids that carry their time, derived ids, pool ids, attempt tokens. Pure: time and randomness come in.

A run id is 32 hex digits: 12 of milliseconds since 1970, 20 that make it unique. It sorts by time and stands in a
subject as it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from hashlib import blake2b

RUN_ID_CHARACTERS = 32
_TIME = 12

is_run_id = re.compile(rf"[0-9a-f]{{{RUN_ID_CHARACTERS}}}").fullmatch


def run_id(time_ms: int, unique: bytes, counter: int) -> str:
    """A new run id.

    Args:
        time_ms: milliseconds since 1970.
        unique: at least 6 random bytes, drawn once per client.
        counter: the client's own count of ids, so that two ids of one client never meet.
    """
    return f"{time_ms:012x}{unique[:6].hex()}{counter & 0xFFFFFFFF:08x}"


def derived_run_id(time_ms: int, *parts: str) -> str:
    """The run id that follows from what started the run: the same parts give the same id, whoever asks.

    Args:
        time_ms: milliseconds since 1970 of what started it (an event's stored time, the parent's id time).
        parts: what makes it unique, e.g. the event's sequence and the workflow's name.
    """
    digest = blake2b("\x00".join(parts).encode(), digest_size=10)
    return f"{time_ms:012x}{digest.hexdigest()}"


def run_id_time_ms(run: str) -> int:
    """Milliseconds since 1970 that the id carries.

    Raises:
        ValueError: when it is no run id.
    """
    if len(run) != RUN_ID_CHARACTERS:
        raise ValueError(f"run id {run!r} is not {RUN_ID_CHARACTERS} hex digits")
    return int(run[:_TIME], 16)


def pool_id(actions: Iterable[str]) -> str:
    """The pool of the workers that register exactly these actions."""
    return blake2b("\x00".join(sorted(actions)).encode(), digest_size=6).hexdigest()


def incarnation_id(time_ms: int, random: bytes) -> str:
    """Names one start of a worker; a later start sorts after an earlier one."""
    return f"{time_ms:012x}{random[:3].hex()}"


def content_digest(data: bytes) -> str:
    """Short digest of a definition or an input, to tell two apart."""
    return blake2b(data, digest_size=8).hexdigest()
