"""Definitions: what a worker registers about its workflows, and the numbers behind the public options.

Durations are integers of milliseconds; 0 means "none".
"""

from __future__ import annotations

from msgspec import Struct, field


class StepDefinition(Struct, array_like=True, gc=False, frozen=True):
    """One step of a workflow. `parents` are indexes into the workflow's steps, each lower than the step's own."""

    name: str
    parents: list[int] = field(default_factory=list)
    timeout_ms: int = 60_000
    schedule_timeout_ms: int = 0
    retries: int = 0
    backoff_factor: float = 0.0
    backoff_max_ms: int = 0
    priority: int = 0
    """0: the run's priority."""


class WorkflowDefinition(Struct, array_like=True, gc=False, frozen=True):
    """One workflow as a DAG of steps, in an order in which every parent stands before its children."""

    name: str
    steps: list[StepDefinition]
    digest: str = ""
    """Of everything but itself: two workers that register the same definition agree on it."""
    version: str = ""
    on_events: list[str] = field(default_factory=list)
    priority: int = 1
    sticky: str = ""
    """"", "SOFT" or "HARD"."""
    sticky_timeout_ms: int = 5_000
    metadata: dict[str, str] = field(default_factory=dict)

    def actions(self) -> list[str]:
        """What a worker that registers this workflow can run: `workflow:step`, one for each step."""
        return [f"{self.name}:{step.name}" for step in self.steps]
