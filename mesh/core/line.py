"""Waiting steps in the order in which they are served: by priority, then by fair turn, then by age.

Turns are those of start-time fair queueing (Goyal, Vin and Cheng, 1996): each key that has steps waiting has a turn, in virtual
time; serving one of its steps moves it one share on, and the virtual time is the turn of whatever was served last. So a key with a
long line costs another key one of its own steps a round, however long it is, and each operation costs O(log n). A step without a
key is a key of its own: its turn is when it comes. So that a stream of those does not hold keys up for ever, serving what has its
turn already moves the time on as well, by one share in as many services as there are rivals.

Rule: turns order what waits, and nothing else follows from them. They are no part of the state: whoever loads an image
gives new ones, and only the leader's count.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush, heapreplace
from typing import TYPE_CHECKING, Any

from mesh.core.step import READY, Step

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

SHARE = 1_000_000
"""Virtual time that a step of a key of weight 1 costs."""
AGED_MS = 10_000
"""What a level of priority is worth: so long an older step lets a younger one pass that is one level more urgent."""
KEYS_SWEPT = 1_024

FairKey = tuple[str, str]
"""(limit, key)."""
Entry = tuple[int, int, int, Step]
"""(turn, order of the run's start, order of the push, step): a step, and its key's turn."""
Head = tuple[int, Step]
"""(priority, step): what is served next of those of one priority."""


class Turns:
    """Whose turn it is.

    Attributes:
        time: virtual: the turn of what was served last.
    """

    __slots__ = ("_next", "_sweep_at", "time")

    def __init__(self) -> None:
        self.time = 0
        self._next: dict[FairKey, int] = {}
        """When keys have their next turn that had one lately, and don't wait for it."""
        self._sweep_at = KEYS_SWEPT

    def of(self, key: FairKey | None) -> int:
        """When the key has its next turn; now, if there is no key."""
        return self.time if key is None else max(self._next.get(key, 0), self.time)

    def keep(self, key: FairKey, turn: int) -> None:
        """Remember when a key has its next turn."""
        if turn <= self.time:
            self._next.pop(key, None)
            return
        if len(self._next) >= self._sweep_at:
            self._next = {other: at for other, at in self._next.items() if at > self.time}
            self._sweep_at = max(KEYS_SWEPT, 2 * len(self._next))
        self._next[key] = turn

    def take(self, turn: int, rivals: int) -> None:
        """Whoever had this turn was served, out of so many."""
        if turn > self.time:
            self.time = turn
        elif rivals > 1:
            self.time += SHARE // rivals


class _Key:
    """The waiting steps of one key."""

    __slots__ = ("heap", "key", "turn", "weight")

    def __init__(self, key: FairKey, turn: int, weight: int) -> None:
        self.key, self.turn, self.weight = key, turn, weight
        self.heap: list[tuple[int, int, Step]] = []
        """(order of the run's start, order of the push, step)."""


class _Level:
    """The waiting steps of one priority."""

    __slots__ = ("_keys", "_weights", "alone", "order", "turns")

    def __init__(self) -> None:
        self.turns = Turns()
        self.alone: list[Entry] = []
        """Steps without a key."""
        self._keys: dict[FairKey, _Key] = {}
        self.order: list[tuple[int, int, int, _Key]] = []
        """(turn, order of the start and of the push of what was first when the key took its turn, key)."""
        self._weights = 0

    def push(self, step: Step, fair_key: FairKey) -> None:
        """Add a step that has a key."""
        key = self._keys.get(fair_key)
        if key is None:
            key = self._keys[fair_key] = _Key(fair_key, self.turns.of(fair_key), step.run.weight)
            self._weights += key.weight
            heappush(self.order, (key.turn, step.run.number, step.mark, key))
        heappush(key.heap, (step.run.number, step.mark, step))

    def head(self) -> Entry | None:
        """What is served next."""
        alone: Entry | None = head(self.alone)
        while self.order:
            key = self.order[0][3]
            first = head(key.heap)
            if first is not None:
                of_key: Entry = (key.turn, *first)
                return of_key if alone is None or of_key < alone else alone
            heappop(self.order)
            self._drop(key)
        return alone

    def served(self, step: Step) -> None:
        """The step has got its place."""
        alone = self.alone
        if alone and alone[0][3] is step:
            if self._keys:
                self.turns.take(alone[0][0], self._weights + len(alone))
            heappop(alone)
        elif self.order and (key := self.order[0][3]).heap[0][2] is step:
            self.turns.take(key.turn, self._weights + len(alone))
            heappop(key.heap)
            key.turn += SHARE // step.run.weight
            following = head(key.heap)
            if following is not None:
                heapreplace(self.order, (key.turn, following[0], following[1], key))
            else:
                heappop(self.order)
                self._drop(key)

    def _drop(self, key: _Key) -> None:
        del self._keys[key.key]
        self._weights -= key.weight
        self.turns.keep(key.key, key.turn)

    def waiting(self) -> Iterator[Step]:
        """Every step that waits here."""
        yield from (entry[3] for entry in self.alone if counts(entry))
        for key in self._keys.values():
            yield from (entry[2] for entry in key.heap if counts(entry))


class Line:
    """Steps that wait for the same places."""

    __slots__ = ("_levels",)

    def __init__(self) -> None:
        self._levels: dict[int, _Level] = {}

    def push(self, step: Step) -> None:
        """Add a ready step; its mark tells this entry from older ones of the same step."""
        run = step.run
        priority = run.flow.steps[step.index].priority or run.priority
        level = self._levels.get(priority)
        if level is None:
            level = self._levels[priority] = _Level()
        if run.fair_key is None:
            heappush(level.alone, (level.turns.time, run.number, step.mark, step))
        else:
            level.push(step, run.fair_key)

    def extend(self, steps: Iterable[Step]) -> None:
        """Add many, in one pass."""
        for step in steps:
            if step.run.fair_key is not None:
                self.push(step)
                continue
            level = self._levels.setdefault(step.priority, _Level())
            level.alone.append((level.turns.time, step.run.number, step.mark, step))
        for level in self._levels.values():
            heapify(level.alone)

    def heads(self) -> list[Head]:
        """The step of each priority that is served next."""
        found = []
        for priority, level in list(self._levels.items()):
            entry = level.head()
            if entry is not None:
                found.append((priority, entry[3]))
            elif len(self._levels) > 1:
                del self._levels[priority]
        return found

    def first(self) -> Step | None:
        """The step that is served next, None when none waits."""
        if len(self._levels) == 1:  # as a rule
            for level in self._levels.values():
                entry = level.head() if level.order else head(level.alone)
                return entry[3] if entry is not None else None
        heads = self.heads()
        return min(heads, key=urgency)[1] if heads else None

    def served(self, step: Step) -> None:
        """The step has got its place."""
        level = self._levels.get(step.priority)
        if level is not None:
            level.served(step)

    def __bool__(self) -> bool:
        """Whether a step waits here."""
        return any(level.head() is not None for level in self._levels.values())

    def waiting(self) -> Iterator[Step]:
        """Every step that waits here, in no order of use."""
        for level in self._levels.values():
            yield from level.waiting()


def urgency(head: Head) -> tuple[int, int]:
    """Sorts heads of different priorities: each level is worth some time of waiting."""
    return urgent_at(head[1].ready_at, head[0]), -head[0]


def urgent_at(since: int, priority: int) -> int:
    """Sorts what waits by how urgent it is: by age, a level of priority being worth some of it."""
    return since - priority * AGED_MS


def counts(entry: tuple[Any, ...]) -> bool:
    """Whether the entry is the step's last one, and the step still waits."""
    step: Step = entry[-1]
    return step.state is READY and step.mark == entry[-2] and not step.parked


def head(heap: list[Any]) -> Any:
    """The first entry that still waits; those in front of it that don't are dropped."""
    while heap:
        entry = heap[0]
        step = entry[-1]
        if step.state is READY and step.mark == entry[-2] and not step.parked:
            return entry
        heappop(heap)
    return None
