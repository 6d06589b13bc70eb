"""Steps that wait until a rate lets their units pass: by urgency, in one line for each rate.

Rule: at a time no more are let go than the rate would let pass; so however many wait, little is to do when a time has come.
"""

from __future__ import annotations

from heapq import heappop, heappush

from mesh.core.line import urgent_at
from mesh.core.step import READY, Step

POLL_MS = 100
"""How often those behind are let go while the steps that may go out find no slot: perhaps they do with another one."""


class Parked:
    """Those that wait for one rate."""

    __slots__ = ("_called", "_heap")

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, int, int, Step]] = []
        """(urgency, order of the run's start, step, how often it was ready, step)."""
        self._called: list[Step] = []
        """Those that were let go."""

    def push(self, step: Step) -> None:
        """The step waits here."""
        step.parked, step.due = True, False
        heappush(self._heap, (urgent_at(step.ready_at, step.priority), step.run.number, step.index, step.waits, step))

    def first(self) -> Step | None:
        """The one that is let go next."""
        while self._heap:
            *_, waits, step = self._heap[0]
            if step.parked and step.state is READY and step.waits == waits:
                return step
            heappop(self._heap)
        return None

    def call(self, step: Step) -> None:
        """Let the first one go: it waits for a slot now."""
        step.parked, step.due = False, True
        heappop(self._heap)
        self._called.append(step)

    def forget(self) -> None:
        """Those that were let go before and found no slot keep nobody waiting any more."""
        self._called = []

    @property
    def keeps_waiting(self) -> bool:
        """Whether one that was let go last still waits for a slot: it will take its units when it finds one."""
        return any(step.due and step.state is READY and not step.parked for step in self._called)
