"""What records make the shell send. Told once, from the records; the state only supplies the payloads they refer to.

Rule: nothing is sent that no record says. Telling the same records again (after a takeover) gives the same messages.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from msgspec import Raw

from mesh.core import records as facts
from mesh.core.run import Run
from mesh.core.slots import Worker
from mesh.core.state import State
from mesh.core.step import DONE, Attempt, Step
from mesh_sdk.protocol.records import (
    FORGET_ENDED,
    FORGET_MOVED,
    NULL,
    REFUSED,
    SUCCEEDED,
    Assign,
    Done,
    Forget,
    Notice,
    Order,
    Origin,
    Registered,
    RunError,
    Started,
    Steered,
    Withdraw,
)

Address = tuple[str, str]
"""(worker, incarnation) of a private lane."""


class Effects:
    """What is to be sent, in order."""

    __slots__ = ("answered", "definitions", "lanes_lost", "notices", "private", "registered", "rejected", "released", "shared")

    def __init__(self) -> None:
        self.shared: dict[str, list[Order]] = {}
        """By pool."""
        self.private: dict[Address, list[Order]] = {}
        self.notices: dict[str, list[Notice]] = {}
        """By client."""
        self.answered: list[str] = []
        """Tokens whose lane messages are not needed any more."""
        self.definitions: list[facts.WorkflowDefined] = []
        self.lanes_lost = False
        """Whatever was on its way to the lanes before is void."""
        self.registered = False
        """Workers have come or gone: the pools' consumers are to follow."""
        self.rejected: list[facts.InputRejected] = []
        self.released = 0


