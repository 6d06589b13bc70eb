"""The keys of a run, as they are journaled and kept in images.

Rule: taken once, so that nobody has to take them again in the same way.
"""

from __future__ import annotations

from msgspec import Struct


class StepKeys(Struct, array_like=True, gc=False):
    """What was taken from a run's input for one step's limits."""

    step: int
    groups: list[str]
    """A key for each of its concurrency limits."""
    rates: list[tuple[str, int, int, int]]
    """(key, limit, milliseconds, units) of each of its rate limits."""


class RunKeys(Struct, array_like=True, gc=False):
    """What was taken from a run's input for its limits."""

    groups: list[str]
    """A key for each of the workflow's concurrency limits."""
    steps: list[StepKeys]
    """Of those steps that have limits, in the order of their indexes."""
