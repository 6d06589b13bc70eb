"""The worker's own count of its slots. It lives as long as the process: a thread that outlives its incarnation keeps its slot."""

from __future__ import annotations

from collections.abc import Callable


def _nobody_waits() -> None:
    """What happens with a free slot while no incarnation is up."""


class Slots:
    """Room for `total` steps at once.

    Attributes:
        total: how many there are.
        used: how many are taken, by whichever incarnation.
        on_free: called after each `give`, so that whoever waits can take the slot.
    """

    __slots__ = ("on_free", "total", "used")

    def __init__(self, total: int) -> None:
        self.total = total
        self.used = 0
        self.on_free: Callable[[], None] = _nobody_waits

    @property
    def free(self) -> int:
        """How many steps could start now."""
        return self.total - self.used

    def take(self) -> None:
        """Occupy a slot. The caller has seen that one is free."""
        assert self.used < self.total, f"all {self.total} slots are taken"
        self.used += 1

    def give(self) -> None:
        """Free a slot."""
        assert self.used > 0, "no slot is taken"
        self.used -= 1
        self.on_free()
