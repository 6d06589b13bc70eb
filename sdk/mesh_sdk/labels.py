"""Which workers a step wants, by their labels."""

from __future__ import annotations

from dataclasses import dataclass

Label = str | int | float


@dataclass(frozen=True, slots=True)
class WorkerLabel:
    """What a step wants of a worker's label.

    Attributes:
        value: what the label is compared with.
        required: only workers that have it; else they are only preferred, by `weight`.
        weight: how much a worker that has it is preferred.
        comparator: one of `== != < <= > >=`.
    """

    value: Label
    required: bool = False
    weight: int = 100
    comparator: str = "=="
