"""`context.local`: what this worker keeps for the sticky runs that are bound to it.

Rule: an entry for every sticky run from its first attempt here on, at most `runs_max` of them. When there are more, the entry
goes that no running step has used for the longest; while running steps use more than `runs_max`, more are kept. An entry that
is gone from here stays what it was to the steps that hold it. Only the event loop changes any of it.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from mesh_sdk.generations import Generations
from mesh_sdk.worker.arrival import Arrival
from mesh_sdk.worker.sticky import StickyEvents

RUNS_MAX = 1_000


class Entry:
    """What is kept for one run.

    Attributes:
        run: its id.
        workflow: its name.
        moves: how often the run had moved when the entry was made.
        values: what its steps see as `context.local`.
        users: how many running steps hold it.
        arrival: the call of `on_moved` that steps wait for; None when there is none.
    """

    __slots__ = ("arrival", "moves", "run", "users", "values", "workflow")

    def __init__(self, run: str, workflow: str, moves: int) -> None:
        self.run = run
        self.workflow = workflow
        self.moves = moves
        self.values: dict[str, Any] = {}
        self.users = 0
        self.arrival: Arrival | None = None


class Locals:
    """The entries of one worker, by run.

    Args:
        events: told of evictions, and by others of what they find here.
        runs_max: how many to keep.
    """

    def __init__(self, events: StickyEvents, runs_max: int = RUNS_MAX) -> None:
        self.events = events
        self._runs_max = runs_max
        self._entries: dict[str, Entry] = {}
        self._idle: OrderedDict[str, Entry] = OrderedDict()
        """Those that no step holds, the one used last at the end."""
        self._lost: Generations[bool] = Generations(runs_max)

    def __len__(self) -> int:
        return len(self._entries)

    def find(self, run: str) -> Entry | None:
        """The run's entry; None when there is none."""
        return self._entries.get(run)

    def make(self, run: str, workflow: str, moves: int = 0) -> Entry:
        """Give a run a new entry, and make room for it."""
        self._idle.pop(run, None)
        entry = self._entries[run] = Entry(run, workflow, moves)
        self._shrink()
        return entry

    def was_here(self, run: str) -> bool:
        """Whether the run had an entry lately and lost it without having gone elsewhere."""
        return bool(self._lost.get(run))

    def hold(self, entry: Entry) -> None:
        """A step that uses the entry begins."""
        entry.users += 1
        self._idle.pop(entry.run, None)

    def leave(self, entry: Entry) -> None:
        """A step that used it has ended."""
        entry.users -= 1
        if not entry.users and self._entries.get(entry.run) is entry:
            self._idle[entry.run] = entry
            self._shrink()

    def lose(self, run: str) -> None:
        """An attempt of the run did not succeed here: what it left behind can't be trusted."""
        if self._remove(run):
            self._lost.put(run, True)

    def forget(self, run: str) -> None:
        """The run has ended, or belongs to another worker."""
        self._remove(run)
        if self.was_here(run):
            self._lost.put(run, False)

    def clear(self) -> None:
        """Forget every run: the mesh may have bound them to others by now."""
        self._entries.clear()
        self._idle.clear()
        self._lost = Generations(self._runs_max)

    def _remove(self, run: str) -> bool:
        self._idle.pop(run, None)
        return self._entries.pop(run, None) is not None

    def _shrink(self) -> None:
        while self._idle and len(self._entries) > self._runs_max:
            run, entry = self._idle.popitem(last=False)
            del self._entries[run]
            self._lost.put(run, True)
            self.events.evicted(run, entry.workflow)
