"""Steps that wait until a rate lets their units pass: by priority, turn and age, in one line for each rate.

Rule: at a time no more are let go than the rate would let pass; so however many wait, little is to do when a time has come.
"""

from __future__ import annotations

from mesh.core.line import FairKey, Line
from mesh.core.step import READY, Step

POLL_MS = 100
"""How often those behind are let go while the steps that may go out find no slot: perhaps they do with another one."""


class _Waiting:
    """A step in the line of a rate."""

    __slots__ = ("_waits", "age", "fair_key", "mark", "priority", "ready_at", "step", "weight")

    def __init__(self, step: Step, mark: int) -> None:
        self.step, self._waits, self.mark = step, step.waits, mark
        self.age, self.priority, self.ready_at = step.run.number, step.priority, step.ready_at
        self.fair_key: FairKey | None = step.fair_key
        self.weight = step.weight

    @property
    def is_waiting(self) -> bool:
        """Whether the step waits here; the line of another rate it can only be in after this one has let it go."""
        return self.step.parked and self.step.state is READY and self.step.waits == self._waits


class Parked:
    """Those that wait for one rate."""

    __slots__ = ("_called", "_line", "_marks")

    def __init__(self) -> None:
        self._line: Line[_Waiting] = Line()
        self._marks = 0
        self._called: list[Step] = []
        """Those that were let go."""

    def push(self, step: Step) -> None:
        """The step waits here."""
        step.parked, step.due = True, False
        self._marks += 1
        self._line.push(_Waiting(step, self._marks))

    def first(self) -> Step | None:
        """The one that is let go next."""
        waiting = self._line.first()
        return waiting.step if waiting is not None else None

    def call(self, step: Step) -> None:
        """Let the first one go: it waits for a slot now."""
        waiting = self._line.first()
        assert waiting is not None, "only the first one is let go"
        assert waiting.step is step, "only the first one is let go"
        self._line.served(waiting)
        step.parked, step.due = False, True
        self._called.append(step)

    def forget(self) -> None:
        """Those that were let go before and found no slot keep nobody waiting any more."""
        self._called = []

    @property
    def keeps_waiting(self) -> bool:
        """Whether one that was let go last still waits for a slot: it will take its units when it finds one."""
        return any(step.due and step.state is READY and not step.parked for step in self._called)
