"""What happens to the memory of sticky runs on this worker: counted for whoever scrapes, and logged one record each.

Rule: one call for one step that begins or one entry that is evicted, with one of the words hit, first, miss, move, eviction.
Hits and firsts are the rule and stay silent unless DEBUG is on.
"""

from __future__ import annotations

import logging

from mesh_sdk.protocol.records import Assign
from mesh_sdk.worker.observer import Observer

log = logging.getLogger("mesh_sdk.worker")

HIT = "hit"
"""The step found its run's entry."""
FIRST = "first"
"""The run's first step anywhere: there was nothing to find."""
MISS = "miss"
"""There should have been an entry: the run was on another worker, or steps before this one had run."""


class StickyEvents:
    """Tells of sticky steps.

    Args:
        observer: counts.
        worker: id of the worker, for the log.
    """

    def __init__(self, observer: Observer, worker: str) -> None:
        self._observer = observer
        self._worker = worker

    def hit(self, assign: Assign) -> None:
        """A step begins and finds its run's entry."""
        self._observer.sticky_step(assign.workflow, HIT)
        self._tell(logging.DEBUG, "hit", assign, "what run %s of %s keeps was found")

    def first(self, assign: Assign) -> None:
        """A step begins before which there was nothing to keep."""
        self._observer.sticky_step(assign.workflow, FIRST)
        self._tell(logging.DEBUG, "first", assign, "run %s of %s begins here")

    def missed(self, assign: Assign) -> None:
        """A step begins, and what steps before it had left here is gone: after a restart, an eviction or a failed attempt."""
        self._observer.sticky_step(assign.workflow, MISS)
        self._tell(logging.INFO, "miss", assign, "what run %s of %s had kept is gone")

    def moved(self, assign: Assign) -> None:
        """A step begins whose run was on another worker until now: a miss with a reason of its own."""
        self._observer.sticky_step(assign.workflow, MISS)
        self._observer.sticky_arrived(assign.workflow)
        self._tell(logging.INFO, "move", assign, "run %s of %s comes from another worker")

    def evicted(self, run: str, workflow: str) -> None:
        """A run's entry made room for another's."""
        self._observer.sticky_evicted(workflow)
        if log.isEnabledFor(logging.INFO):
            fields = {"event": "sticky.eviction", "run": run, "worker": self._worker}
            log.info("sticky.eviction: what run %s of %s keeps makes room for another run's", run, workflow, extra=fields)

    def _tell(self, level: int, word: str, assign: Assign, text: str) -> None:
        if not log.isEnabledFor(level):
            return
        event = f"sticky.{word}"
        fields = {"event": event, "run": assign.run, "step": assign.name, "attempt": assign.attempt, "worker": self._worker}
        log.log(level, "%s: " + text, event, assign.run, assign.workflow, extra=fields)
