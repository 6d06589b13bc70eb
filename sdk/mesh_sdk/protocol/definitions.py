"""Definitions: what a worker registers about its workflows, and the numbers behind the public options.

Durations are integers of milliseconds; 0 means "none".
"""

from __future__ import annotations

from msgspec import Struct, field

GROUP_ROUND_ROBIN = "GROUP_ROUND_ROBIN"
CANCEL_IN_PROGRESS = "CANCEL_IN_PROGRESS"
CANCEL_NEWEST = "CANCEL_NEWEST"
QUEUE_NEWEST = "QUEUE_NEWEST"
STRATEGIES = (GROUP_ROUND_ROBIN, CANCEL_IN_PROGRESS, CANCEL_NEWEST, QUEUE_NEWEST)

PATH = "path"
"""The key is a dotted path: `input.user_id`, `metadata.tenant`."""
CEL = "cel"
"""The key is an expression of the Common Expression Language over `input` and `metadata`."""
FUNCTION = "function"
"""The key is the output of the key function, a step of kind KEY, that has this name."""
LANGUAGES = (PATH, CEL, FUNCTION)

KEY = "key"
"""Kind of a step that is a key function: it runs before the run is admitted, takes no slot, and is no part of the run's result."""

COMPARATORS = ("=", "!=", "<", "<=", ">", ">=", "in")

Label = str | int | float


class ConcurrencyDefinition(Struct, array_like=True, gc=False, frozen=True):
    """How many runs (of a workflow) or attempts (of a step) with the same key may go on at once."""

    max_runs: int
    strategy: str = GROUP_ROUND_ROBIN
    key: str = ""
    language: str = PATH
    scope: str = ""
    """Limits of one scope are one limit, whatever workflow or step declares them; "": of this one alone."""
    weights: dict[str, int] = field(default_factory=dict)
    """Turns of a key in a round, where that is not 1."""


class RateDefinition(Struct, array_like=True, gc=False, frozen=True):
    """How many units may pass in a time, over all that names the same key. Texts that begin with `input.` are paths."""

    key: str
    limit: int | str
    per_ms: int
    units: int | str = 1


class LabelDefinition(Struct, array_like=True, gc=False, frozen=True):
    """What a step wants of its worker's label `name`."""

    name: str
    value: Label | tuple[Label, ...]
    comparator: str = "="
    required: bool = False
    weight: int = 100


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
    kind: str = ""
    """KEY, or "" for a step that the user sees."""
    slots: int = 1
    """What an attempt takes of its worker's slots; 0 for a key function."""
    concurrency: list[ConcurrencyDefinition] = field(default_factory=list)
    rate_limits: list[RateDefinition] = field(default_factory=list)
    labels: list[LabelDefinition] = field(default_factory=list)


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
    concurrency: list[ConcurrencyDefinition] = field(default_factory=list)
    admission_timeout_ms: int = 0
    """How long a run may wait for its places in concurrency groups."""

    def actions(self) -> list[str]:
        """What a worker that registers this workflow can run: `workflow:step`, one for each step."""
        return [f"{self.name}:{step.name}" for step in self.steps]