class Teller:
    """Tells effects from records."""

    def __init__(self, state: State) -> None:
        self.state = state
        self._arms: dict[type, Callable[[Any, Effects], None]] = {
            facts.StepReleased: self._released,
            facts.StepFinished: self._answered,
            facts.StepFailed: self._failed,
            facts.StepReturned: self._answered,
            facts.AttemptEnded: self._answered,
            facts.StepAccepted: self._accepted,
            facts.StepRecalled: self._recalled,
            facts.RunBound: self._bound,
            facts.StepStale: self._stale,
            facts.RunFinished: self._finished,
            facts.RunRefused: self._refused,
            facts.StartRepeated: self._repeated,
            facts.RunStarted: self._started,
            facts.WorkflowDefined: self._defined,
            facts.WorkerRegistered: self._registered,
            facts.WorkerRefused: self._worker_refused,
            facts.WorkerGone: self._gone,
            facts.WorkerSteered: self._steered,
            facts.InputRejected: self._rejected,
            facts.LanesReset: self._lanes_lost,
        }

    def tell(self, records: Iterable[facts.Fact]) -> Effects:
        """The effects of records that have just been applied."""
        effects = Effects()
        arms = self._arms
        for record in records:
            arm = arms.get(type(record))
            if arm is not None:
                arm(record, effects)
        return effects

    def _released(self, record: facts.StepReleased, effects: Effects) -> None:
        attempt = self.state.attempts.get(record.token)
        if attempt is None:  # over already: its worker went in the same frame
            return
        effects.released += 1
        order = assign(attempt)
        if attempt.worker is not None:
            effects.private.setdefault((attempt.worker.id, attempt.worker.incarnation), []).append(order)
        else:
            lane = effects.shared.get(record.pool)
            if lane is None:
                effects.shared[record.pool] = [order]
            else:
                lane.append(order)

    def _answered(self, record: Any, effects: Effects) -> None:
        effects.answered.append(record.token)

    def _accepted(self, record: facts.StepAccepted, effects: Effects) -> None:
        effects.answered.append(record.token)
        attempt = self.state.attempts.get(record.token)
        if attempt is None:
            return
        if attempt.step.current is not attempt:
            _withdraw(attempt, attempt.step.run.reason or "the run is over", effects)
        elif attempt.step.children and attempt.worker is not None:
            self._tell_children(attempt.step.children, attempt.worker, effects)

    def _tell_children(self, children: dict[str, tuple[str, str]], worker: Worker, effects: Effects) -> None:
        """A new attempt awaits what an earlier one has spawned, perhaps on another worker."""
        for _, child in children.values():
            run = self.state.find(child)
            if run is not None and run.finished_at:
                self._notice(worker.client, done(run), effects)

    def _failed(self, record: facts.StepFailed, effects: Effects) -> None:
        effects.answered.append(record.token)
        if not record.worker:
            attempt = self.state.attempts.get(record.token)
            if attempt is not None:
                _withdraw(attempt, record.error.message, effects)

    def _recalled(self, record: facts.StepRecalled, effects: Effects) -> None:
        attempt = self.state.attempts.get(record.token)
        if attempt is not None:
            _recall(attempt, effects)

    def _bound(self, record: facts.RunBound, effects: Effects) -> None:
        run = self.state.find(record.run)
        if run is not None and run.begun and record.worker and record.old not in ("", record.worker):
            self._forget(record.run, record.old, FORGET_MOVED, effects)

    def _forget(self, run: str, worker_id: str, reason: str, effects: Effects) -> None:
        """What the worker keeps for the run is of no use any more; one that has gone has lost it anyway."""
        worker = self.state.workers.get(worker_id)
        if worker is not None:
            effects.private.setdefault((worker.id, worker.incarnation), []).append(Forget(run, reason))

    def _stale(self, record: facts.StepStale, effects: Effects) -> None:
        worker = self.state.workers.get(record.worker)
        if worker is not None:
            order = Withdraw(record.run, record.step, record.attempt, record.token, "another attempt took its place")
            effects.private.setdefault((worker.id, worker.incarnation), []).append(order)

    def _finished(self, record: facts.RunFinished, effects: Effects) -> None:
        run = self.state.find(record.run)
        if run is None:
            return
        client = self._awaits(run)
        if client:
            notice = done(run)
            self._notice(client, notice, effects)
            for client in run.also or ():
                self._notice(client, notice, effects)
        if record.reason:  # ended from outside: its attempts did not end it
            self._withdraw_all(run, record.reason, effects)
        if run.flow.sticky and run.worker and (record.status != SUCCEEDED or len(run.flow.finals) != 1):
            self._forget(run.id, run.worker, FORGET_ENDED, effects)  # else the worker knows: its own last step ended it

    def _awaits(self, run: Run) -> str:
        """Who is told of a run's end: of a child's, the worker that its parent is on by now."""
        if run.parent is not None and (parent := self.state.runs.get(run.parent[0])) is not None:
            attempt = parent.steps[run.parent[1]].current
            if attempt is not None and attempt.worker is not None:
                return attempt.worker.client
        return run.client

    def _withdraw_all(self, run: Run, reason: str, effects: Effects) -> None:
        """Attempts of a run that was ended from outside are told to stop, where their holder is known."""
        for step in run.steps:
            attempt = self.state.attempts.get(step.last_token)
            if attempt is not None:
                _withdraw(attempt, reason, effects)

    def _refused(self, record: facts.RunRefused, effects: Effects) -> None:
        run = self.state.find(record.run)
        if run is not None and record.client:
            self._notice(record.client, done(run), effects)

    def _repeated(self, record: facts.StartRepeated, effects: Effects) -> None:
        if not record.client:
            return
        run = self.state.find(record.run)
        if record.requested != record.run:
            self._notice(record.client, Started(record.requested, record.run), effects)
        if run is not None and run.finished_at:
            self._notice(record.client, done(run), effects)

    def _started(self, record: facts.RunStarted, effects: Effects) -> None:
        if record.key and record.client:
            self._notice(record.client, Started(record.run, record.run), effects)

    def _defined(self, record: facts.WorkflowDefined, effects: Effects) -> None:
        effects.definitions.append(record)

    def _registered(self, record: facts.WorkerRegistered, effects: Effects) -> None:
        effects.registered = True
        self._notice(record.client, Registered(record.worker, record.incarnation), effects)

    def _worker_refused(self, record: facts.WorkerRefused, effects: Effects) -> None:
        if record.client:
            self._notice(record.client, Registered(record.worker, record.incarnation, record.reason), effects)

    def _steered(self, record: facts.WorkerSteered, effects: Effects) -> None:
        worker = self.state.workers.get(record.worker)
        if worker is not None:
            effects.registered = True
            _steer(worker, record.what, effects)

    def _gone(self, record: facts.WorkerGone, effects: Effects) -> None:
        effects.registered = True

    def _lanes_lost(self, record: facts.LanesReset, effects: Effects) -> None:
        """What the same frame has assigned before this is unclaimed, too, and given out anew: it must not get into the new lanes."""
        effects.lanes_lost = True
        effects.shared.clear()
        effects.private.clear()

    def _rejected(self, record: facts.InputRejected, effects: Effects) -> None:
        effects.rejected.append(record)

    def _notice(self, client: str, notice: Notice, effects: Effects) -> None:
        notices = effects.notices.get(client)
        if notices is None:
            effects.notices[client] = [notice]
        else:
            notices.append(notice)


