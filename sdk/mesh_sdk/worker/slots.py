"""The worker's own count of its slots. It lives as long as the process: a thread that outlives its incarnation keeps its slots."""

from __future__ import annotations

from collections.abc import Callable


def _nobody_waits() -> None:
    """What happens with a free slot while no incarnation is up."""


class Slots:
    """`total` slots. A step takes one or, as it declares, several of them, all at once.

    Attributes:
        total: how many there are.
        used: how many are taken, by whichever incarnation.
        on_free: called after each `give`, so that whoever waits can take what is free.
    """

    __slots__ = ("on_free", "total", "used")

    def __init__(self, total: int) -> None:
        self.total = total
        self.used = 0
        self.on_free: Callable[[], None] = _nobody_waits

    @property
    def free(self) -> int:
        """How many slots could be taken now."""
        return self.total - self.used

    def take(self, count: int) -> None:
        """Occupy slots. The caller has seen that they are free."""
        assert self.used + count <= self.total, f"{count} more than {self.used} of {self.total} slots can't be taken"
        self.used += count

    def give(self, count: int) -> None:
        """Free slots."""
        assert self.used >= count, f"{count} slots can't be given back, {self.used} are taken"
        self.used -= count
        self.on_free()
