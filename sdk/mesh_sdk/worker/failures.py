"""The trace that a failed attempt leaves in the worker's log.

Rule: one record for an attempt, whatever its fate is then; nothing is made up that isn't logged.
"""

from __future__ import annotations

import logging

from mesh_sdk.protocol import records
from mesh_sdk.protocol.records import Assign, Failed

log = logging.getLogger("mesh_sdk.worker")


def log_failed(assign: Assign, failed: Failed, worker: str) -> None:
    """Log that an attempt failed: as a warning, or as information when somebody cancelled it.

    Args:
        assign: what was to be done.
        failed: how it ended.
        worker: id of the worker that tried.
    """
    level = logging.INFO if failed.kind == records.FAILED_CANCELLED else logging.WARNING
    if not log.isEnabledFor(level):
        return
    run, step, attempt, error = assign.run, assign.name, assign.attempt, failed.error
    # what did not get as far as the step's own code has a traceback that tells its author nothing
    below = f"\n{error.traceback.rstrip()}" if failed.kind == records.FAILED_ERROR and error.traceback else ""
    fields = {"run": run, "step": step, "attempt": attempt, "worker": worker}
    log.log(
        level, "%s:%s of run %s, attempt %d: %s: %s%s", assign.workflow, step, run, attempt, error.type, error.message, below, extra=fields
    )


def log_forgiven(assign: Assign, error: BaseException) -> None:
    """Log that `on_moved` failed where it had nothing to restore, so that the step begins all the same."""
    log.info(
        "on_moved of run %s of %s failed, and no step of it has succeeded yet: step %s begins with nothing kept: %s: %s",
        assign.run,
        assign.workflow,
        assign.name,
        type(error).__name__,
        error,
        extra={"run": assign.run, "step": assign.name, "attempt": assign.attempt},
    )
