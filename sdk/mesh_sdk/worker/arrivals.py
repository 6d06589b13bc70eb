"""Sticky attempts between their slot and their step: each gets its run's entry, rebuilt by `on_moved` first where it is missing.

Rule: one call of `on_moved` for an entry, made by the attempt that came first and under that attempt's timeout; the others
wait for it. If it raises, all of them fail with its error; if its attempt is stopped, the next in line begins anew. Where no
step of the run has succeeded yet there is nothing to restore: the error is logged, and the step builds what it needs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

from mesh_sdk.context import Context
from mesh_sdk.protocol.records import Assign, Finished
from mesh_sdk.worker.arrival import Arrival, Beginning
from mesh_sdk.worker.attempt import Attempt
from mesh_sdk.worker.execute import rebuild_async, rebuild_sync
from mesh_sdk.worker.failures import log_forgiven
from mesh_sdk.worker.locals import Entry, Locals
from mesh_sdk.worker.outcome import Outcome, failed, stopped
from mesh_sdk.worker.threads import Threads


class Arrivals:
    """Brings sticky attempts of one incarnation to their entries.

    Args:
        locals: the entries.
        threads: for an `on_moved` that is sync.
        may_start: whether the worker may start something now; if not, every attempt has been told to stop.
        launch: runs the attempt's step, or nothing of it if it was told to stop.
        end: ends an attempt with its outcome.
    """

    def __init__(
        self,
        locals: Locals,
        threads: Threads,
        may_start: Callable[[], bool],
        launch: Callable[[Attempt, Context[Any]], None],
        end: Callable[[Attempt, Outcome], None],
    ) -> None:
        self._locals = locals
        self._threads = threads
        self._may_start = may_start
        self._launch = launch
        self._end = end
        self._fenced = False
        self._loop = asyncio.get_running_loop()

    def begin(self, attempt: Attempt, context: Context[Any]) -> None:
        """Give an attempt its entry and launch it; after `on_moved` where that is due."""
        self._tell(attempt.assign)
        self._enter(attempt, context)

    def _enter(self, attempt: Attempt, context: Context[Any]) -> None:
        assign = attempt.assign
        entry = self._find(assign)
        due = entry is None and attempt.action.on_moved is not None and (_has_moved(assign) or _has_past(assign))
        if entry is None:
            entry = self._locals.make(assign.run, assign.workflow, _moves(assign))
        attempt.entry = entry
        self._locals.hold(entry)
        if entry.arrival is not None:
            entry.arrival.waiting.append((attempt, context))
        elif due:
            self._rebuild(attempt, context, entry)
        else:
            self._launch(attempt, context)

    def stop(self, attempt: Attempt) -> bool:
        """End an attempt that was told to stop, if it only waits for the arrival. False when it is for others to end."""
        arrival = attempt.entry.arrival if attempt.entry is not None else None
        if arrival is None or not any(each is attempt for each, _ in arrival.waiting):
            return False
        self._leave(attempt)  # it has run nothing: what the others build stays
        self._end(attempt, stopped(attempt))
        return True

    def answered(self, attempt: Attempt, outcome: Outcome) -> None:
        """An attempt with an entry was answered: after the run's last step, and after no success, nothing is kept."""
        assert attempt.entry is not None, "only attempts that began have an entry"
        run = attempt.entry.run
        kept = self._locals.find(run) is attempt.entry
        if not isinstance(outcome, Finished):
            if kept:  # an entry made since then was never touched by it
                self._locals.lose(run)
            self._again(self._settle(attempt))
            return
        if self._fenced:  # what there is by now belongs to a later incarnation
            return
        if attempt.action.last:
            self._locals.forget(run)
        elif not kept:
            self._locals.lose(run)  # a sibling has failed meanwhile: what there is by now lacks what this step put in

    def leave(self, entry: Entry) -> None:
        """An attempt that held the entry has ended."""
        self._locals.leave(entry)

    def fence(self) -> None:
        """Keep nothing, and drop nothing from now on: the runs may belong to others, or to this worker's next incarnation."""
        self._fenced = True
        self._locals.clear()

    def _find(self, assign: Assign) -> Entry | None:
        """The run's entry, unless the run was elsewhere since, and the word of that was lost."""
        entry = self._locals.find(assign.run)
        return entry if entry is not None and entry.moves == _moves(assign) else None

    def _tell(self, assign: Assign) -> None:
        """Count what a step finds as it begins."""
        events = self._locals.events
        if self._find(assign) is not None:
            events.hit(assign)
        elif _has_moved(assign) and not self._locals.was_here(assign.run):
            events.moved(assign)
        elif _has_moved(assign) or _has_past(assign):
            events.missed(assign)
        else:
            events.first(assign)

    def _leave(self, attempt: Attempt) -> None:
        assert attempt.entry is not None, "it waited for that entry's arrival"
        self._locals.leave(attempt.entry)
        attempt.entry = None

    def _rebuild(self, attempt: Attempt, context: Context[Any], entry: Entry) -> None:
        hook = attempt.action.on_moved
        assert hook is not None, "it is due only where there is one"
        entry.arrival = Arrival(attempt)
        if hook.is_async:
            attempt.task = self._loop.create_task(self._run(attempt, context))
        else:
            self._threads.submit(partial(rebuild_sync, attempt, context), partial(self._rebuilt, attempt, context))

    async def _run(self, attempt: Attempt, context: Context[Any]) -> None:
        error = await rebuild_async(attempt, context)
        attempt.task = None
        self._rebuilt(attempt, context, error)

    def _rebuilt(self, attempt: Attempt, context: Context[Any], error: BaseException | None) -> None:
        attempt.entered = False  # the step's own code is not reached yet
        waiting = self._settle(attempt)
        if error is not None and attempt.stop is None and not _has_past(attempt.assign):
            log_forgiven(attempt.assign, error)
            error = None
            if attempt.entry is not None:
                attempt.entry.values.clear()
        if attempt.stop is not None:
            self._end(attempt, stopped(attempt))
            self._again(waiting)
        elif error is None:
            for each, of_each in ((attempt, context), *waiting):
                self._may_start()
                self._launch(each, of_each)
        else:
            for each, _ in ((attempt, context), *waiting):
                self._end(each, failed(each, error))

    def _settle(self, attempt: Attempt) -> list[Beginning]:
        """End the arrival that an attempt owns, if it owns one. Gives those that still wait for it."""
        entry = attempt.entry
        if entry is None or entry.arrival is None or entry.arrival.owner is not attempt:
            return []
        waiting = entry.arrival.waiting
        entry.arrival = None
        return [each for each in waiting if not each[0].answered]

    def _again(self, waiting: list[Beginning]) -> None:
        """The attempt whose call they waited for was stopped: they begin anew, with another entry."""
        for attempt, context in waiting:
            if self._may_start():
                self._leave(attempt)
                self._enter(attempt, context)
            else:
                self._launch(attempt, context)


def _moves(assign: Assign) -> int:
    return assign.origin.moves if assign.origin is not None else 0


def _has_moved(assign: Assign) -> bool:
    return assign.origin is not None and assign.origin.moved


def _has_past(assign: Assign) -> bool:
    """Whether a step of the run has succeeded before this one."""
    return bool(assign.parents) or (assign.origin is not None and assign.origin.begun)
