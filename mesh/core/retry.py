"""Whether a failed attempt gets another one, and when."""

from __future__ import annotations

from mesh.core.records import NEVER
from mesh.core.step import Step
from mesh_sdk.protocol.definitions import StepDefinition
from mesh_sdk.protocol.records import FAILED_CANCELLED, FAILED_INVALID, RETRY_NEVER

LOSSES_MAX = 10
"""Infrastructure failures of one step before it is given up: a step that kills its process must not kill a pool."""

_DELAY_MS_MAX = 7 * 24 * 3_600_000


def next_attempt_at(step: Step, kind: str, wish: int, now: int) -> int:
    """Core time of the attempt after a failure of the user's own, or NEVER.

    Args:
        step: the step, its `retries` those used before this failure.
        kind: one of the wire's FAILED_*.
        wish: RETRY_ALLOWED, RETRY_NEVER or milliseconds that the step asked for.
        now: core time.
    """
    definition = step.run.flow.steps[step.index]
    if kind in (FAILED_INVALID, FAILED_CANCELLED) or wish == RETRY_NEVER or step.retries >= definition.retries:
        return NEVER
    return now + (min(wish, _DELAY_MS_MAX) if wish > 0 else backoff_ms(definition, step.retries + 1))


def backoff_ms(definition: StepDefinition, retry: int) -> int:
    """`backoff_factor ** retry` seconds in milliseconds, at most the step's maximum; 0 without a factor."""
    if definition.backoff_factor <= 0:
        return 0
    most = definition.backoff_max_ms or _DELAY_MS_MAX
    try:
        return int(min(definition.backoff_factor**retry * 1000, most))
    except OverflowError:
        return most
