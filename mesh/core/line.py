"""Whoever waits for the same places, in the order in which they are served: by priority, then by fair turn, then by age.

Steps wait so for slots, and runs and steps for a place in a group.

Turns are those of start-time fair queueing (Goyal, Vin and Cheng, 1996): each key that has steps waiting has a turn, in virtual
time; serving one of its steps moves it one share on, and the virtual time is the turn of whatever was served last. So a key with a
long line costs another key one of its own steps a round, however long it is, and each operation costs O(log n). A step without a
key is a key of its own: its turn is when it comes. So that a stream of those does not hold keys up for ever, serving what has its
turn already moves the time on as well, by one share in as many services as there are rivals.

Entries of those who wait no more go when they come to the front. Behind somebody who stays there, as on a follower, which does not
know whom its leader has parked, they would be kept for ever: so a line is swept when more than half of it are such entries.

Rule: turns order what waits, and nothing else follows from them. They are no part of the state: whoever loads an image
gives new ones, and only the leader's count.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush, heapreplace
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

SHARE = 1_000_000
"""Virtual time that a step of a key of weight 1 costs."""
AGED_MS = 10_000
"""What a level of priority is worth: so long an older step lets a younger one pass that is one level more urgent."""
KEYS_SWEPT = 1_024
ENTRIES_SWEPT = 64
"""So many entries of those who wait no more may stay, beside as many as there are of those who wait."""

FairKey = tuple[str, str]
"""(limit, key)."""


class Waiter(Protocol):
    """What can wait in a line."""

    mark: int
    """Tells the entry that counts from older ones of the same waiter."""
    ready_at: int
    """Since when it waits, core time."""

    @property
    def fair_key(self) -> FairKey | None:
        """Whose turn it takes; None: its own."""

    @property
    def weight(self) -> int:
        """Turns of that key in a round."""

    @property
    def age(self) -> int:
        """Less than that of whoever came later."""

    @property
    def priority(self) -> int:
        """The higher, the sooner it is served."""

    @property
    def is_waiting(self) -> bool:
        """Whether it still waits in the line that it was pushed to last."""


W = TypeVar("W", bound=Waiter)

Entry = tuple[int, int, int, W]
"""(turn of its key, age, mark, waiter)."""
Head = tuple[int, W]
"""(priority, waiter): what is served next of those of one priority."""
Since = tuple[int, int, W]
"""(since when it waits, mark, waiter)."""


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

    def begin_anew(self) -> None:
        """Nobody waits: whoever comes next is before nobody and behind nobody."""
        self.time = 0
        self._next.clear()
        self._sweep_at = KEYS_SWEPT


class _Key(Generic[W]):
    """Those of one key that wait."""

    __slots__ = ("heap", "key", "turn", "weight")

    def __init__(self, key: FairKey, turn: int, weight: int) -> None:
        self.key, self.turn, self.weight = key, turn, weight
        self.heap: list[tuple[int, int, W]] = []
        """(age, mark, waiter)."""


class _Level(Generic[W]):
    """Those of one priority that wait."""

    __slots__ = ("_ages", "_keyed", "_keys", "_left", "_sweep_at", "_weights", "alone", "order", "turns")

    def __init__(self) -> None:
        self.turns = Turns()
        self.alone: list[Entry[W]] = []
        """Those without a key."""
        self._keys: dict[FairKey, _Key[W]] = {}
        self.order: list[tuple[int, int, int, _Key[W]]] = []
        """(turn, age and mark of what was first when the key took its turn, key)."""
        self._weights = 0
        self._keyed = 0
        """Entries of those with a key."""
        self._left = 0
        """Those who have left from elsewhere than the front since the last sweep."""
        self._sweep_at = ENTRIES_SWEPT
        self._ages: list[Since[W]] | None = None
        """Who waits longest comes first. None until somebody asks, which only lines of several priorities do."""

    def push(self, waiter: W, fair_key: FairKey | None) -> None:
        """Add one who waits from now on."""
        if fair_key is None:
            heappush(self.alone, (self.turns.time, waiter.age, waiter.mark, waiter))
        else:
            key = self._keys.get(fair_key)
            if key is None:
                key = self._keys[fair_key] = _Key(fair_key, self.turns.of(fair_key), waiter.weight)
                self._weights += key.weight
                heappush(self.order, (key.turn, waiter.age, waiter.mark, key))
            heappush(key.heap, (waiter.age, waiter.mark, waiter))
            self._keyed += 1
        if self._ages is not None:
            heappush(self._ages, (waiter.ready_at, waiter.mark, waiter))
            if len(self._ages) > 2 * len(self) + ENTRIES_SWEPT:
                self._ages = None
        if len(self.alone) + self._keyed > self._sweep_at:
            self.sweep()

    def add(self, waiter: W) -> None:
        """Add one without a key, as many more are: whoever does so restores the order of `alone` afterwards."""
        self.alone.append((self.turns.time, waiter.age, waiter.mark, waiter))
        self._ages = None

    def head(self) -> Entry[W] | None:
        """What is served next."""
        alone: Entry[W] | None = head(self.alone)
        while self.order:
            key = self.order[0][3]
            first = key.heap[0]
            if not counts(first):
                self._forget(key)
                continue
            of_key: Entry[W] = (key.turn, *first)
            return of_key if alone is None or of_key < alone else alone
        return alone

    def _forget(self, key: _Key[W]) -> None:
        """Those of the key whose turn it is that wait no more don't, up to one who does."""
        entries = len(key.heap)
        following = head(key.heap)
        self._keyed -= entries - len(key.heap)
        if following is None:
            heappop(self.order)
            self._drop(key)

    def since(self) -> int:
        """Since when the one that has waited longest waits; somebody does."""
        if self._ages is None:
            self._ages = [(waiter.ready_at, waiter.mark, waiter) for waiter in self.waiting()]
            heapify(self._ages)
        oldest: Since[W] = head(self._ages)
        return oldest[0]

    def served(self, waiter: W) -> None:
        """It has got its place."""
        alone = self.alone
        if alone and alone[0][3] is waiter:
            if self._keys:
                self.turns.take(alone[0][0], self._weights + len(alone))
            heappop(alone)
        elif self.order and (key := self.order[0][3]).heap[0][2] is waiter:
            self.turns.take(key.turn, self._weights + len(alone))
            entries = len(key.heap)
            heappop(key.heap)
            key.turn += SHARE // waiter.weight
            following = head(key.heap)
            self._keyed -= entries - len(key.heap)
            if following is not None:
                heapreplace(self.order, (key.turn, following[0], following[1], key))
            else:
                heappop(self.order)
                self._drop(key)
        else:
            self.left()

    def left(self) -> None:
        """One waits no more that was not served, or not from the front."""
        self._left += 1
        if 2 * self._left > len(self) + ENTRIES_SWEPT:
            self.sweep()

    def _drop(self, key: _Key[W]) -> None:
        """Nobody of this key waits any more. What it has had counts as long as anybody else waits."""
        del self._keys[key.key]
        self._weights -= key.weight
        if self._keys or self.alone:
            self.turns.keep(key.key, key.turn)
        else:
            self.turns.begin_anew()

    def waiting(self) -> Iterator[W]:
        """Everybody who waits here."""
        yield from (entry[3] for entry in self.alone if counts(entry))
        for key in self._keys.values():
            yield from (entry[2] for entry in key.heap if counts(entry))

    def sweep(self) -> None:
        """Drop the entries of those who wait no more."""
        self.alone = swept(self.alone)
        for key in list(self._keys.values()):
            key.heap = swept(key.heap)
            if not key.heap:
                self._drop(key)
        if len(self.order) > len(self._keys):
            self.order = [entry for entry in self.order if entry[3].heap]
            heapify(self.order)
        self._keyed = sum(len(key.heap) for key in self._keys.values())
        self._left, self._sweep_at = 0, 2 * len(self) + ENTRIES_SWEPT

    def begin_anew(self) -> None:
        """Whoever waits has the first turn."""
        self.sweep()
        self.turns = Turns()
        self.alone = [(0, *entry[1:]) for entry in self.alone]
        heapify(self.alone)
        for key in self._keys.values():
            key.turn = 0
        self.order = [(0, *key.heap[0][:2], key) for key in self._keys.values()]
        heapify(self.order)

    def __len__(self) -> int:
        return len(self.alone) + self._keyed


