"""What the core remembers, and where a waiting step waits.

Rule: nothing here decides; `state.py` has the one way in which it changes.
"""

from __future__ import annotations

from msgspec import Raw

from mesh.core.finished import FinishedRuns
from mesh.core.graph import Flow
from mesh.core.limits import Limits
from mesh.core.line import Line
from mesh.core.placement import Routes, wish_of
from mesh.core.run import Run
from mesh.core.slots import Pool, Worker
from mesh.core.step import READY, Attempt, Step
from mesh.core.timers import Timers
from mesh.core.triggers import EventMatcher
from mesh_sdk.protocol.records import NULL

HARD_SCHEDULE_TIMEOUT_MS = 300_000


class Memory:
    """Everything that follows from the journal, without how it follows."""

    def __init__(self, finished_max: int = 10_000) -> None:
        self.now = 0
        self.term = 0
        self.holder = ""
        self.number = 0
        self.mark = 0
        self.event: tuple[int, str, Raw] = (0, "", NULL)
        self.lanes_until = 0
        self.unclaimed: dict[str, None] = {}
        self.flows: dict[str, Flow] = {}
        self.versions: dict[tuple[str, str], Flow] = {}
        self.matcher = EventMatcher()
        self.runs: dict[str, Run] = {}
        self.finished = FinishedRuns(finished_max)
        self.keys: dict[tuple[str, str], str] = {}
        self.repeats: dict[str, str] = {}
        """Starts whose key belonged to an older run, and which: as long as that run is remembered, bounded."""
        self.awaited: dict[str, tuple[str, int]] = {}
        self.attempts: dict[str, Attempt] = {}
        self.workers: dict[str, Worker] = {}
        self.bound: dict[str, dict[Run, None]] = {}
        """Live sticky runs by the worker that they belong to, be it there or not."""
        self.pools: dict[str, Pool] = {}
        self.routes = Routes()
        self.away: dict[str, Line[Step]] = {}
        """Steps of sticky runs whose worker is not there for them, by its id."""
        self.limits = Limits()
        self.timers = Timers()
        self.waiting = 0
        """Steps that are ready and have no place."""
        self.changed_workers: dict[str, Worker] = {}
        """Whose slots have changed since somebody last looked; not part of the state proper."""
        self.unparked = False
        """Steps that found no room wait again: pools beside the one that changed may serve them too. Not part of it either."""

    def find(self, run: str) -> Run | None:
        """The run, live or among those remembered."""
        return self.runs.get(run) or self.finished.get(run)

    def make_ready(self, step: Step, *, still: bool = False) -> None:
        """The step waits for a place from now on, or (`still`) goes on waiting: it was given one and never got it."""
        step.state = READY
        self.mark += 1
        step.mark = self.mark
        step.waits += 1
        if not still:
            step.ready_at = self.now
        self.waiting += 1
        flow = step.run.flow
        wait = schedule_timeout_ms(step)
        if flow.sticky:
            self.await_worker(step)
        if flow.keyed:
            self.limits.ready(step)
        self._enqueue(step)
        if wait:
            self.timers.ready(step, wait, late=still)

    def await_worker(self, step: Step) -> None:
        """From now on the step waits for the worker that its run is bound to, but not for ever when that is SOFT."""
        run = step.run
        step.sticky_at = 0
        if run.worker and run.flow.sticky == "SOFT" and not run.loose:
            step.sticky_at = self.now
            self.timers.sticky(step, run.flow.definition.sticky_timeout_ms)

    def requeue(self, step: Step) -> None:
        """Put a step that waits into the queue where it belongs by now."""
        self.mark += 1
        step.mark = self.mark  # older entries of it are void; its timers are not
        self._enqueue(step)

    def await_worker_anew(self, run: Run) -> None:
        """The steps of a run that wait begin to wait for its worker now."""
        for step in run.steps:
            if step.state is READY:
                self.await_worker(step)
        self.requeue_all(run)

    def requeue_all(self, run: Run) -> None:
        """Put all steps of a run that wait where they belong by now."""
        for step in sorted((step for step in run.steps if step.state is READY), key=_mark_of):
            self.requeue(step)

    def restore(self, step: Step) -> None:
        """Put a step of an image into its queue, with the mark that it had."""
        self.waiting += 1
        self.limits.ready(step)
        self._enqueue(step)

    def unpark(self, step: Step) -> None:
        """The step has waited for its limits, and waits for a slot now."""
        step.parked = False
        step.let_go_at = self.now
        self.timers.sticky_anew(step, self.now, step.run.flow.definition.sticky_timeout_ms)
        self._enqueue(step)

    def enqueue_bound_to(self, worker: str, *lines: Line[Step] | None) -> None:
        """What is bound to the worker and waits in these lines, or for its limits, waits where it belongs by now."""
        steps = {step for line in lines if line is not None for step in line.waiting()}
        runs = (run for run in self.bound.get(worker, ()) if run.flow.keyed and not run.loose)
        steps.update(step for run in runs for step in run.steps if step.parked and step.state is READY and not step.is_key)
        for step in sorted(steps, key=_mark_of):
            self._enqueue(step)

    def _enqueue(self, step: Step) -> None:
        """One that waits for its limits is put nowhere.

        Only the leader knows which do: so what else changes here, which runs are loose, must not depend on it.
        """
        run = step.run
        if run.worker and not run.loose and not step.is_key:
            self._enqueue_bound(step, self.workers.get(run.worker))
        elif not step.parked:
            self.routes.queue(step.action).push(step)

    def _enqueue_bound(self, step: Step, worker: Worker | None) -> None:
        if worker is not None and (worker.can_run(step.action, wish_of(step)) or self._is_needed_there(step, worker)):
            if not step.parked:
                worker.line.push(step)
                worker.pool.waiting[worker.id] = worker
        elif step.run.flow.sticky == "HARD" or step.run.placed:
            if not step.parked:
                self.away.setdefault(step.run.worker, Line()).push(step)
        else:
            step.run.loose = True
            self.unparked = True
            self.requeue_all(step.run)

    def _is_needed_there(self, step: Step, worker: Worker) -> bool:
        """Whether a draining worker is to begin the step all the same, since what runs there may wait for it, and nobody else can run it.

        So it is with a HARD sticky child of an attempt that the worker holds. Not with one that was ever handed back: it would be again.
        """
        run = step.run
        if not (worker.draining and run.tied and run.parent is not None and run.flow.sticky == "HARD") or worker.gone:
            return False
        parent = self.runs.get(run.parent[0])
        attempt = parent.steps[run.parent[1]].current if parent is not None else None
        held = attempt is not None and attempt.token in worker.held
        return held and step.action in worker.pool.actions and step.attempt == step.retries + step.losses

    def rehome(self, worker: Worker) -> None:
        """Steps bound to a worker that takes no more work wait where they belong now."""
        lines = worker.line, self.away.pop(worker.id, None)
        worker.line = Line()
        worker.pool.waiting.pop(worker.id, None)
        self.enqueue_bound_to(worker.id, *lines)

    def rehome_children(self, attempt: Attempt) -> None:
        """The attempt runs on a worker from now on, or not any more. If that one drains, what it is to begin for it changes."""
        if attempt.worker is not None and attempt.worker.draining and attempt.step.children:
            self.rehome(attempt.worker)

    def unplaced(self, run: Run) -> None:
        """An attempt of a sticky run has ended. If it was the last one on a worker that takes no more, the run may leave."""
        if run.flow.sticky != "SOFT" or run.loose or not run.worker or run.placed:
            return
        worker = self.workers.get(run.worker)
        if any(step.state is READY and not (worker is not None and worker.can_run(step.action, wish_of(step))) for step in run.steps):
            self.requeue_all(run)
        self.tidy_queues(run.worker)

    def tidy_queues(self, worker_id: str) -> None:
        """Where nothing waits for a worker any more, nothing is kept of what did."""
        waiting = self.away.get(worker_id)
        if waiting is not None and not waiting:
            del self.away[worker_id]
        worker = self.workers.get(worker_id)
        if worker is not None and not worker.line:
            worker.pool.waiting.pop(worker_id, None)

    def count_bound(self, run: Run, change: int) -> None:
        """The run is bound to its worker (1), or is not any more (-1)."""
        if not run.worker:
            return
        runs = self.bound.setdefault(run.worker, {})
        if change > 0:
            runs[run] = None
        else:
            del runs[run]
        if run.worker in self.workers:
            self.workers[run.worker].bound = len(runs)
        if not runs:
            del self.bound[run.worker]

    def _remember(self, run: Run, status: str) -> None:
        run.status = status
        run.finished_at = self.now
        for forgotten in self.finished.add(run, self.runs):
            if forgotten.key and self.keys.get((forgotten.flow.name, forgotten.key)) == forgotten.id:
                del self.keys[(forgotten.flow.name, forgotten.key)]


def _mark_of(step: Step) -> int:
    return step.mark


def schedule_timeout_ms(step: Step) -> int:
    """How long the step may wait for a place; 0: for ever."""
    flow = step.run.flow
    hard = flow.sticky == "HARD" and not step.is_key  # a key function runs anywhere
    return flow.steps[step.index].schedule_timeout_ms or (HARD_SCHEDULE_TIMEOUT_MS if hard else 0)
