"""What a worker tells whoever counts. `observe.metrics.WorkerMetrics` is one; without it nothing is counted."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol


class Observer(Protocol):
    """Plain calls from the worker's event loop; none may block or raise."""

    def registered(self, pool: str, actions: Iterable[str]) -> None:
        """The leader has journaled the registration."""
        ...

    def step_started(self, action: str) -> None:
        """An attempt begins to run."""
        ...

    def step_finished(self, action: str, outcome: str, seconds: float) -> None:
        """An attempt has ended: `outcome` is "succeeded" or the kind of its failure."""
        ...

    def steps_returned(self, reason: str, count: int = 1) -> None:
        """Attempts were handed back without having been run."""
        ...

    def loop_lag(self, seconds: float) -> None:
        """One sample of how late the event loop is."""
        ...

    def reconnected(self) -> None:
        """The connection to NATS is back."""
        ...

    def dead_letter(self, source: str = "lanes") -> None:
        """Something unreadable came and was set aside."""
        ...


class Nobody:
    """Counts nothing."""

    def registered(self, pool: str, actions: Iterable[str]) -> None: ...
    def step_started(self, action: str) -> None: ...
    def step_finished(self, action: str, outcome: str, seconds: float) -> None: ...
    def steps_returned(self, reason: str, count: int = 1) -> None: ...
    def loop_lag(self, seconds: float) -> None: ...
    def reconnected(self) -> None: ...
    def dead_letter(self, source: str = "lanes") -> None: ...
