"""How facts about runs change what is remembered."""

from __future__ import annotations

from mesh.core import records as facts
from mesh.core.graph import Flow
from mesh.core.memory import Memory
from mesh.core.run import Run
from mesh.core.step import ENDED, READY, SKIPPED, Step
from mesh_sdk.protocol.records import FAILED, NULL

REPEATS_MAX = 20_000

CLIENTS_MAX = 16
"""Clients beyond the first that are told when a run with a key ends; any more have to ask."""


class RunsKnown(Memory):
    """Runs start, are bound, and end."""

    def _apply_event(self, record: facts.EventReceived) -> None:
        self.event = (record.sequence, record.name, record.input.copy())  # as it is, it keeps the whole frame that it came in

    def apply_start(self, record: facts.RunStarted) -> Run:
        self.number += 1
        flow = self.versions[(record.workflow, record.digest)]
        input = self.event[2] if record.event else record.input.copy()
        run = Run(record.run, flow, input, record.priority, self.number, self.now)
        self.runs[run.id] = run
        run.client = record.client
        if record.labels:
            run.labels = record.labels
        if record.event:
            run.event = record.event
        if record.metadata:
            run.metadata = record.metadata
        if record.key:
            run.key = record.key
            self.keys[(flow.name, record.key)] = run.id
        if record.parent is not None:
            self._adopt(run.id, record.parent)
            run.parent = record.parent
        if record.worker:
            run.worker = record.worker
            run.tied = record.parent is not None
            self.count_bound(run, 1)
        if record.start_at > self.now:
            run.start_at = record.start_at
            self.timers.delay(run)
        else:
            self.begin(run)
        return run

    def _apply_began(self, record: facts.RunBegan) -> None:
        run = self.runs[record.run]
        run.start_at = 0
        self.number += 1
        run.number = self.number  # in the order of starts, a delayed one stands where its time has come
        self.begin(run)

    def begin(self, run: Run) -> None:
        """The run may begin: its key functions are ready, or its first steps, unless its keys have to be known before that."""
        if run.flow.keys:
            for index in run.flow.keys:
                self.make_ready(run.steps[index])
        elif not run.flow.keyed:
            self._begin_steps(run)

    def _begin_steps(self, run: Run) -> None:
        for index in run.flow.roots:
            self.make_ready(run.steps[index])

    def _apply_keyed(self, record: facts.RunKeyed) -> None:
        run = self.runs[record.run]
        run.keyed = record.keys
        run.wanted_at = self.now if run.flow.limits else 0
        self.limits.keyed(run)
        if run.ticket is None:
            self._begin_steps(run)
        elif run.flow.definition.admission_timeout_ms:
            self.timers.admission(run)

    def _apply_admitted(self, record: facts.RunAdmitted) -> None:
        run = self.runs[record.run]
        self.limits.admitted(run)
        self._begin_steps(run)

    def _adopt(self, child: str, parent: tuple[str, int, str, str]) -> None:
        run = self.runs.get(parent[0])
        if run is None:
            return
        step = run.steps[parent[1]]
        if step.children is None:
            step.children = {}
        step.children[parent[2]] = (parent[3], child)
        if run.spawned is None:
            run.spawned = []
        run.spawned.append(child)

    def _apply_refused(self, record: facts.RunRefused) -> None:
        self.number += 1
        run = Run(record.run, Flow.nothing(record.workflow), NULL, 1, self.number, self.now)
        run.client = record.client
        run.refused = (record.error, record.message)
        run.reason = record.message
        if record.parent is not None:
            self._adopt(run.id, record.parent)
            run.parent = record.parent
        self._remember(run, FAILED)

    def _apply_repeated(self, record: facts.StartRepeated) -> None:
        run = self.find(record.run)
        if run is not None and not run.finished_at:
            self._listen(run, record.client)
        if record.requested != record.run:
            if len(self.repeats) >= REPEATS_MAX:
                self.repeats = {}  # their clients were told; only one that missed it and asks after so many others waits for long
            self.repeats[record.requested] = record.run

    def _listen(self, run: Run, client: str) -> None:
        """One more client awaits the run; of a child, its parent's new worker does instead of the old one."""
        if run.parent is not None or not run.client:
            run.client = client
        elif client and client != run.client and client not in (run.also or ()):
            run.also = [*(run.also or ()), client][-CLIENTS_MAX:]

    def apply_bound(self, record: facts.RunBound) -> None:
        run = self.runs[record.run]
        old = run.worker
        run.loose = not record.worker
        if record.worker:
            if run.worker and run.worker != record.worker and run.begun:
                run.moves += 1
            self.count_bound(run, -1)
            run.worker = record.worker
            self.count_bound(run, 1)
        self.await_worker_anew(run)
        self.tidy_queues(old)

    def apply_end(self, record: facts.RunFinished) -> None:
        run = self.runs.pop(record.run)
        run.reason = record.reason
        self.count_bound(run, -1)
        for step in run.steps:
            if step.state not in ENDED:
                waited, step.state = step.state is READY, SKIPPED
                if waited:
                    self._left(step)
                attempt, step.current = step.current, None  # one that is still out keeps its slot until it is answered
                if attempt is not None:
                    self.limits.given_up(attempt)
                    self.rehome_children(attempt)
        if run.flow.keyed:
            self.limits.ended(run)
        if run.worker:
            self.tidy_queues(run.worker)
        self._remember(run, record.status)
        self.awaited.pop(run.id, None)

    def _left(self, step: Step) -> None:
        """The step waits no more: the lines that it may have waited in keep nothing of it."""
        self.waiting -= 1
        self.routes.queue(step.action).left(step)
        worker = step.run.worker
        lines = self.workers[worker].line if worker in self.workers else None, self.away.get(worker)
        for line in lines:
            if line is not None:
                line.left(step)

    def _apply_awaited(self, record: facts.CancelAwaited) -> None:
        self.awaited[record.run] = (record.reason, record.at)

    def _apply_dropped(self, record: facts.CancelsDropped) -> None:
        self.awaited = {run: entry for run, entry in self.awaited.items() if entry[1] >= record.before}
