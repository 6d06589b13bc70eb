"""How many runs of a kind may go on at once, and how many a minute."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


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


@dataclass(frozen=True, slots=True)
class Concurrency:
    """At most `max_runs` runs at once for each value of `key` (a dotted path such as `input.user_id`)."""

    key: str
    max_runs: int = 1
    limit_strategy: ConcurrencyLimitStrategy = ConcurrencyLimitStrategy.GROUP_ROUND_ROBIN


@dataclass(frozen=True, slots=True)
class RateLimit:
    """At most `limit` units per `per` for each value of `key`; one step uses `units` of them."""

    key: str
    limit: int
    per: str = "minute"
    units: int = 1
