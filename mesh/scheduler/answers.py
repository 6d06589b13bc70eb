"""The frame of every answer: `{"ok": …}`, or `{"error": {"type": …, "message": …}}`.

Rule: whatever somebody asks for, it is answered, and it never ends the term.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

import msgspec

from mesh_sdk.protocol.codec import encode

log = logging.getLogger(__name__)

T = TypeVar("T")

ANSWER_BYTES_MAX = 1024
"""What an answer has around its results."""


class ApiError(Exception):
    """What the caller is told instead of an answer."""

    def __init__(self, type: str, message: str) -> None:
        super().__init__(message)
        self.type = type


def error(type: str, message: str) -> bytes:
    """An answer that is an error."""
    return encode({"error": {"type": type, "message": message}})


def guarded(call: str, make: Callable[[], T]) -> T | bytes:
    """What `make` returns; or the answer that says why it could not.

    Args:
        call: that is answered, for the message.
        make: may raise whatever it likes.
    """
    try:
        return make()
    except ApiError as problem:
        return error(problem.type, str(problem))
    except msgspec.MsgspecError as problem:
        return error("InvalidInput", f"the request for {call} can't be read: {problem}")
    except Exception as problem:  # numbers and dates may be beyond any range
        log.exception("the request for %s can't be answered", call)
        return error("InvalidInput", f"the request for {call} can't be answered: {problem}")
