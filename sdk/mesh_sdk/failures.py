"""What a run's end means to whoever waits for it: the exception that `result()` raises."""

from __future__ import annotations

from mesh_sdk import errors
from mesh_sdk.errors import MeshError, RunCancelled, RunFailed, RunTimedOut, StepFailure
from mesh_sdk.protocol import records
from mesh_sdk.protocol.records import Done


def error_of(done: Done) -> MeshError:
    """The exception for a run that did not succeed."""
    failures = tuple(StepFailure(error.step, error.type, error.message, error.traceback, error.attempt) for error in done.errors or ())
    if done.status == records.CANCELLED:
        return RunCancelled(failures[0].message if failures else "cancelled", done.run, failures)
    if done.status == records.REFUSED:
        return _refusal(done.run, failures)
    text = "; ".join(_told(failure) for failure in failures) or "the scheduler gave no reason"
    if done.status == records.TIMED_OUT:
        return RunTimedOut(f"run {done.run} timed out: {text}", done.run, failures)
    if len(failures) > 1 and not failures[0].step:  # a key function failed, which is no step: the reason says so, and quotes the error
        text, failures = failures[0].message, failures[1:]
    return RunFailed(f"run {done.run} failed: {text}", done.run, failures)


def _told(failure: StepFailure) -> str:
    what = f"{failure.type}: {failure.message}" if failure.message else failure.type
    if not failure.step:  # of the run itself; where its type is the status, that is told already
        return failure.message if failure.message and failure.type in (records.FAILED, records.TIMED_OUT) else what
    return f"step {failure.step!r}: {what}" + (f" (attempt {failure.attempt})" if failure.attempt > 1 else "")


def _refusal(run: str, failures: tuple[StepFailure, ...]) -> MeshError:
    if not failures:
        return RunFailed(f"the start of run {run} was refused, without a reason", run)
    kind = error_class(failures[0].type)
    if kind is None:
        return RunFailed(f"the start of run {run} was refused: {_told(failures[0])}", run, failures)
    return kind(failures[0].message)


def error_class(name: str) -> type[MeshError] | None:
    """The class of the tree that has this name; None when there is none that a message alone can make."""
    kind = getattr(errors, name, None)
    return kind if isinstance(kind, type) and issubclass(kind, MeshError) else None
