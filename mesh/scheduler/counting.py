"""Counts what was journaled, for Prometheus."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from mesh.core import records as facts
from mesh.core.records import NEVER, Fact
from mesh.core.run import Run
from mesh.core.state import State
from mesh_sdk.observe.metrics import CANCELLING_STRATEGIES, SchedulerMetrics
from mesh_sdk.protocol.records import CANCELLED

_STRATEGY = re.compile(rf"\(({'|'.join(CANCELLING_STRATEGIES)})\b[^()]*\)$")
"""How the reason of a run ends that was cancelled for another one."""


class Counting:
    """Turns records into counts."""

    def __init__(self, metrics: SchedulerMetrics) -> None:
        self.metrics = metrics
        self._state = State()
        self._arms: dict[type, Callable[[Any], None]] = {
            facts.RunStarted: lambda record: metrics.run_started(record.workflow),
            facts.RunFinished: self._finished,
            facts.RunBound: self._bound,
            facts.StepRecalled: lambda record: metrics.recalled(),
            facts.StepFailed: self._failed,
            facts.InputRejected: self._rejected,
            facts.WorkflowDefined: lambda record: metrics.registered(record.definition.name),
            facts.EventReceived: lambda record: metrics.event(True),
        }

        metrics.sticky_move(*facts.MOVED_REASONS, count=0)

    def journaled(self, records: list[Fact], state: State) -> None:
        """A frame of these records stands."""
        self._state = state
        self.metrics.frame(len(records))
        arms = self._arms
        for record in records:
            arm = arms.get(type(record))
            if arm is not None:
                arm(record)

    def lane_messages(self, count: int) -> None:
        """A batch of lane messages stands."""

    def _finished(self, record: facts.RunFinished) -> None:
        run = self._state.find(record.run)
        if run is not None:
            self.metrics.run_finished(run.flow.name, record.status, (run.finished_at - run.started_at) / 1000)
            if record.status == CANCELLED and (strategy := _strategy(run, record.reason)):
                self.metrics.group_cancelled(strategy)

    def _bound(self, record: facts.RunBound) -> None:
        if record.old and record.worker not in ("", record.old):
            self.metrics.sticky_move(record.reason)

    def _failed(self, record: facts.StepFailed) -> None:
        if record.again_at != NEVER:
            self.metrics.retry(record.kind)

    def _rejected(self, record: facts.InputRejected) -> None:
        self.metrics.dead_letter(record.source if record.source in ("events", "reports") else "triggers")


def _strategy(run: Run, reason: str) -> str:
    """By which strategy the run was cancelled; "" when somebody else has cancelled it, whatever they wrote."""
    found = _STRATEGY.search(reason)
    limits = (limit for _, limit in (*run.flow.limits, *(limit for limits in run.flow.step_limits for limit in limits)))
    return found[1] if found is not None and any(limit.strategy == found[1] for limit in limits) else ""
