"""The attempts that one incarnation of the worker holds: what comes, what starts, what ends, what is told about it.

Rule: every assignment that comes in is answered, by exactly one last report, or by none if the incarnation was fenced. All
of it happens on the event loop.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from mesh_sdk.context import Context
from mesh_sdk.protocol import records
from mesh_sdk.protocol.records import Accepted, Assign, Forget, Holding, Refresh, Withdraw
from mesh_sdk.transport.bus import LaneMessage
from mesh_sdk.worker.answers import Answers
from mesh_sdk.worker.arrivals import Arrivals
from mesh_sdk.worker.attempt import Attempt, Stop, spent_its_time
from mesh_sdk.worker.clock import Clock
from mesh_sdk.worker.execute import execute_async, execute_sync
from mesh_sdk.worker.failures import log_failed
from mesh_sdk.worker.held import Held
from mesh_sdk.worker.hold import Hold, Holds
from mesh_sdk.worker.intake import Intake
from mesh_sdk.worker.lending import Lending
from mesh_sdk.worker.licence import Licence
from mesh_sdk.worker.line import Line
from mesh_sdk.worker.locals import Locals
from mesh_sdk.worker.observer import Observer
from mesh_sdk.worker.orders import read_orders
from mesh_sdk.worker.outcome import Outcome, returned, stopped
from mesh_sdk.worker.registry import Registry
from mesh_sdk.worker.reports import Reports
from mesh_sdk.worker.slots import Slots
from mesh_sdk.worker.threads import Threads
from mesh_sdk.worker.watch import Watch

if TYPE_CHECKING:
    from mesh_sdk.worker.host import StepHost

log = logging.getLogger(__name__)

STOP_GRACE_S = 5.0
"""An async step that doesn't end within this after it was cancelled is answered for, and keeps its slot."""


