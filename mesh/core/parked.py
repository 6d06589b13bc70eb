"""Steps that wait until a rate lets their units pass: by priority, turn and age, in one line for each rate.

Rules: at a time no more are let go than the rate would let pass; so however many wait, little is to do when a time has come. And
a step that needs several rates keeps what it has of slower ones while it waits for a faster one, and of faster ones nothing: so
those cost a slow rate little time, and no two steps can wait for what the other one keeps.
"""

from __future__ import annotations

from mesh.core.line import FairKey, Line
from mesh.core.step import READY, Step

POLL_MS = 100
"""How often those behind are let go while the steps that may go out find no slot: perhaps they do with another one."""
FRONT = 1_000_000_000
"""Levels of priority that those have more who keep units of other rates: nobody else goes before them."""


class _Waiting:
    """A step in the line of a rate."""

    __slots__ = ("_waits", "age", "fair_key", "mark", "priority", "ready_at", "step", "weight")

    def __init__(self, step: Step, mark: int, in_front: bool) -> None:
        self.step, self._waits, self.mark = step, step.waits, mark
        self.age, self.ready_at = step.run.number, step.ready_at
        self.priority = step.priority + FRONT if in_front else step.priority
        self.fair_key: FairKey | None = None if in_front else step.fair_key
        self.weight = step.weight

    @property
    def is_waiting(self) -> bool:
        """Whether the step waits here; the line of another rate it can only be in after this one has let it go."""
        return self.step.parked and self.step.state is READY and self.step.waits == self._waits


class Parked:
    """Those that wait for one rate, and those that keep units of it while they wait for another one.

    Attributes:
        pace: how slow the rate is, by the first one that came here: it must not change while somebody is here.
        units: that are kept.
        asked: who was the first one when it was last found out when to ask again.
    """

    __slots__ = ("_called", "_keepers", "_line", "_marks", "asked", "pace", "units")

    def __init__(self, pace: tuple[int, str]) -> None:
        self.pace = pace
        self._line: Line[_Waiting] = Line()
        self._marks = 0
        self._called: list[Step] = []
        """Those that were let go."""
        self._keepers: dict[Step, int] = {}
        self.units = 0
        self.asked: Step | None = None

    def push(self, step: Step, *, in_front: bool) -> None:
        """The step waits here."""
        step.parked = True
        step.due = tuple(key for key in step.due if key != self.pace[1])
        self._marks += 1
        self._line.push(_Waiting(step, self._marks, in_front))

    def extend(self, steps: list[Step]) -> None:
        """All of them wait here, in one pass."""
        for step in steps:
            step.parked = True
        self._line.extend(_Waiting(step, mark, False) for mark, step in enumerate(steps, self._marks + 1))
        self._marks += len(steps)

    def first(self) -> Step | None:
        """The one that is let go next."""
        waiting = self._line.first()
        return waiting.step if waiting is not None else None

    def call(self, step: Step) -> None:
        """Let the first one go: it waits for a slot now, or for another rate."""
        waiting = self._line.first()
        assert waiting is not None, "only the first one is let go"
        assert waiting.step is step, "only the first one is let go"
        self._line.served(waiting)
        step.parked = False
        step.due = (*step.due, self.pace[1])
        self._called.append(step)

    def forget(self) -> None:
        """Those that were let go before and found no slot keep nobody waiting any more."""
        self._called = []
        for step in [step for step in self._keepers if not step.parked]:
            self.let_pass(step)

    @property
    def keeps_waiting(self) -> bool:
        """Whether one that was let go last still waits for a slot: it will take its units when it finds one."""
        return any(step.due and step.state is READY and not step.parked for step in self._called)

    # ---- what is kept ---------------------------------------------------------------------------------------------------

    def keep(self, step: Step, units: int) -> None:
        """These units pass with the step, and with nobody else, when another rate lets it go."""
        if step not in self._keepers:
            self._keepers[step] = units
            self.units += units

    def let_pass(self, step: Step) -> bool:
        """The step keeps nothing here. Whether it did."""
        units = self._keepers.pop(step, None)
        self.units -= units or 0
        return units is not None

    def keeps(self, step: Step) -> bool:
        return step in self._keepers

    def ahead_of(self, step: Step) -> int:
        """Units that are kept from the step."""
        return 0 if step in self._keepers else self.units

    @property
    def empty(self) -> bool:
        """Whether nobody waits here or keeps anything."""
        return not self._keepers and self.first() is None
