"""The one way in which what the core remembers changes: `apply(record)`.

Rule: every change of queues, ledger, timers and runs lives in an `apply_…` of the three parts, pops included. The leader
calls it for the record it has just made, a follower for the record it has read; afterwards both are equal.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mesh.core import records as facts
from mesh.core.attempts_known import AttemptsKnown
from mesh.core.runs_known import RunsKnown
from mesh.core.workers_known import WorkersKnown


class State(WorkersKnown, RunsKnown, AttemptsKnown):
    """Everything that follows from the journal up to some sequence."""

    def __init__(self, finished_max: int = 10_000) -> None:
        super().__init__(finished_max)
        self._apply: dict[type, Callable[[Any], Any]] = {
            facts.TermStarted: self._apply_term,
            facts.WorkflowDefined: self._apply_workflow,
            facts.WorkerRegistered: self._apply_worker,
            facts.WorkerRefused: _nothing,
            facts.WorkerDraining: self._apply_draining,
            facts.WorkerGone: self._apply_gone,
            facts.EventReceived: self._apply_event,
            facts.RunStarted: self.apply_start,
            facts.RunBegan: self._apply_began,
            facts.RunKeyed: self._apply_keyed,
            facts.RunAdmitted: self._apply_admitted,
            facts.RatesHeld: self._apply_rates_held,
            facts.WorkerSteered: self._apply_steered,
            facts.StepDue: self._apply_due,
            facts.RunRefused: self._apply_refused,
            facts.StartRepeated: self._apply_repeated,
            facts.RunBound: self.apply_bound,
            facts.StepReleased: self.apply_released,
            facts.StepRecalled: self._apply_recalled,
            facts.StepAccepted: self._apply_accepted,
            facts.StepFinished: self.apply_finished,
            facts.StepFailed: self.apply_failed,
            facts.StepReturned: self._apply_returned,
            facts.AttemptEnded: self._apply_over,
            facts.StepLent: self._apply_lent,
            facts.StepResumed: self._apply_resumed,
            facts.StepRefreshed: self._apply_refreshed,
            facts.StepStale: _nothing,
            facts.RunFinished: self.apply_end,
            facts.CancelAwaited: self._apply_awaited,
            facts.CancelsDropped: self._apply_dropped,
            facts.InputRejected: _nothing,
            facts.LanesReset: self._apply_lanes,
            facts.StepClaimed: self._apply_claimed,
            facts.LanesSettled: self._apply_settled,
        }

    def apply(self, record: facts.Fact) -> None:
        """Follow one journal record."""
        self._apply[type(record)](record)


def _nothing(record: facts.Fact) -> None:
    """A fact for readers of the history; the state stays as it is."""