def withdrawals(state: State) -> Effects:
    """After a takeover or the loss of the lanes: what must stop or be given back is told again, where it is known who has it."""
    effects = Effects()
    for attempt in state.attempts.values():
        if attempt.worker is None:
            continue
        if attempt.step.current is not attempt:
            _withdraw(attempt, "the run is over", effects)
        elif attempt.recalled and not attempt.held:
            _recall(attempt, effects)
    for worker in state.workers.values():
        if worker.steered:
            _steer(worker, worker.steered, effects)
    return effects


def _steer(worker: Worker, what: str, effects: Effects) -> None:
    effects.private.setdefault((worker.id, worker.incarnation), []).append(Steered(what))


def _withdraw(attempt: Attempt, reason: str, effects: Effects, *, unless_started: bool = False) -> None:
    """Have an attempt stopped where it is known to be."""
    worker = attempt.worker
    if worker is not None:
        step = attempt.step
        order = Withdraw(step.run.id, step.index, attempt.number, attempt.token, reason, unless_started)
        effects.private.setdefault((worker.id, worker.incarnation), []).append(order)


def _recall(attempt: Attempt, effects: Effects) -> None:
    _withdraw(attempt, "it waited too long", effects, unless_started=True)


def assign(attempt: Attempt) -> Assign:
    """The order that sends an attempt to a worker."""
    step = attempt.step
    run = step.run
    flow = run.flow
    parents = flow.parents[step.index]
    outputs = {flow.step_names[i]: run.steps[i].output for i in parents} if parents else {}
    return Assign(
        run.id, step.index, attempt.number, attempt.token, flow.name, flow.step_names[step.index], run.input, outputs, step.retries,
        _origin(run, step),
    )  # fmt: skip


def _origin(run: Run, step: Step) -> Origin | None:
    """The rarer facts about a run, None when there are none."""
    begun = (
        bool(run.flow.sticky) and not run.flow.parents[step.index] and any(other.state is DONE and not other.is_key for other in run.steps)
    )
    if run.metadata is None and run.parent is None and not run.event and not run.moves and step.children is None and not begun:
        return None
    children = [(position, digest, child) for position, (digest, child) in step.children.items()] if step.children else None
    return Origin(run.metadata or {}, run.parent[0] if run.parent else "", run.event, run.moves > 0, children, run.moves, begun)


def done(run: Run) -> Done:
    """What whoever awaits a run is told when it is over."""
    if run.status == SUCCEEDED:
        return Done(run.id, SUCCEEDED, Raw(run.output()))
    if run.refused is not None:
        kind, message = run.refused
        return Done(run.id, REFUSED, NULL, [RunError("", kind, message)])
    errors = [
        RunError(step.name, step.error.type, step.error.message, step.error.traceback, step.attempt)
        for step in run.broken_steps()
        if step.error is not None
    ]
    if run.reason:
        errors.insert(0, RunError("", run.status, run.reason))
    return Done(run.id, run.status, NULL, errors)
