"""How many runs of a kind may go on at once, and how many a minute: what users write. `concurrency` and `rates` read it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

from mesh_sdk.durations import Duration


class ConcurrencyLimitStrategy(StrEnum):
    """What happens to runs of one key beyond `max_runs`."""

    GROUP_ROUND_ROBIN = "GROUP_ROUND_ROBIN"
    """They wait, and waiting keys are served in turn."""
    CANCEL_IN_PROGRESS = "CANCEL_IN_PROGRESS"
    """The newest wins, running ones are cancelled."""
    CANCEL_NEWEST = "CANCEL_NEWEST"
    """The newest is cancelled."""
    QUEUE_NEWEST = "QUEUE_NEWEST"
    """Only the newest waits per key."""


LimitStrategy = ConcurrencyLimitStrategy | Literal["GROUP_ROUND_ROBIN", "CANCEL_IN_PROGRESS", "CANCEL_NEWEST", "QUEUE_NEWEST"]
"""A strategy, or its exact name."""


@dataclass(frozen=True, slots=True)
class Concurrency:
    """At most `max_runs` runs (of a step: attempts) at once for each value of `key`.

    Attributes:
        key: a dotted path such as `input.user_id` or `metadata.tenant`; anything else is an expression in CEL, which the
            scheduler evaluates with the `[cel]` extra.
        max_runs: how many, at least 1.
        limit_strategy: what happens to those beyond.
        scope: limits of one scope are one limit, whatever workflow or step declares them; "": of this one alone.
        weights: turns of a key in a round of GROUP_ROUND_ROBIN, 1 to 1,000, where that is not 1.
    """

    key: str
    max_runs: int = 1
    limit_strategy: LimitStrategy = ConcurrencyLimitStrategy.GROUP_ROUND_ROBIN
    scope: str = ""
    weights: Mapping[str, int] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class RateLimit:
    """At most `limit` units in a time for each value of `key`, over all workers and all steps that name the same key.

    A fifth of the limit (at least 1, at least a step's own units) may pass in one burst.

    Attributes:
        key: a name, or a dotted path such as `input.user_id`.
        limit: how many units, or the path of a number in the input.
        per: `second`, `minute`, `hour`, `day` or `week`, or a duration such as `"10s"`.
        units: what one attempt takes of them, or the path of a number in the input.
    """

    key: str
    limit: int | str
    per: Duration = "minute"
    units: int | str = 1
