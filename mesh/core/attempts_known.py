"""How facts about steps and their attempts change what is remembered."""

from __future__ import annotations

from mesh.core import records as facts
from mesh.core.memory import Memory
from mesh.core.records import KIND_LOST, NEVER
from mesh.core.slots import Pool, Worker, charge, discharge, hold, lend, resume
from mesh.core.step import BROKEN, DELAYED, DONE, HELD, OUT, PENDING, SKIPPED, Attempt, Step
from mesh.core.timers import EXECUTION_GRACE_MS
from mesh_sdk.protocol.records import RETURNED_FULL

FULL_RETRY_MS = 250
"""A step that found no room waits this long at most, even when nothing else happens in the pool."""


class AttemptsKnown(Memory):
    """Attempts go out, are held, and end; the ledger and the next steps follow."""

    def _apply_due(self, record: facts.StepDue) -> None:
        step = self.runs[record.run].steps[record.step]
        step.avoid_full = False
        self.make_ready(step)

    def apply_released(self, record: facts.StepReleased) -> None:
        run = self.runs[record.run]
        step = run.steps[record.step]
        worker = self.workers[record.worker] if record.worker else None
        pool = self.pools[record.pool]
        attempt = Attempt(step, record.attempt, record.token, pool, worker)
        self.attempts[record.token] = attempt
        step.state = OUT
        step.attempt = record.attempt
        step.started_at = self.now
        step.current = attempt
        step.last_token = record.token
        self.waiting -= 1
        charge(attempt)
        if step.is_key:  # nobody accepts what takes no slot: its time runs from here
            timeout = run.flow.steps[step.index].timeout_ms
            attempt.until = self.now + timeout + EXECUTION_GRACE_MS
            self.timers.execution(attempt, timeout)
        if run.flow.keyed:
            self.limits.released(attempt, self.now)
        self._was_served(step, worker)
        if worker is not None and attempt.slots:
            if run.loose:  # another step of it can't run here: it waits until this one has ended
                run.loose = False
                self.requeue_all(run)
            self._clean_bound(worker, step)

    def _was_served(self, step: Step, worker: Worker | None) -> None:
        """The lines that it waited in go on: a line that others take turns in by its turn, the others by dropping it."""
        self.routes.queue(step.action).served(step)
        if worker is not None and step.run.worker == worker.id:
            worker.line.served(step)

    def _clean_bound(self, worker: Worker, step: Step) -> None:
        step.worker = worker.id
        if step.sticky_at and step.sticky_at + step.run.flow.definition.sticky_timeout_ms <= self.now:
            self.await_worker(step)  # the run could not move; from now on it waits for the slot it was given
        self.tidy_queues(worker.id)
        self.changed_workers[worker.id] = worker

    def _apply_recalled(self, record: facts.StepRecalled) -> None:
        self.attempts[record.token].recalled = True

    def _apply_accepted(self, record: facts.StepAccepted) -> None:
        attempt = self.attempts[record.token]
        worker = self.workers[record.worker]
        self.unclaimed.pop(record.token, None)
        hold(attempt, worker)
        self.rehome_children(attempt)
        step = attempt.step
        if step.current is attempt:
            step.state = HELD
            step.run.begun = True
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
        step.output = record.output.copy()  # as it is, it keeps the whole frame that it came in
        step.worker = record.worker
        step.finished_at = self.now
        step.current = None
        run = step.run
        run.begun = run.begun or not step.is_key
        run.left -= 1
        if run.left:
            for index in run.flow.children[step.index]:
                child = run.steps[index]
                child.needs -= 1
                if not child.needs and child.state is PENDING:
                    self.make_ready(child)
            self.unplaced(run)

    def _end_attempt(self, token: str, *, freed: bool = True) -> Attempt:
        """The attempt leaves the ledger; unless it found no room (`freed` False), steps that found none may try again."""
        attempt = self.attempts.pop(token)
        discharge(attempt)
        if attempt.step.run.flow.keyed:
            self.limits.over(attempt)
        worker = attempt.worker
        if worker is not None:
            self.changed_workers[worker.id] = worker
            pool = worker.pool
            self.rehome_children(attempt)
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
            step.current = None
        else:
            attempt = self.attempts[record.token]
            step = attempt.step
            step.current = None
            self.limits.given_up(attempt)
            self.rehome_children(attempt)
        step.run.begun = step.run.begun or not step.is_key
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
        self.unplaced(step.run)

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
        if attempt.recalled:
            self.make_ready(step, still=True)
        elif full and pool is not None:
            self._delay(step, self.now + FULL_RETRY_MS)
            step.avoid_full = True
            pool.full.append(step)
        else:
            self.make_ready(step)
        self.unplaced(step.run)

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
