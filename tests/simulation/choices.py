"""Holds the mesh to its choice of workers: by labels and slots, never one that an operator has paused.

Rule: labels are those that the journal has of the worker when it is chosen, and its process must have said them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping

from mesh.core import records as facts
from mesh.core.state import State
from mesh_sdk.protocol.definitions import LabelDefinition
from mesh_sdk.protocol.records import RESUME
from tests.simulation.limits import KEY_FUNCTION, WANTS, Want, fulfils, slots, step_name
from tests.simulation.names import LIMITED_NAMES

Labels = Mapping[str, str | int | float]


class Choices:
    """See the module.

    Args:
        state: of the auditor.
        report: gets what is wrong.
        seen: counts what there was to look at.
    """

    def __init__(self, state: State, report: Callable[[str], None], seen: Counter[str]) -> None:
        self._seen = seen
        self._state = state
        self._report = report
        self._runs: dict[str, tuple[str, list[LabelDefinition]]] = {}
        self._workers: dict[str, tuple[str, Labels]] = {}
        """Worker → (incarnation, labels)."""
        self._paused: set[str] = set()
        self.said: dict[str, list[Labels]] = {}
        """Worker → all that its processes have ever said of it; the witness hears that."""
        self._follow: dict[type, Callable[..., None]] = {
            facts.WorkerRegistered: self._registered,
            facts.WorkerSteered: self._steered,
            facts.WorkerGone: lambda record: self._paused.discard(record.worker),
            facts.RunStarted: self._started,
            facts.StepReleased: self._released,
        }

    def record(self, record: facts.Fact) -> None:
        """A record of the journal that is to be applied."""
        if (follow := self._follow.get(type(record))) is not None:
            follow(record)

    def _registered(self, record: facts.WorkerRegistered) -> None:
        if self._workers.get(record.worker, ("", {}))[0] != record.incarnation:
            self._paused.discard(record.worker)
        if record.labels not in self.said.get(record.worker, []):
            self._report(f"worker {record.worker} is registered with labels {record.labels}, which it never had")
        self._workers[record.worker] = record.incarnation, record.labels

    def _steered(self, record: facts.WorkerSteered) -> None:
        self._seen[f"worker told to {record.what}"] += 1
        if record.what == RESUME:
            self._paused.discard(record.worker)
        else:
            self._paused.add(record.worker)

    def _started(self, record: facts.RunStarted) -> None:
        if record.workflow in LIMITED_NAMES:
            self._runs[record.run] = record.workflow, record.labels

    def _released(self, record: facts.StepReleased) -> None:
        if record.worker in self._paused:
            self._report(f"an attempt of run {record.run} is released to worker {record.worker}, which is paused")
        workflow, labels = self._runs.get(record.run, ("", []))
        name = step_name(workflow, record.step) if workflow else ""
        if not workflow or name == KEY_FUNCTION:
            return
        wants = {
            **WANTS.get((workflow, name), {}),
            **{label.name: Want(label.value, label.comparator, label.required, label.weight) for label in labels},  # type: ignore[arg-type]
        }
        count = slots(workflow, name)
        if not wants and count == 1:
            return
        self._seen["step for a certain worker"] += 1
        if not record.worker:
            return self._report(f"step {workflow}:{name} of run {record.run}, which wants a worker, goes to a shared lane")
        its = self._workers[record.worker][1]
        for label, want in wants.items():
            if want.required and not fulfils(want, its.get(label)):
                self._report(f"step {workflow}:{name} of run {record.run} wants {label} {want} and goes to {record.worker}, which is {its}")
        if self._state.workers[record.worker].slots < count:
            self._report(f"step {workflow}:{name} of run {record.run} takes {count} slots and goes to {record.worker}, which has fewer")
        if workflow == "choosy":
            self._look_at_others(record, wants)

    def _look_at_others(self, record: facts.StepReleased, wants: dict[str, Want]) -> None:
        """Of the workers with room the one is chosen that has most of what is preferred."""
        weighed = self._weigh(record.worker, wants)
        for worker in self._state.pools[record.pool].workers.values():
            its = self._workers[worker.id][1]
            able = worker.id not in self._paused and not worker.draining and worker.room > 0
            able = able and all(fulfils(want, its.get(label)) for label, want in wants.items() if want.required)
            if able and self._weigh(worker.id, wants) > weighed:
                self._report(f"run {record.run} goes to {record.worker}, and {worker.id} is there, which has more of {wants}")

    def _weigh(self, worker: str, wants: dict[str, Want]) -> int:
        its = self._workers[worker][1]
        return sum(want.weight for label, want in wants.items() if not want.required and fulfils(want, its.get(label)))