class StepLoop:
    """Runs attempts in the worker's slots.

    Args:
        registry: what can be run.
        slots: the worker's, shared with earlier incarnations.
        threads: for sync steps, shared likewise.
        key_threads: for sync key functions, which take no slots and must not wait for steps.
        reports: where answers go.
        holds: the shared messages taken.
        observer: told of starts and ends.
        clock: the machine's.
        locals: memory of sticky runs.
        licence: says until when the worker may start something.
        on_unconfirmed: it may no more, and is fenced from now on.
        on_room: there is room for more shared work than before.
        on_drain: an operator has the worker end.
        on_unreadable: bytes from a lane that could not be read, and why.
    """

    def __init__(
        self,
        registry: Registry,
        slots: Slots,
        threads: Threads,
        key_threads: Threads,
        reports: Reports,
        holds: Holds,
        observer: Observer,
        clock: Clock,
        locals: Locals,
        licence: Licence,
        on_unconfirmed: Callable[[], None],
        on_room: Callable[[], None],
        on_drain: Callable[[], None],
        on_unreadable: Callable[[bytes, str], None],
    ) -> None:
        self._registry = registry
        self._slots = slots
        self._threads = threads
        self._key_threads = key_threads
        self._reports = reports
        self._holds = holds
        self._observer = observer
        self._monotonic = clock.monotonic
        self._boot = clock.boot
        self._locals = locals
        self._licence = licence
        self._on_unconfirmed = on_unconfirmed
        self._on_room = on_room
        self._on_unreadable = on_unreadable
        self._loop = asyncio.get_running_loop()
        self.held = self._held = Held()
        self._line = Line(slots)
        self._answers = Answers(reports)
        self._watch = Watch(self._monotonic, self._accept, self._timed_out)
        self.intake = Intake(registry, self._held, reports, licence, self._boot, on_room, on_drain)
        self._fenced = False
        self._room_told = False
        self._arrivals = Arrivals(locals, threads, self._may_start, self._launch, self._end)
        self.lending = Lending(slots, reports)
        self.host: StepHost
        slots.on_free = self._slots_freed

    # ---- what comes ---------------------------------------------------------------------------------------------

    def demand(self) -> int:
        """How many shared messages there is room for."""
        return 0 if self._fenced else self.intake.demand(self._room())

    def _room(self) -> int:
        """Slots for what comes now: those that are free, less what whoever waits here already wants of them."""
        free = self._slots.free
        wanted = self._line.reserved + self.lending.claimed
        return free if not wanted or self.host.parking.holds_all else free - wanted

    def look(self) -> None:
        """Some time has passed."""
        self.intake.asking.look()
        for attempt in self._line.look(stuck=self._slots.free > 0 and self.host.parking.holds_all):
            self._answer(attempt, returned(attempt.assign, records.RETURNED_FULL))

    def on_shared(self, message: LaneMessage, stalled: bool) -> None:
        """Take a message of the shared lane.

        Args:
            message: as pulled.
            stalled: the event loop was away so long that the message may have been given to another worker meanwhile.
        """
        if self._fenced:
            return  # it is for others
        orders = read_orders(message.data, self._on_unreadable)
        if not orders:
            message.ack()
            return
        self.intake.asking.came(len(orders))
        hold = self._holds.take(message, len(orders))
        refusal = records.RETURNED_REDELIVERED if message.deliveries > 1 else records.RETURNED_STALLED if stalled else ""
        for order in orders:
            if isinstance(order, Assign):
                self._arrive(order, hold, refusal)
            else:
                hold.answered()  # withdrawals and the like have no place on a shared lane

    def on_private(self, _sequence: int, data: bytes) -> None:
        """Take a message of the private lane."""
        for order in read_orders(data, self._on_unreadable):
            if isinstance(order, Assign):
                self._arrive(order, None, "")
            elif isinstance(order, Withdraw):
                self._withdraw(order)
            elif isinstance(order, Forget):
                self._locals.forget(order.run)
            else:
                self.intake.steer(order.what)

    def _arrive(self, assign: Assign, hold: Hold | None, refusal: str) -> None:
        if self._fenced or self._repeat(assign.token, hold):
            return
        action = self._registry.find(assign.workflow, assign.name)
        refusal = records.RETURNED_UNKNOWN_ACTION if action is None else self.intake.refusal(assign, hold, refusal)
        if refusal or action is None:
            self._return(assign, refusal, hold)
            return
        attempt = Attempt(assign, action, hold, min(action.slots, self._slots.total))
        if not attempt.slots or attempt.slots <= self._room():
            self._begin(attempt)
        elif hold is None:
            self._held[assign.token] = attempt
            self._line.append(attempt)
        else:
            self._return(assign, records.RETURNED_FULL, hold)

    def _repeat(self, token: str, hold: Hold | None) -> bool:
        """Answer what was here before as it was answered before. False for a new token."""
        attempt = self._held.get(token)
        if attempt is None:
            return self._answers.repeat(token, hold)
        if attempt.accepted:
            self._report_accepted(attempt, hold)
        elif hold is not None:
            hold.begun(attempt.started, attempt.action.timeout_s)
            attempt.hold = hold
        return True

    def _return(self, assign: Assign, reason: str, hold: Hold | None) -> None:
        self._answers.give(returned(assign, reason), hold)
        self._observer.steps_returned(reason)

    # ---- what starts --------------------------------------------------------------------------------------------

    def _may_start(self) -> bool:
        """Whether something may be started now; if not, all that is held is told to stop."""
        if not self._fenced and self._boot() >= self._licence.confirmed_until:
            self.fence()  # whatever it holds is given out anew
            self._on_unconfirmed()
        return not self._fenced

    def _begin(self, attempt: Attempt) -> None:
        if not self._may_start():
            return
        if attempt.slots:
            self._slots.take(attempt.slots)
            attempt.has_slot = True
        attempt.started = self._monotonic()
        if attempt.hold is not None:
            attempt.hold.begun(attempt.started, attempt.action.timeout_s)
        self._held[attempt.assign.token] = attempt
        self._observer.step_started(attempt.action.name)
        self._watch.begin(attempt)
        context: Context[object] = Context(attempt, self.host)
        if attempt.action.sticky:
            self._arrivals.begin(attempt, context)
        else:
            self._launch(attempt, context)

    def _launch(self, attempt: Attempt, context: Context[object]) -> None:
        if attempt.action.is_async:
            attempt.task = self._loop.create_task(self._run(attempt, context))
        else:
            threads = self._key_threads if attempt.action.is_key else self._threads
            threads.submit(partial(execute_sync, attempt, context), partial(self._end, attempt))

    async def _run(self, attempt: Attempt, context: Context[object]) -> None:
        outcome = await execute_async(attempt, context)
        attempt.task = None  # its context variables lead back here: without this only the garbage collector would free them
        self._end(attempt, outcome)

    def _slots_freed(self) -> None:
        if self._line.reserved or self.lending.claimed:
            self._serve_waiting()
        if not self._room_told and self._room() > 0:
            self._room_told = True
            self._loop.call_soon(self._tell_room)

    def _serve_waiting(self) -> None:
        """Steps that go on come first, then those that wait to begin; then there is room for others."""
        self.lending.grant()
        overtaking = self.host.parking.holds_all
        if self.lending.claimed and not overtaking:
            return
        while (attempt := self._line.pop(overtaking=overtaking)) is not None:
            self._begin(attempt)

    def _tell_room(self) -> None:
        self._room_told = False
        self._on_room()

    # ---- what ends ----------------------------------------------------------------------------------------------

    def _end(self, attempt: Attempt, outcome: Outcome) -> None:
        if not attempt.answered:
            self._answer(attempt, outcome)
        if attempt.entry is not None:
            self._arrivals.leave(attempt.entry)
        if attempt.has_slot:
            attempt.has_slot = False
            self._slots.give(attempt.slots)

    def _answer(self, attempt: Attempt, outcome: Outcome) -> None:
        attempt.answered = True
        self._watch.end(attempt)
        self._held.pop(attempt.assign.token, None)
        if not self._fenced:
            self._answers.give(outcome, attempt.hold)
        if attempt.entry is not None:
            self._arrivals.answered(attempt, outcome)
        self._observe(attempt, outcome)
        if self.intake.draining and attempt.spawned is not None:
            self._hand_back()
        if not self._held:
            self._held.emptied()

    def _observe(self, attempt: Attempt, outcome: Outcome) -> None:
        if isinstance(outcome, records.Returned):
            self._observer.steps_returned(outcome.reason)
            return
        how = records.SUCCEEDED if isinstance(outcome, records.Finished) else outcome.kind
        if isinstance(outcome, records.Failed):
            log_failed(attempt.assign, outcome, self.host.view.id())
        self._observer.step_finished(attempt.action.name, how, self._monotonic() - attempt.started)

    # ---- what is stopped ----------------------------------------------------------------------------------------

    def _withdraw(self, order: Withdraw) -> None:
        attempt = self._held.get(order.token)
        if attempt is None:
            if not self._repeat(order.token, None):
                self._answers.give(records.Returned(order.run, order.step, order.attempt, order.token, records.RETURNED_WITHDRAWN))
        elif not attempt.started:
            self._line.remove(attempt)
            self._answer(attempt, returned(attempt.assign, records.RETURNED_WITHDRAWN))
            self._slots_freed()  # those behind it may need fewer
        elif order.unless_started:
            self._accept(attempt)
        else:
            self._stop(attempt, Stop.CANCELLED, order.reason)

    def _timed_out(self, attempt: Attempt) -> None:
        if attempt.answered or attempt.stop is not None:
            return
        self._stop(attempt, Stop.TIMEOUT, spent_its_time(attempt, self._monotonic() - attempt.started))
        if attempt.task is None and not attempt.answered:  # a thread can't be ended: its slot stays in use until it returns
            self._answer(attempt, stopped(attempt))

    def _stop(self, attempt: Attempt, stop: Stop, reason: str) -> None:
        """Ask an attempt to stop. It is answered when it has, or after STOP_GRACE_S if it is a task that doesn't."""
        if attempt.stop is not None:
            return
        attempt.reason = reason
        attempt.stop = stop
        if self._arrivals.stop(attempt):
            return
        for waiter in attempt.waiters or ():
            waiter.cancel()
        if attempt.task is not None:
            if attempt.entered:
                attempt.task.cancel()
            self._watch.end(attempt)
            attempt.timer = self._loop.call_later(STOP_GRACE_S, self._overdue, attempt)

    def _overdue(self, attempt: Attempt) -> None:
        if not attempt.answered:
            log.warning("step %s of run %s was cancelled %g s ago and still runs", attempt.action.name, attempt.assign.run, STOP_GRACE_S)
            self._answer(attempt, stopped(attempt))

    # ---- what is told while it runs -----------------------------------------------------------------------------

    def _accept(self, attempt: Attempt) -> None:
        if attempt.action.is_key:
            return  # the leader counts nothing for it, and knows whom it has asked
        attempt.accepted = True
        self._report_accepted(attempt, attempt.take_hold())

    def _report_accepted(self, attempt: Attempt, hold: Hold | None) -> None:
        assign = attempt.assign
        self._reports.put(Accepted(assign.run, assign.step, assign.attempt, assign.token), hold=hold)

    def refresh(self, attempt: Attempt, extend_ms: int) -> None:
        """The attempt may run for `extend_ms` from now."""
        if attempt.answered or attempt.stop is not None:
            return
        assign = attempt.assign
        self._watch.extend(attempt, extend_ms / 1000)
        if attempt.hold is not None:
            attempt.hold.begun(self._monotonic(), extend_ms / 1000)
        self._reports.put(Refresh(assign.run, assign.step, assign.attempt, assign.token, extend_ms))

    def report_holding(self, question: int) -> None:
        """Tell of every attempt held, because the leader may have lost sight of them."""
        self._reports.put(Holding(self._held.told(), question), 64 + 96 * len(self._held))

    # ---- the end ------------------------------------------------------------------------------------------------

    def fence(self) -> None:
        """Stop everything and answer for nothing: the mesh may have given it to others by now."""
        self._fenced = True
        self._holds.clear()
        self._arrivals.fence()
        self._stop_all(Stop.FENCED, "the worker lost touch with the mesh")

    def drain(self) -> None:
        """Take no more, and hand back what has not started, but for what a step that runs may wait for."""
        self.intake.drain()
        self._hand_back()

    def _hand_back(self) -> None:
        for attempt in [attempt for attempt in self._line if not self.intake.is_needed(attempt.assign)]:
            self._line.remove(attempt)
            self._answer(attempt, returned(attempt.assign, records.RETURNED_DRAINING))
        if self._line:
            self._slots_freed()

    def cancel(self) -> None:
        """Ask whatever still runs to stop."""
        self._stop_all(Stop.DRAINING, "the worker is stopping")

    def _stop_all(self, stop: Stop, reason: str) -> None:
        self._line.clear()
        for attempt in list(self._held.values()):
            if attempt.started:
                self._stop(attempt, stop, reason)
            else:
                self._answer(attempt, returned(attempt.assign, records.RETURNED_DRAINING))

    def abandon(self) -> None:
        """Answer for whatever didn't stop."""
        for attempt in list(self._held.values()):
            log.warning("step %s of run %s still runs as the worker stops", attempt.action.name, attempt.assign.run)
            self._answer(attempt, stopped(attempt))
