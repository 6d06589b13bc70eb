"""What the core remembers, and the one way it changes: `apply(record)`.

Rule: every change of queues, ledger, timers and runs lives in an `_apply_…` here, pops included. The leader calls it
for the record it has just made, a follower for the record it has read; afterwards both are equal.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec import Raw

from mesh.core import records as facts
from mesh.core.finished import FinishedRuns
from mesh.core.graph import Flow
from mesh.core.placement import Routes, head, push
from mesh.core.records import KIND_LOST, NEVER
from mesh.core.run import Run
from mesh.core.slots import Entry, Pool, Worker, charge, discharge, hold, join, lend, resume, withdraw
from mesh.core.step import BROKEN, DELAYED, DONE, ENDED, HELD, OUT, PENDING, READY, SKIPPED, Attempt, Step
from mesh.core.timers import EXECUTION_GRACE_MS, Timers
from mesh.core.triggers import EventMatcher
from mesh_sdk.protocol.ids import pool_id
from mesh_sdk.protocol.records import FAILED, NULL, RETURNED_FULL

HARD_SCHEDULE_TIMEOUT_MS = 300_000
FULL_RETRY_MS = 250
"""A step that found no room waits this long at most, even when nothing else happens in the pool."""

REPEATS_MAX = 20_000

CLIENTS_MAX = 16
"""Clients beyond the first that are told when a run with a key ends; any more have to ask."""

VERSIONS_MAX = 64
"""Definitions kept of one workflow, beyond those that runs, workers or the next start use."""


class State:
    """Everything that follows from the journal up to `sequence`."""

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
        self.pools: dict[str, Pool] = {}
        self.routes = Routes()
        self.away: dict[str, list[Entry]] = {}
        self.timers = Timers()
        self.waiting = 0
        """Steps that are ready and have no place."""
        self.changed_workers: dict[str, Worker] = {}
        """Whose slots have changed since somebody last looked; not part of the state proper."""
        self.unparked = False
        """Steps that found no room wait again: pools beside the one that changed may serve them too. Not part of it either."""
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
            facts.StepDue: self._apply_due,
            facts.RunRefused: self._apply_refused,
            facts.StartRepeated: self._apply_repeated,
            facts.RunBound: self.apply_bound,
            facts.StepReleased: self.apply_released,
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

    def find(self, run: str) -> Run | None:
        """The run, live or among those remembered."""
        return self.runs.get(run) or self.finished.get(run)

    # ---- who leads, who works ---------------------------------------------------------------------------------------

    def _apply_term(self, record: facts.TermStarted) -> None:
        self.holder = record.holder

    def _apply_workflow(self, record: facts.WorkflowDefined) -> None:
        flow = Flow(record.definition)
        self.flows[flow.name] = flow
        self.versions[(flow.name, flow.digest)] = flow
        self._drop_versions(flow.name)
        self.matcher.rebuild(self.flows.values())

    def _drop_versions(self, name: str) -> None:
        mine = [key for key in self.versions if key[0] == name]
        if len(mine) > VERSIONS_MAX:
            used = {run.flow.digest for run in self.runs.values() if run.flow.name == name}
            used.update(run.flow.digest for run in self.finished.all() if run.flow.name == name)
            used.update(digest for worker in self.workers.values() for workflow, digest in worker.workflows if workflow == name)
            used.add(self.flows[name].digest)
            for key in mine[:-VERSIONS_MAX]:
                if key[1] not in used:
                    del self.versions[key]

    def _apply_worker(self, record: facts.WorkerRegistered) -> None:
        actions = frozenset(action for key in record.workflows for action in self.versions[key].actions)
        pool = self.pools.setdefault(pool_id(actions), Pool(actions))
        for name, digest in record.workflows:
            self.flows[name] = self.versions[(name, digest)]
        worker = Worker(
            record.worker, record.incarnation, record.name, record.slots, record.labels, record.workflows, record.client,
            record.host, record.pid, pool,
        )  # fmt: skip
        old = self.workers.get(record.worker)
        if old is not None:  # the same incarnation, changed: what it holds goes with it
            self._leave(old)
            self.pools[pool.id] = pool
            worker.reserved, worker.held, worker.lent, worker.draining = old.reserved, old.held, old.lent, old.draining
            for attempt in (*worker.reserved.values(), *worker.held.values()):
                attempt.worker = worker
        self.workers[worker.id] = worker
        if worker.draining:
            pool.workers[worker.id] = worker
        else:
            join(worker)
        self._reroute()
        for entry in self.away.pop(worker.id, ()):
            self._enqueue_if_waiting(entry)
        for entry in old.queue if old is not None else ():
            self._enqueue_if_waiting(entry)
        self.changed_workers[worker.id] = worker

    def _apply_draining(self, record: facts.WorkerDraining) -> None:
        worker = self.workers[record.worker]
        withdraw(worker)
        worker.draining = True
        self._rehome(worker)
        self.changed_workers[worker.id] = worker

    def _apply_gone(self, record: facts.WorkerGone) -> None:
        worker = self.workers.pop(record.worker)
        self._leave(worker)
        self._reroute()
        self._rehome(worker)
        self.changed_workers[worker.id] = worker

    def _leave(self, worker: Worker) -> None:
        withdraw(worker)
        worker.gone = True
        pool = worker.pool
        del pool.workers[worker.id]
        pool.waiting.pop(worker.id, None)
        if not pool.workers and not pool.out:
            del self.pools[pool.id]

    def _reroute(self) -> None:
        self.routes.rebuild(self.pools.values())
        self.matcher.rebuild(self.flows.values())

    def _rehome(self, worker: Worker) -> None:
        """Steps bound to a worker that takes no more work wait where they belong now."""
        entries, worker.queue = sorted(worker.queue), []
        worker.pool.waiting.pop(worker.id, None)
        for entry in entries:
            self._enqueue_if_waiting(entry)

    # ---- runs ---------------------------------------------------------------------------------------------------------

    def _apply_event(self, record: facts.EventReceived) -> None:
        self.event = (record.sequence, record.name, record.input)

    def apply_start(self, record: facts.RunStarted) -> Run:
        self.number += 1
        flow = self.versions[(record.workflow, record.digest)]
        input = self.event[2] if record.event else record.input
        run = Run(record.run, flow, input, record.priority, self.number, self.now)
        self.runs[run.id] = run
        run.client = record.client
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
        if record.start_at > self.now:
            run.start_at = record.start_at
            self.timers.delay(run)
        else:
            self.begin(run)
        return run

    def _apply_began(self, record: facts.RunBegan) -> None:
        run = self.runs[record.run]
        run.start_at = 0
        self.begin(run)

    def _apply_due(self, record: facts.StepDue) -> None:
        step = self.runs[record.run].steps[record.step]
        step.avoid_full = False
        self.make_ready(step)

    def begin(self, run: Run) -> None:
        """The run's first steps are ready."""
        for index in run.flow.roots:
            self.make_ready(run.steps[index])

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
        run.moved = run.moved or bool(run.worker and record.worker and record.worker != run.worker)
        ready = sorted((step for step in run.steps if step.state is READY), key=lambda step: step.mark)
        if not record.worker:  # it waited too long for its worker: any other may take it
            old = self.workers.get(run.worker)
            for step in ready:
                self._mark(step)
                step.sticky_at = 0
                self._enqueue(step)
            if old is not None and head(old.queue) is None:
                old.pool.waiting.pop(old.id, None)
            return
        run.worker = record.worker
        for step in ready:
            self._mark(step)
            self._await_worker(step)
            self._enqueue(step)

    def apply_end(self, record: facts.RunFinished) -> None:
        run = self.runs.pop(record.run)
        run.reason = record.reason
        for step in run.steps:
            if step.state not in ENDED:
                if step.state is READY:
                    self.waiting -= 1
                step.state = SKIPPED
                step.current = None  # an attempt that is still out keeps its slot until it is answered
        if run.worker in self.away and head(self.away[run.worker]) is None:
            del self.away[run.worker]
        self._remember(run, record.status)
        self.awaited.pop(run.id, None)

    def _remember(self, run: Run, status: str) -> None:
        run.status = status
        run.finished_at = self.now
        for forgotten in self.finished.add(run, self.runs):
            if forgotten.key and self.keys.get((forgotten.flow.name, forgotten.key)) == forgotten.id:
                del self.keys[(forgotten.flow.name, forgotten.key)]

    # ---- steps --------------------------------------------------------------------------------------------------------

    def make_ready(self, step: Step) -> None:
        """The step waits for a place from now on."""
        step.state = READY
        self.mark += 1
        step.mark = self.mark
        step.waits += 1
        step.ready_at = self.now
        self.waiting += 1
        flow = step.run.flow
        wait = schedule_timeout_ms(step)
        if flow.sticky:
            self._await_worker(step)
            self._enqueue(step)
        else:
            push(self.routes.queue(flow.actions[step.index]).ready, step)
        if wait:
            self.timers.ready(step, wait)

    def _await_worker(self, step: Step) -> None:
        """From now on the step waits for the worker that its run is bound to, but not for ever when that is SOFT."""
        if step.run.worker and step.run.flow.sticky == "SOFT":
            step.sticky_at = self.now
            self.timers.sticky(step, step.run.flow.definition.sticky_timeout_ms)

    def _mark(self, step: Step) -> None:
        """Make older queue entries of a step void, keeping its timers."""
        self.mark += 1
        step.mark = self.mark

    def requeue(self, step: Step) -> None:
        """Put a step that waits into the queue where it belongs."""
        self._enqueue(step)

    def _enqueue_if_waiting(self, entry: Entry) -> None:
        step = entry[3]
        if step.state is READY and step.mark == entry[2]:
            self._enqueue(step)

    def _enqueue(self, step: Step) -> None:
        run = step.run
        if not run.flow.sticky:
            push(self.routes.queue(step.action).ready, step)
        elif not run.worker or (run.flow.sticky == "SOFT" and not step.sticky_at):
            push(self.routes.queue(step.action).sticky, step)
        else:
            self._enqueue_bound(step, self.workers.get(run.worker))

    def _enqueue_bound(self, step: Step, worker: Worker | None) -> None:
        fits = worker is not None and worker.takes_work and step.action in worker.pool.actions
        if worker is not None and fits:
            push(worker.queue, step)
            worker.pool.waiting[worker.id] = worker
        elif step.run.flow.sticky == "HARD":
            push(self.away.setdefault(step.run.worker, []), step)
        else:
            step.sticky_at = 0
            push(self.routes.queue(step.action).sticky, step)

    def apply_released(self, record: facts.StepReleased) -> None:
        run = self.runs[record.run]
        step = run.steps[record.step]
        worker = self.workers[record.worker] if record.worker else None
        pool = self.pools[record.pool]
        attempt = Attempt(step, record.attempt, record.token, pool, worker)
        self.attempts[record.token] = attempt
        step.state = OUT
        step.attempt = record.attempt
        step.current = attempt
        step.last_token = record.token
        self.waiting -= 1
        charge(attempt)
        if worker is None:
            head(self.routes.queue(step.action).ready)
        else:
            self._clean_bound(worker, step)

    def _clean_bound(self, worker: Worker, step: Step) -> None:
        step.worker = worker.id
        head(self.routes.queue(step.action).sticky)
        if head(worker.queue) is None:
            worker.pool.waiting.pop(worker.id, None)
        self.changed_workers[worker.id] = worker

    def _apply_accepted(self, record: facts.StepAccepted) -> None:
        attempt = self.attempts[record.token]
        worker = self.workers[record.worker]
        self.unclaimed.pop(record.token, None)
        hold(attempt, worker)
        step = attempt.step
        if step.current is attempt:
            step.state = HELD
            step.worker = worker.id
            step.started_at = self.now
            timeout = step.run.flow.steps[step.index].timeout_ms
            if timeout:
                attempt.until = self.now + timeout + EXECUTION_GRACE_MS
                self.timers.execution(attempt, timeout)
        self.changed_workers[worker.id] = worker

    def apply_finished(self, record: facts.StepFinished) -> None:
        attempt = self._end_attempt(record.token)
        step = attempt.step
        step.state = DONE
        step.output = record.output
        step.worker = record.worker
        step.finished_at = self.now
        step.current = None
        run = step.run
        run.left -= 1
        if run.left:
            for index in run.flow.children[step.index]:
                child = run.steps[index]
                child.needs -= 1
                if not child.needs and child.state is PENDING:
                    self.make_ready(child)

    def _end_attempt(self, token: str, *, freed: bool = True) -> Attempt:
        """The attempt leaves the ledger; unless it found no room (`freed` False), steps that found none may try again."""
        attempt = self.attempts.pop(token)
        discharge(attempt)
        worker = attempt.worker
        if worker is not None:
            self.changed_workers[worker.id] = worker
            pool = worker.pool
        else:
            assert attempt.pool is not None
            pool = attempt.pool
        if pool.full and freed:
            self._unpark(pool)
        return attempt

    def _unpark(self, pool: Pool) -> None:
        steps, pool.full = pool.full, []
        for step in steps:
            if step.avoid_full and step.state is DELAYED:
                step.avoid_full = False
                self.make_ready(step)
                self.unparked = True

    def apply_failed(self, record: facts.StepFailed) -> None:
        if record.worker:
            step = self._end_attempt(record.token).step
            step.worker = record.worker
        else:
            step = self.attempts[record.token].step
        step.current = None
        step.error = record.error
        step.error_kind = record.kind
        if record.kind == KIND_LOST:
            step.losses += 1
        elif record.again_at != NEVER:
            step.retries += 1
        if record.again_at == NEVER:
            self._break(step)
        else:
            self._delay(step, record.again_at)

    def _break(self, step: Step) -> None:
        step.state = BROKEN
        step.finished_at = self.now
        run = step.run
        run.left -= 1
        for index in run.flow.descendants(step.index):
            child = run.steps[index]
            if child.state is PENDING:
                child.state = SKIPPED
                run.left -= 1

    def _delay(self, step: Step, until: int) -> None:
        if until <= self.now:
            self.make_ready(step)
            return
        step.state = DELAYED
        step.again_at = until
        self.timers.retry(step)

    def _apply_returned(self, record: facts.StepReturned) -> None:
        attempt = self.attempts[record.token]
        pool = attempt.pool
        full = record.reason == RETURNED_FULL
        self._end_attempt(record.token, freed=not full)
        step = attempt.step
        if step.current is not attempt:
            return
        step.current = None
        if full and pool is not None:
            self._delay(step, self.now + FULL_RETRY_MS)
            step.avoid_full = True
            pool.full.append(step)
        else:
            self.make_ready(step)

    def _apply_over(self, record: facts.AttemptEnded) -> None:
        self._end_attempt(record.token)

    def _apply_lent(self, record: facts.StepLent) -> None:
        attempt = self.attempts[record.token]
        lend(attempt)
        self._changed(attempt)

    def _apply_resumed(self, record: facts.StepResumed) -> None:
        attempt = self.attempts[record.token]
        resume(attempt)
        self._changed(attempt)

    def _changed(self, attempt: Attempt) -> None:
        if attempt.worker is not None:
            self.changed_workers[attempt.worker.id] = attempt.worker

    def _apply_refreshed(self, record: facts.StepRefreshed) -> None:
        attempt = self.attempts[record.token]
        attempt.until = record.until
        self.timers.extended(attempt)

    # ---- cancels of what was not read, lost lanes -------------------------------------------------------------------------

    def _apply_awaited(self, record: facts.CancelAwaited) -> None:
        self.awaited[record.run] = (record.reason, record.at)

    def _apply_dropped(self, record: facts.CancelsDropped) -> None:
        self.awaited = {run: entry for run, entry in self.awaited.items() if entry[1] >= record.before}

    def _apply_lanes(self, record: facts.LanesReset) -> None:
        self.lanes_until = record.until
        self.unclaimed = {token: None for token, attempt in self.attempts.items() if not attempt.held}

    def _apply_claimed(self, record: facts.StepClaimed) -> None:
        self.unclaimed.pop(record.token, None)

    def _apply_settled(self, record: facts.LanesSettled) -> None:
        self.lanes_until = 0
        self.unclaimed = {}


def schedule_timeout_ms(step: Step) -> int:
    """How long the step may wait for a place; 0: for ever."""
    flow = step.run.flow
    return flow.steps[step.index].schedule_timeout_ms or (HARD_SCHEDULE_TIMEOUT_MS if flow.sticky == "HARD" else 0)


def _nothing(record: facts.Fact) -> None:
    """A fact for readers of the history; the state stays as it is."""