class Line(Generic[W]):
    """Those who wait for the same places."""

    __slots__ = ("_levels",)

    def __init__(self) -> None:
        self._levels: dict[int, _Level[W]] = {}

    def push(self, waiter: W) -> None:
        """Add one who waits from now on; its mark tells this entry from older ones of the same waiter."""
        priority, key = waiter.priority, waiter.fair_key
        level = self._levels.get(priority)
        if level is None:
            level = self._levels[priority] = _Level()
        level.push(waiter, key)

    def extend(self, waiters: Iterable[W]) -> None:
        """Add many, in one pass."""
        for waiter in waiters:
            if waiter.fair_key is not None:
                self.push(waiter)
                continue
            level = self._levels.setdefault(waiter.priority, _Level())
            level.add(waiter)
        for level in self._levels.values():
            heapify(level.alone)

    def heads(self) -> list[Head[W]]:
        """Of each priority, who is served next."""
        found = []
        for priority, level in list(self._levels.items()):
            entry = level.head()
            if entry is not None:
                found.append((priority, entry[3]))
            elif len(self._levels) > 1:
                del self._levels[priority]
        return found

    def begin_anew(self) -> None:
        """Begin turns anew: those that a follower has seen pass are not those of its leader."""
        for level in self._levels.values():
            level.begin_anew()

    def first(self) -> W | None:
        """Who is served next, None when nobody waits."""
        if len(self._levels) == 1:  # as a rule
            for level in self._levels.values():
                entry = level.head() if level.order else head(level.alone)
                return entry[3] if entry is not None else None
        heads = self.heads()
        if len(heads) > 1:
            return min(heads, key=self._urgency)[1]
        return heads[0][1] if heads else None

    def _urgency(self, head: Head[W]) -> tuple[int, int]:
        return urgent_at(self._levels[head[0]].since(), head[0]), -head[0]

    def since(self, priority: int) -> int | None:
        """Since when the one waits that has waited longest of those of a priority; None when nobody of it does."""
        level = self._levels.get(priority)
        return level.since() if level is not None and level.head() is not None else None

    def served(self, waiter: W) -> None:
        """It has got its place."""
        level = self._levels.get(waiter.priority)
        if level is not None:
            level.served(waiter)

    def left(self, waiter: W) -> None:
        """It waits no more, and has got nothing."""
        level = self._levels.get(waiter.priority)
        if level is not None:
            level.left()

    def sweep(self) -> None:
        """Drop the entries of those who wait no more."""
        for level in self._levels.values():
            level.sweep()

    def __len__(self) -> int:
        """How many entries there are, of those who wait and of those who do no more."""
        return sum(map(len, self._levels.values()))

    def __bool__(self) -> bool:
        """Whether anybody waits here."""
        return any(level.head() is not None for level in self._levels.values())

    def waiting(self) -> Iterator[W]:
        """Everybody who waits here, in no order of use."""
        for level in self._levels.values():
            yield from level.waiting()


def urgent_at(since: int, priority: int) -> int:
    """Sorts priorities by how urgent they are: by how long the oldest of each waits, a level being worth some of that."""
    return since - priority * AGED_MS


def counts(entry: tuple[Any, ...]) -> bool:
    """Whether the entry is its waiter's last one, and that one still waits."""
    waiter: Waiter = entry[-1]
    return waiter.mark == entry[-2] and waiter.is_waiting


def head(heap: list[Any]) -> Any:
    """The first entry that still waits; those in front of it that don't are dropped."""
    while heap:
        entry = heap[0]
        waiter = entry[-1]
        if waiter.mark == entry[-2] and waiter.is_waiting:
            return entry
        heappop(heap)
    return None


def swept(heap: list[Any]) -> list[Any]:
    """A heap of those entries that still wait."""
    kept = [entry for entry in heap if counts(entry)]
    if len(kept) == len(heap):
        return heap
    heapify(kept)
    return kept
