"""`context.local`: memory of this worker for the sticky runs that are bound to it.

Rule: bounded, least recently used goes first; what a run had here is gone when it ends here or an attempt of it does not
succeed here.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import MutableMapping
from typing import Any

RUNS_MAX = 1_000


class Locals:
    """One mapping for each of the latest RUNS_MAX runs."""

    def __init__(self) -> None:
        self._runs: OrderedDict[str, dict[str, Any]] = OrderedDict()

    def of(self, run: str) -> MutableMapping[str, Any]:
        """The run's mapping, made at its first use."""
        mapping = self._runs.get(run)
        if mapping is None:
            mapping = self._runs[run] = {}
            if len(self._runs) > RUNS_MAX:
                self._runs.popitem(last=False)
        else:
            self._runs.move_to_end(run)
        return mapping

    def drop(self, run: str) -> None:
        """Forget a run."""
        self._runs.pop(run, None)
