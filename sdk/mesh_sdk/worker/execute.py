"""One attempt's way through the user's code: read the input, call the step, make the outcome.

Rule: an outcome comes out, never an exception; `SystemExit`, `KeyboardInterrupt` and a `CancelledError` of the step's own
are its failures too.
"""

from __future__ import annotations

from typing import Any

from mesh_sdk.context import Context, current_context
from mesh_sdk.worker.attempt import Attempt
from mesh_sdk.worker.outcome import Outcome, failed, finished, invalid, stopped


async def execute_async(attempt: Attempt, context: Context[Any]) -> Outcome:
    """Run an async step, inside a task of its own."""
    attempt.entered = True
    if attempt.stop is not None:
        return stopped(attempt)
    action = attempt.action
    current_context.set(context)
    try:
        value = context.input if action.reads_input else None
    except BaseException as error:  # the model may be the user's and raise anything: no attempt can do better
        return invalid(attempt, error)
    try:
        result = await action.invoke(value, context)
    except BaseException as error:  # a step ends its attempt, whatever it raises, and nothing else
        return failed(attempt, error)
    return finished(attempt, result)


async def rebuild_async(attempt: Attempt, context: Context[Any]) -> BaseException | None:
    """Call an async `on_moved`, inside a task of its own. Gives what it raised."""
    attempt.entered = True
    hook = attempt.action.on_moved
    if attempt.stop is not None or hook is None:
        return None
    current_context.set(context)
    try:
        await hook.invoke(context)
    except BaseException as error:  # as a step's own
        return error
    return None


def rebuild_sync(attempt: Attempt, context: Context[Any]) -> BaseException | None:
    """Call a sync `on_moved`, on a thread of the pool. Gives what it raised."""
    attempt.entered = True
    hook = attempt.action.on_moved
    if attempt.stop is not None or hook is None:
        return None
    current_context.set(context)
    try:
        hook.invoke(context)
    except BaseException as error:  # as a step's own
        return error
    return None


def execute_sync(attempt: Attempt, context: Context[Any]) -> Outcome:
    """Run a sync step, on a thread of the pool."""
    attempt.entered = True
    if attempt.stop is not None:
        return stopped(attempt)
    action = attempt.action
    current_context.set(context)
    try:
        value = context.input if action.reads_input else None
    except BaseException as error:  # as above
        return invalid(attempt, error)
    try:
        result = action.invoke(value, context)
    except BaseException as error:  # as above
        return failed(attempt, error)
    return finished(attempt, result)
