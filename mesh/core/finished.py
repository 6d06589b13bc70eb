"""The runs that have ended, as long as they are remembered; and the ids of those that were forgotten.

A live run keeps its children: they are forgotten only after it has ended.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from itertools import chain

from mesh.core.run import Run

IDS_MAX = 50_000
"""Ids in one generation of forgotten runs; there are two."""


class FinishedRuns:
    """The last `limit` finished runs, oldest first."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.window: dict[str, Run] = {}
        self.order: deque[str] = deque()  # beside the dict: taking a dict's first key again and again is O(n)
        self.kept: dict[str, Run] = {}
        """Children out of the window whose parents live."""
        self.forgotten: dict[str, None] = {}
        self.forgotten_before: dict[str, None] = {}
        self.horizon = ""
        """The latest run id (they sort by time) that may have ended and is remembered nowhere any more."""

    def get(self, run: str) -> Run | None:
        return self.window.get(run) or self.kept.get(run)

    def knows(self, run: str) -> bool:
        """Whether a run of this id has ended, as far back as ids are remembered."""
        return run in self.window or run in self.kept or run in self.forgotten or run in self.forgotten_before

    def __iter__(self) -> Iterator[Run]:
        return (self.window[id] for id in self.order)

    def all(self) -> Iterator[Run]:
        """Every run that is remembered whole."""
        return chain(self.window.values(), self.kept.values())

    def __len__(self) -> int:
        return len(self.window)

    def add(self, run: Run, live: Mapping[str, Run]) -> list[Run]:
        """Remember a run that has just ended. Returns those forgotten for it."""
        self.window[run.id] = run
        self.order.append(run.id)
        gone: list[Run] = []
        if run.spawned and self.kept:
            gone = [self._forget(child) for id in run.spawned if (child := self.kept.pop(id, None)) is not None]
        if len(self.window) > self.limit:
            oldest = self.window.pop(self.order.popleft())
            if oldest.parent is not None and oldest.parent[0] in live:
                self.kept[oldest.id] = oldest
            else:
                gone.append(self._forget(oldest))
        return gone

    def _forget(self, run: Run) -> Run:
        if len(self.forgotten) >= IDS_MAX:
            self.horizon = max(self.horizon, max(self.forgotten_before, default=""))
            self.forgotten_before, self.forgotten = self.forgotten, {}
        self.forgotten[run.id] = None
        run.steps = []  # a ring of run and steps would wait for the garbage collector, which stops the leader for as long as it frees
        return run
