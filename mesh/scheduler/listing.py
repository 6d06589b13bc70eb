"""A page of runs, newest first, put together in slices: with 100,000 live runs a look at all of them takes too long at once.

Rule: a run has one place in the order for ever, the number of its start. So whatever happens between two slices, a run
is told once, as it is at the moment when it is looked at, and one that starts meanwhile is not on the page.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator
from heapq import merge
from itertools import islice
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from msgspec import Raw

from mesh.core.reach import Reaches
from mesh.core.run import LIVE, OVER, Run
from mesh.core.state import State
from mesh.scheduler.answers import ANSWER_BYTES_MAX, ApiError
from mesh_sdk.protocol.codec import encode

if TYPE_CHECKING:
    from mesh.scheduler.views import RunQuery

LIST_LIMIT_MAX = 1_000
SLICE_WORK = 4_000
"""What one slice may cost, in microseconds as they are on a common machine."""
_LOOK_WORK = 1
_ROW_WORK = 30
_ROW_STEP_WORK = 10
_BYTES_A_WORK = 2_000
"""Bytes of inputs and outputs that are copied in a microsecond."""

_number = attrgetter("number")
_started_at = attrgetter("started_at")


class Listing:
    """One page in the making.

    Args:
        state: of the leader.
        query: which runs.
        status: a run's status, as readers see it.
        row: what is told of a run.
        max_payload: bytes of the largest answer; a page that would be larger ends early, the rest comes with `after`.
        known: what `status` and `row` find out of workers and remember: in one slice only, for it changes.
    """

    def __init__(
        self,
        state: State,
        query: RunQuery,
        status: Callable[[Run], str],
        row: Callable[[Run], dict[str, Any]],
        max_payload: int,
        known: Reaches,
    ) -> None:
        self._state = state
        self._query = query
        self._status = status
        self._row = row
        self._known = known
        self._limit = max(1, min(query.limit, LIST_LIMIT_MAX))
        self._room = max_payload - ANSWER_BYTES_MAX
        self._since_ms = query.since.timestamp() * 1000 if query.since is not None else None
        self._until_ms = query.until.timestamp() * 1000 if query.until is not None else None
        self._before = int(query.after) if query.after and query.after.isdecimal() else None
        self._rows: list[Raw] = []
        self._last = 0
        self._next: str | None = None
        self._runs = self._newest_first()

    def _newest_first(self) -> Iterator[Run]:
        """Every run that there is now and that may match by its place in the order, and by whether it lives."""
        status = self._query.status
        live = [] if status in OVER else list(self._state.runs.values())
        ended = [] if status not in (None, *OVER) else sorted(self._state.finished, key=_number)
        return merge(self._backwards(live), self._backwards(ended), key=_number, reverse=True)

    def _backwards(self, runs: list[Run]) -> Iterator[Run]:
        """From the first one that is old enough on. Their times are in the order of their numbers."""
        end = len(runs)
        if self._before is not None:
            end = bisect_left(runs, self._before, key=_number)
        if self._until_ms is not None:
            end = bisect_left(runs, self._until_ms, 0, end, key=_started_at)
        return islice(reversed(runs), len(runs) - end, None)

    def slice(self) -> bool:
        """Look at some more runs; True when the page is complete.

        Raises:
            ApiError: one run alone is larger than an answer may be.
        """
        self._known.clear()
        work = 0
        for run in self._runs:
            if self._since_ms is not None and run.started_at < self._since_ms:
                return True
            work += _LOOK_WORK + len(run.steps)
            if self._is_known(run) and self._matches(run):
                if len(self._rows) == self._limit or not self._add(run):
                    self._next = str(self._last)
                    return True
                work += _ROW_WORK + _ROW_STEP_WORK * len(run.steps) + len(self._rows[-1]) // _BYTES_A_WORK
            if work + len(self._known) * len(self._state.workers) >= SLICE_WORK:  # each was found by a look at that many, at most
                return False
        return True

    def _is_known(self, run: Run) -> bool:
        """It may have been forgotten since the first slice."""
        return run.status is LIVE or self._state.finished.get(run.id) is run

    def _add(self, run: Run) -> bool:
        """One row more, if there is room."""
        row = Raw(encode(self._row(run)))
        self._room -= len(row) + 1
        if self._room < 0 and not self._rows:
            text = f"run {run.id} alone has {len(row)} bytes, which no answer carries: go on with after={str(run.number)!r}"
            raise ApiError("PayloadTooLarge", text)
        if self._room < 0:
            return False
        self._rows.append(row)
        self._last = run.number
        return True

    def _matches(self, run: Run) -> bool:
        query = self._query
        if query.workflow is not None and run.flow.name != query.workflow:
            return False
        if query.metadata and any((run.metadata or {}).get(key) != value for key, value in query.metadata.items()):
            return False
        if query.worker is not None and all(step.worker != query.worker for step in run.steps):
            return False
        return query.status is None or self._status(run) == query.status

    def answer(self) -> bytes:
        """The page."""
        return encode({"ok": {"runs": self._rows, "next": self._next}})
