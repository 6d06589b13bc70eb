"""One incarnation of the worker: its lanes, its registration, its reports, from opening to goodbye.

Rule: the private lane is followed before the registration is sent, and nothing is pulled before the leader has journaled it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from mesh_sdk.errors import Unavailable
from mesh_sdk.protocol.codec import encode
from mesh_sdk.protocol.records import Draining, Left, Register, Registered
from mesh_sdk.transport.bus import LaneMessage, PrivateLane, Puller
from mesh_sdk.transport.errors import TransportError
from mesh_sdk.worker.host import StepHost
from mesh_sdk.worker.loop import StepLoop
from mesh_sdk.worker.parts import Parts
from mesh_sdk.worker.registration import Registration
from mesh_sdk.worker.reports import Reports
from mesh_sdk.worker.unless import unless

log = logging.getLogger(__name__)

FLUSH_S = 5.0
STOP_S = 1.0
"""What was asked to stop gets this long to do so."""

UNREADABLE_BYTES_MAX = 64 * 1024


class Session:
    """One incarnation.

    Args:
        parts: what outlives it.
        incarnation: its id.
        on_fenced: called once when it must not go on.
        on_drain: called when an operator has the worker end.
        paused: an operator had the one before pause.
    """

    def __init__(
        self, parts: Parts, incarnation: str, on_fenced: Callable[[], None], on_drain: Callable[[], None], *, paused: bool = False
    ) -> None:
        self.incarnation = incarnation
        self.ready = False
        self.draining = False
        self._parts = parts
        self._on_fenced = on_fenced
        self._fenced = False
        self._over = asyncio.Event()
        self._registering = asyncio.Lock()
        self.reports = Reports(parts.bus, parts.subjects, parts.worker, incarnation)
        self.steps = StepLoop(
            parts.registry,
            parts.slots,
            parts.threads,
            parts.key_threads,
            self.reports,
            parts.holds,
            parts.observer,
            parts.clock,
            parts.locals,
            licence=parts.presence,
            on_unconfirmed=self.fence,
            on_room=self._poke,
            on_drain=on_drain,
            on_unreadable=self._set_aside,
        )
        self.steps.intake.paused = paused
        self.host = StepHost(
            self.steps,
            parts.view,
            parts.registry,
            self.reports,
            parts.slots,
            parts.threads,
            parts.client,
            parts.bus,
            parts.subjects,
        )
        self.steps.host = self.host
        self._registration = Registration(parts.bus, parts.subjects, self.reports, incarnation)
        self._lane: PrivateLane | None = None
        self._puller: Puller | None = None
        self._remove_listener: Callable[[], None] | None = None

    @property
    def paused(self) -> bool:
        """An operator has the worker take no new work for a while."""
        return self.steps.intake.paused

    # ---- opening ------------------------------------------------------------------------------------------------

    async def open(self, register: Register) -> None:
        """Follow the private lane, register, and begin to pull.

        Raises:
            RegistrationRefused: the leader won't have this worker.
        """
        parts, subjects = self._parts, self._parts.subjects
        stream = subjects.lanes_stream
        self._lane = parts.bus.private_lane(
            stream,
            subjects.worker_lane(parts.worker, self.incarnation),
            subjects.worker_push(parts.worker, self.incarnation),
            self.steps.on_private,
            self._lanes_lost,
        )
        await self._lane.start()
        await parts.presence.wait_confirmed()
        await self._registration.register(register, parts.holder)
        consumer = subjects.pool_consumer(parts.registry.pool)
        self._puller = parts.bus.puller(stream, consumer, self._demand, self._pulled)
        await self._puller.start()
        self._remove_listener = parts.bus.on_connection(self._connection)
        self.ready = not self._fenced  # it may have been, meanwhile
        parts.observer.registered(parts.registry.pool, parts.registry.actions(), parts.registry.sticky())

    async def register_again(self, register: Callable[[Session], Register]) -> bool:
        """Tell the leader what has changed.

        Args:
            register: makes what it is told, when its turn has come.

        Returns:
            Whether it has journaled that; False when this incarnation ended before.

        Raises:
            RegistrationRefused: the leader won't have it.
            Unavailable: the server is away.
        """
        async with self._registering:  # the leader's answers don't say which question they answer
            if not self.ready:
                return False
            try:
                return await unless(self._over, self._registration.register(register(self)))
            except TransportError as error:
                raise Unavailable(f"the leader could not be told what has changed of worker {self._parts.worker!r}: {error}") from error

    def on_registered(self, notice: Registered) -> None:
        """Take the leader's word on a registration."""
        if self._registration.on_registered(notice) or notice.incarnation != self.incarnation or not notice.refused:
            return
        log.warning("the leader does not know this worker any more (%s): starting over", notice.refused)
        self.fence()

    # ---- while it is open -----------------------------------------------------------------------------------------

    def _demand(self) -> int:
        return 0 if self._parts.pulse.stalled() else self.steps.demand()  # what came now would only go back

    def _pulled(self, message: LaneMessage) -> None:
        self.steps.on_shared(message, self._parts.pulse.stalled())

    def _poke(self) -> None:
        if self._puller is not None:
            self._puller.poke()

    def look(self) -> None:
        """A regular look: the lane may have been missed something, the licence may have run out."""
        if self._fenced:
            return
        if self.ready and not self._parts.presence.confirmed:
            self.fence()
            return
        if self._lane is not None and self.ready:
            self._lane.check()
        self.steps.look()
        self._poke()

    def report_holding(self, question: int = 0) -> None:
        """Tell of every attempt held.

        Args:
            question: of the leader; 0: it has not asked.
        """
        if self.ready and not self._fenced:
            self.steps.report_holding(question)

    def start_over(self, incarnation: object) -> None:
        """The leader has given this incarnation up, and what it holds to others: it must not go on."""
        if self.ready and incarnation == self.incarnation:
            log.warning("the leader does not know this worker any more: starting over")
            self.fence()

    def _lanes_lost(self) -> None:
        log.warning("the lanes were lost: reporting %d attempts held", len(self.steps.held))
        self.report_holding()

    def _connection(self, up: bool) -> None:
        if up:
            self._parts.observer.reconnected()
            self.report_holding()

    def _set_aside(self, data: bytes, reason: str) -> None:
        log.error("a lane message can't be read and is set aside: %s", reason)
        self._parts.observer.dead_letter()
        letter = {"worker": self._parts.worker, "reason": reason, "data": data[:UNREADABLE_BYTES_MAX].decode(errors="replace")}
        self._parts.bus.publish(self._parts.subjects.dead("lanes"), encode(letter))

    # ---- the end --------------------------------------------------------------------------------------------------

    def fence(self) -> None:
        """Stop everything at once: the mesh may believe that this incarnation is gone."""
        if self._fenced:
            return
        self._fenced = True
        self.ready = False
        self._over.set()
        self.steps.fence()
        self._on_fenced()

    async def bury(self) -> None:
        """End a fenced incarnation: what it had finished before is still told, where anybody wants to hear it."""
        await self._close_lanes()
        await self._flush()
        await self.close()

    async def drain(self, grace_s: float) -> None:
        """Take no more work, hand back what has not started, and finish what runs.

        Args:
            grace_s: how long running steps get before they are told to stop.
        """
        self.draining = True
        self.reports.put(Draining())
        self.steps.drain()  # what still comes, asked for before or lying in the lane, is handed back
        if not await self.steps.held.wait_empty(grace_s):
            log.warning("%d steps still run after %g s: they are told to stop", len(self.steps.held), grace_s)
            self.steps.cancel()
            await self.steps.held.wait_empty(STOP_S)
        self.steps.abandon()

    async def leave(self) -> None:
        """Say goodbye, after `drain`."""
        self.ready = False
        self._over.set()
        await self._close_lanes()
        self.reports.put(Left())
        await self._flush()
        await self.close()

    async def close(self) -> None:
        """End without a word. Again is once."""
        self.ready = False
        self._over.set()
        await self._close_lanes()
        await self.reports.close()

    async def _close_lanes(self) -> None:
        if self._remove_listener is not None:
            self._remove_listener()
            self._remove_listener = None
        if self._puller is not None:
            await self._puller.close()
            self._puller = None
        if self._lane is not None:
            await self._lane.close()
            self._lane = None
        self.host.parking.close()

    async def _flush(self) -> None:
        try:
            await asyncio.shield(self.reports.flush(FLUSH_S))
        except TransportError as error:
            log.error("not every report could be stored: %s", error)
