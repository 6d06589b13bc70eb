"""Where everything is decided: `decide(input)` makes records, applies each as it is made, and keeps them for `take`.

Rule: deciding the same input twice changes nothing the second time. Frames are cut between records, so a successor
may meet an input of which only a part was journaled.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mesh.core import records as facts
from mesh.core.assigning import least_free
from mesh.core.claiming import Claiming
from mesh.core.graph import NUMBER_MAX
from mesh.core.inputs import (
    CancelsPassed,
    EventArrived,
    HoldingAsked,
    LanesLost,
    Sender,
    TermBegan,
    TimePassed,
    Undeliverable,
    Unreadable,
    WorkerVanished,
)
from mesh.core.keys import Evaluate
from mesh.core.quoting import REASON_CHARACTERS_MAX, cut
from mesh.core.quoting import reason as shortened
from mesh.core.records import KIND_LOST, NEVER
from mesh.core.retry import LOSSES_MAX, next_attempt_at
from mesh.core.run import LIVE, Run
from mesh.core.starting import client_name
from mesh.core.state import State
from mesh.core.step import HELD, OUT, READY, Attempt, Step
from mesh.core.timers import AdmissionTimer, DelayTimer, ExecutionTimer, RateTimer, ReadyTimer, RetryTimer
from mesh.core.waiting import waiting_for
from mesh_sdk.protocol import records as wire
from mesh_sdk.protocol.ids import is_run_id
from mesh_sdk.protocol.records import FAILED_ERROR, FAILED_TIMEOUT, StepError

AWAITED_MAX = 100_000
"""Cancels of runs whose start was not read yet. One more is dropped: whoever cancels so many asks again."""


class Core(Claiming):
    """Decides; one per term.

    Args:
        state: what the journal has told so far.
        token: gives a new random attempt token each time; tokens are journaled, so replaying needs none.
        evaluate: the value of a CEL expression; what follows from it is journaled too.
    """

    def __init__(self, state: State, token: Callable[[], str], evaluate: Evaluate | None = None) -> None:
        self.state = state
        self.token = token
        self.evaluate = evaluate
        self.out: list[facts.Fact] = []
        self._settled = False
        """Whether what an older leader left half done has been finished; see `settle`."""
        self._question = 0
        self._unheard = set()
        self._claims_until = 0
        self._arms: dict[type, Callable[[Any, Sender], None]] = {
            wire.Start: self.start,
            wire.Cancel: self.cancel,
            wire.Steer: self.steer,
            wire.Finished: self._finished,
            wire.Accepted: self._accepted,
            wire.Failed: self._failed,
            wire.Returned: self._returned,
            wire.Lent: self._lent,
            wire.Resumed: self._resumed,
            wire.Refresh: self._refresh,
            wire.Spawn: self.spawn,
            wire.Holding: self.holding,
            wire.Register: self.register,
            wire.Draining: self.draining,
            wire.Left: self.left,
            EventArrived: self.event,
            WorkerVanished: self._vanished,
            TimePassed: self._time_passed,
            LanesLost: self.lanes_lost,
            HoldingAsked: self.holding_asked,
            CancelsPassed: self._cancels_passed,
            Undeliverable: self._undeliverable,
            Unreadable: self._unreadable,
            TermBegan: self._term_began,
        }

    def begin(self, now: int) -> None:
        """A new journal frame begins; all its records happen at this core time (which never goes back)."""
        if now > self.state.now:
            self.state.now = now
        if not self._settled:
            self.settle()

    def settle(self) -> None:
        """Finish what the last record implies: an older leader may have died between two frames of one decision.

        After a whole decision there is nothing to do: every run without open steps has ended, no step waits for a
        place that is free. Part of an input that is decided again does not get here: its attempt is known to be over.
        """
        self._settled = True
        self.state.routes.begin_turns_anew()
        for worker in self.state.workers.values():
            worker.line.begin_anew()
        for group in self.state.limits.groups:
            group.line.begin_anew()
        for run in list(self.state.runs.values()):
            if not run.left:
                self.finish(run, run.outcome(), "")
            else:
                self.loosen(run)
        self.settle_limits()
        for id, (reason, _) in list(self.state.awaited.items()):
            if (cancelled := self.state.runs.get(id)) is not None:
                self.finish(cancelled, wire.CANCELLED, reason)
        for pool in sorted(self.state.pools.values(), key=least_free):
            self.pump(pool)
        self.serve_freed()

    def decide(self, input: Any, sender: Sender) -> None:
        """Decide one input: its records are made, applied, and wait in `out`."""
        self._arms[type(input)](input, sender)
        groups = self.state.limits.groups
        if (groups.freed or groups.came or groups.stalled) and self._settled:  # what a follower has gathered there is for `settle`
            self.serve_freed()
        if self.state.limits.let_pass:
            self.ask_again()

    def take(self) -> list[facts.Fact]:
        """The records made since the last call."""
        out, self.out = self.out, []
        return out

    # ---- reports of attempts --------------------------------------------------------------------------------------------

    def _attempt(self, report: Any, sender: Sender) -> Attempt | None:
        """The attempt that a report is about, if the sender may speak for it."""
        attempt = self.state.attempts.get(report.token)
        if attempt is None or attempt.number != report.attempt or attempt.step.run.id != report.run:
            return None
        worker = self.state.workers.get(sender.name)
        if worker is None or worker.incarnation != sender.incarnation:
            self._refuse_stranger(attempt, sender)
            return None
        if attempt.worker is not None and attempt.worker is not worker:
            return None
        return attempt

    def _refuse_stranger(self, attempt: Attempt, sender: Sender) -> None:
        """A worker that counts as gone reports: what it had from a shared lane is free for another."""
        if attempt.worker is None:
            self._lose(attempt, sender.name, "a worker that was given up reported it")
            if attempt.pool is not None:
                self.pump(attempt.pool)

    def _finished(self, report: wire.Finished, sender: Sender) -> None:
        attempt = self._attempt(report, sender)
        if attempt is None:
            return
        step = attempt.step
        if step.current is not attempt:
            self._end_orphan(attempt)
            return
        fact = facts.StepFinished(report.run, step.index, attempt.number, attempt.token, sender.name, report.output)
        self.out.append(fact)
        self.state.apply_finished(fact)
        self._go_on(step, attempt)

    def _go_on(self, step: Step, attempt: Attempt) -> None:
        """A step of the run has ended: end the run, or place what became ready; and fill the free slot."""
        run = step.run
        if step.is_key:
            self.key_function_ended(step)
        elif not run.left:
            self.finish(run, run.outcome(), "")
        elif run.flow.size > 1:
            for index in run.flow.children[step.index]:
                if run.steps[index].state is READY:
                    self.place(run.steps[index])
        pool = attempt.worker.pool if attempt.worker is not None else attempt.pool
        if pool is not None:
            self.pump(pool)
        if run.flow.sticky:
            self.loosen(run)

    def finish(self, run: Run, status: str, reason: str) -> None:
        """The run is over."""
        self.out.append(fact := facts.RunFinished(run.id, status, reason))
        self.state.apply_end(fact)

    def _end_orphan(self, attempt: Attempt) -> None:
        """An attempt that nobody waits for has ended."""
        self.record(facts.AttemptEnded(attempt.token))
        pool = attempt.worker.pool if attempt.worker is not None else attempt.pool
        if pool is not None:
            self.pump(pool)

    def _accepted(self, report: wire.Accepted, sender: Sender) -> None:
        attempt = self._attempt(report, sender)
        if attempt is None:
            if report.token not in self.state.attempts:
                self.record(facts.StepStale(report.run, report.step, report.attempt, report.token, sender.name))
        elif not attempt.held:
            self.hold(attempt, sender.name)

    def _failed(self, report: wire.Failed, sender: Sender) -> None:
        attempt = self._attempt(report, sender)
        if attempt is None:
            return
        step = attempt.step
        if step.current is not attempt:
            self._end_orphan(attempt)
            return
        again = next_attempt_at(step, report.kind, report.retry, self.state.now)
        self._fail(attempt, sender.name, report.error, report.kind, again)
        self._go_on(step, attempt)

    def _fail(self, attempt: Attempt, worker: str, error: StepError, kind: str, again_at: int) -> None:
        step = attempt.step
        fact = facts.StepFailed(step.run.id, step.index, attempt.number, attempt.token, worker, error, kind, again_at)
        self.out.append(fact)
        self.state.apply_failed(fact)
        if step.state is READY:
            self.place(step)

    def _lose(self, attempt: Attempt, worker: str, why: str) -> None:
        """The attempt is over without an answer that counts: an infrastructure failure."""
        step = attempt.step
        if step.current is not attempt:
            self.record(facts.AttemptEnded(attempt.token))
            return
        given_up = step.losses >= LOSSES_MAX
        message = f"{why}; given up after {step.losses + 1} such losses" if given_up else why
        again_at = NEVER if given_up else self.state.now
        self._fail(attempt, worker or "?", StepError("WorkerLost", message), KIND_LOST, again_at)
        self._end_if_over(step)

    def _end_if_over(self, step: Step) -> None:
        """A step may have failed for good: then its run may be over."""
        if step.is_key:
            self.key_function_ended(step)
        elif not step.run.left and step.run.status is LIVE:
            self.finish(step.run, step.run.outcome(), "")

    def _returned(self, report: wire.Returned, sender: Sender) -> None:
        attempt = self._attempt(report, sender)
        if attempt is None or (attempt.held and report.reason == wire.RETURNED_REDELIVERED):
            return
        pool = attempt.worker.pool if attempt.worker is not None else attempt.pool
        if attempt.step.current is not attempt:
            self.record(facts.AttemptEnded(attempt.token))
        elif report.reason == wire.RETURNED_REDELIVERED:
            self._lose(attempt, sender.name, "delivered twice: whoever had it first did not answer in time")
        elif report.reason == wire.RETURNED_UNKNOWN_ACTION:
            self._lose(attempt, sender.name, f"worker {sender.name} does not know {attempt.step.action}, which it registered")
        else:
            self.record(facts.StepReturned(attempt.token, sender.name, report.reason))
            if attempt.step.state is READY and attempt.recalled:
                self.place_elsewhere(attempt.step)
            elif attempt.step.state is READY:
                self.place(attempt.step)
        if pool is not None:
            self.pump(pool)
        self.loosen(attempt.step.run)

    def _lent(self, report: wire.Lent, sender: Sender) -> None:
        attempt = self._attempt(report, sender)
        if attempt is None or attempt.lent or attempt.step.is_key:
            return
        if not attempt.held:
            self.hold(attempt, sender.name)
        self.record(facts.StepLent(attempt.token))
        self.pump(self.state.workers[sender.name].pool)

    def _resumed(self, report: wire.Resumed, sender: Sender) -> None:
        attempt = self._attempt(report, sender)
        if attempt is not None and attempt.lent:
            self.record(facts.StepResumed(attempt.token))

    def _refresh(self, report: wire.Refresh, sender: Sender) -> None:
        attempt = self._attempt(report, sender)
        if attempt is None or attempt.step.current is not attempt or attempt.step.is_key or report.extend_ms <= 0:
            return
        if not attempt.held:
            self.hold(attempt, sender.name)
        if attempt.until:
            self.record(facts.StepRefreshed(attempt.token, max(attempt.until, self.state.now) + min(report.extend_ms, NUMBER_MAX)))

    def _vanished(self, input: WorkerVanished, sender: Sender) -> None:
        worker = self.state.workers.get(input.worker)
        if worker is not None and worker.incarnation == input.incarnation:
            self.remove(worker, input.reason)

    # ---- time ------------------------------------------------------------------------------------------------------------------

    def next_at(self) -> int | None:
        """Core time at which `TimePassed` is due, None when nothing waits for a time."""
        if not self._settled:
            return self.state.now
        timer = self.state.timers.next_at()
        lanes = self._claims_until if self.state.lanes_until else 0
        if lanes and (timer is None or lanes < timer):
            return lanes
        return timer

    def _time_passed(self, input: TimePassed, sender: Sender) -> None:
        state = self.state
        for timer in state.timers.due(state.now):
            if isinstance(timer, RetryTimer):
                self._retry(timer.step)
            elif isinstance(timer, ExecutionTimer):
                self._give_up(timer.attempt)
            elif isinstance(timer, ReadyTimer):
                self._waited_too_long(timer)
            elif isinstance(timer, AdmissionTimer):
                self.give_up_waiting(timer.run)
            elif isinstance(timer, DelayTimer):
                self.record(facts.RunBegan(timer.run.id))
                self.begin_run(timer.run)
            elif isinstance(timer, RateTimer):
                self.rate_came(timer.key)
        if state.lanes_until and 0 < self._claims_until <= state.now:
            self.settle_lanes()

    def _retry(self, step: Step) -> None:
        self.record(facts.StepDue(step.run.id, step.index))
        self.place(step)

    def _give_up(self, attempt: Attempt) -> None:
        """The attempt has had its time and its worker did not say so itself."""
        step = attempt.step
        seconds = step.run.flow.steps[step.index].timeout_ms / 1000
        error = StepError("TimeoutError", f"step {step.action} did not end within its {seconds:g} s, and its worker did not say so")
        self._fail(attempt, "", error, FAILED_TIMEOUT, next_attempt_at(step, FAILED_TIMEOUT, 0, self.state.now))
        self._end_if_over(step)
        self.loosen(step.run)
        if attempt.pool is not None:
            self.pump(attempt.pool)

    def _waited_too_long(self, timer: ReadyTimer) -> None:
        step = timer.step
        if timer.sticky and step.current is not None:
            self.record(facts.StepRecalled(step.current.token))
            return
        if timer.sticky:
            self.loosen(step.run)
            return
        seconds = (self.state.now - step.ready_at) / 1000
        reason = f"step {step.action} waited {seconds:.1f} s for a place (schedule timeout): waiting: {waiting_for(self.state, step).cause}"
        self.finish(step.run, wire.TIMED_OUT, reason)

    # ---- the rest ----------------------------------------------------------------------------------------------------------------

    def cancel(self, input: wire.Cancel, sender: Sender) -> None:
        """End a run, wherever it is; one whose start was not read yet will be cancelled when it is."""
        id = self.state.repeats.get(input.run, input.run)
        run = self.state.runs.get(id)
        why = cut(input.reason, REASON_CHARACTERS_MAX) or "cancelled"
        if run is not None:
            held = [step.current for step in run.steps if step.state in (OUT, HELD)]
            self.finish(run, wire.CANCELLED, why)
            for pool in {a.pool.id: a.pool for a in held if a is not None and a.pool is not None}.values():
                self.pump(pool)
        elif is_run_id(id) and not self.state.finished.knows(id) and id not in self.state.awaited and len(self.state.awaited) < AWAITED_MAX:
            self.record(facts.CancelAwaited(id, why, sender.time_ms))

    def _undeliverable(self, input: Undeliverable, sender: Sender) -> None:
        """No attempt can do better: the step fails for good."""
        attempt = self.state.attempts.get(input.token)
        if attempt is None or attempt.held:
            return
        if attempt.step.current is not attempt:
            self._end_orphan(attempt)
            return
        text = f"input and parents' outputs of step {attempt.step.action} have {input.bytes:,} bytes together, the server carries at most "
        error = StepError("PayloadTooLarge", f"{text}{input.bytes_max:,}: store them elsewhere and pass references")
        self._fail(attempt, "?", error, FAILED_ERROR, NEVER)
        self._go_on(attempt.step, attempt)

    def _cancels_passed(self, input: CancelsPassed, sender: Sender) -> None:
        if any(at < input.before for _, at in self.state.awaited.values()):
            self.record(facts.CancelsDropped(input.before))

    def _unreadable(self, input: Unreadable, sender: Sender) -> None:
        self.record(facts.InputRejected(input.source, input.sequence, input.index, shortened(input.reason)))
        start = input.start
        if start is not None and self.state.find(run := cut(start.run)) is None:
            self.record(facts.RunRefused(run, cut(start.workflow), client_name(sender.name), None, "MeshError", shortened(input.reason)))

    def _term_began(self, input: TermBegan, sender: Sender) -> None:
        self.record(facts.TermStarted(input.holder))
