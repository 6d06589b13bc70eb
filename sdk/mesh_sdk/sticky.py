"""How the steps of one run are kept together on one worker."""

from __future__ import annotations

from enum import StrEnum


class StickyStrategy(StrEnum):
    """Whether all steps of a run go to the same worker."""

    SOFT = "SOFT"
    """To the run's worker; to another one if that is gone, draining, or full for longer than `sticky_timeout`."""
    HARD = "HARD"
    """To the run's worker, ever; while it is away the steps wait."""
