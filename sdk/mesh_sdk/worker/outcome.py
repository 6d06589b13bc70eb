"""What a step's end means on the wire: one record, made once, never changed after.

Rule: nothing that a user's code raises or returns gets past here as an exception.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from msgspec import Raw

from mesh_sdk.durations import duration_ms
from mesh_sdk.errors import NonRetryable, RetryAfter
from mesh_sdk.protocol import records
from mesh_sdk.protocol.records import Assign, Failed, Finished, Returned, StepError
from mesh_sdk.worker.attempt import Attempt, Stop

Outcome = Finished | Failed | Returned

TRACEBACK_BYTES_MAX = 8 * 1024
MESSAGE_CHARACTERS_MAX = 4 * 1024
FRAMES_MAX = 50

_OURS = str(Path(__file__).resolve().parent.parent)


def finished(attempt: Attempt, value: object) -> Outcome:
    """The step returned `value`."""
    if attempt.stop is not None:
        return stopped(attempt)
    assign = attempt.assign
    try:
        output = attempt.action.dump(value)
    except BaseException as error:  # a serializer may be the user's and raise anything: no retry makes the value another
        return _failed(assign, error, _text(error), retry=records.RETRY_NEVER)
    return Finished(assign.run, assign.step, assign.attempt, assign.token, Raw(output))


def invalid(attempt: Attempt, error: BaseException) -> Outcome:
    """The step's input did not pass validation."""
    return _failed(attempt.assign, error, _text(error), kind=records.FAILED_INVALID, retry=records.RETRY_NEVER)


def failed(attempt: Attempt, error: BaseException) -> Outcome:
    """The step raised `error`."""
    if attempt.stop is not None:
        return stopped(attempt)
    retry = records.RETRY_ALLOWED
    if isinstance(error, NonRetryable):
        retry = records.RETRY_NEVER
    elif isinstance(error, RetryAfter):
        try:
            retry = duration_ms(error.delay, "the delay of RetryAfter", zero=True)
        except ValueError as bad:
            return _failed(attempt.assign, bad, _text(bad), retry=records.RETRY_NEVER)
    return _failed(attempt.assign, error, _text(error), retry=retry)


def stopped(attempt: Attempt) -> Outcome:
    """The step was told to stop; whatever it did then, the stop is what counts."""
    assign = attempt.assign
    if attempt.stop is Stop.TIMEOUT:
        text = attempt.reason or f"step {assign.name!r} ran longer than its timeout"
        error = StepError("TimeoutError", text)
        return Failed(assign.run, assign.step, assign.attempt, assign.token, error, records.FAILED_TIMEOUT)
    if attempt.stop is Stop.CANCELLED:
        error = StepError("StepCancelled", printable(attempt.reason) or "the step was cancelled")
        return Failed(assign.run, assign.step, assign.attempt, assign.token, error, records.FAILED_CANCELLED)
    return returned(assign, records.RETURNED_DRAINING)


def returned(assign: Assign, reason: str) -> Returned:
    """The step goes back."""
    return Returned(assign.run, assign.step, assign.attempt, assign.token, reason)


def size_of(outcome: Outcome) -> int:
    """About how many bytes it takes on the wire."""
    if isinstance(outcome, Finished):
        return 128 + len(outcome.output)
    if isinstance(outcome, Failed):
        return 256 + 2 * (len(outcome.error.message) + len(outcome.error.traceback))
    return 128


def printable(text: str) -> str:
    """The text as UTF-8 can carry it: a lone surrogate would spoil the frame for all records in it."""
    return text.encode("utf-8", "replace").decode()


def _failed(
    assign: Assign, error: BaseException, message: str, *, kind: str = records.FAILED_ERROR, retry: int = records.RETRY_ALLOWED
) -> Failed:
    told = StepError(printable(type(error).__name__), printable(message[:MESSAGE_CHARACTERS_MAX]), _traceback(error))
    return Failed(assign.run, assign.step, assign.attempt, assign.token, told, kind, retry)


def _text(error: BaseException) -> str:
    return _guarded(lambda: str(error)) or type(error).__name__


def _traceback(error: BaseException) -> str:
    """The user's part of the traceback; the end of it when it is long, where the error is."""
    tb = _users_part(error.__traceback__)
    if tb is None:
        return ""
    lines = _guarded(lambda: "".join(traceback.format_exception(type(error), error, tb, limit=-FRAMES_MAX)))
    data = lines.encode("utf-8", "replace")
    if len(data) > TRACEBACK_BYTES_MAX:
        data = b"...\n" + data[-TRACEBACK_BYTES_MAX + 4 :]
    return data.decode("utf-8", "ignore")


def _users_part(tb: TracebackType | None) -> TracebackType | None:
    """The traceback from the first frame on that is not the mesh's own."""
    while tb is not None and tb.tb_frame.f_code.co_filename.startswith(_OURS):
        tb = tb.tb_next
    return tb


def _guarded(text: Callable[[], str]) -> str:
    """An exception class of the user's may fail to say what it is."""
    try:
        return text()
    except BaseException as error:  # told in place of the text
        return f"(its text can't be had: {type(error).__name__})"
