"""A worker at work: connects, opens an incarnation, opens another when that one had to be given up, and ends in order.

Rule: whatever was started is ended here, in the opposite order.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import secrets
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from mesh_sdk.client import Client
from mesh_sdk.config import Settings
from mesh_sdk.context import current_fields
from mesh_sdk.errors import MeshError
from mesh_sdk.labels import Label
from mesh_sdk.observe import logs
from mesh_sdk.protocol import ids
from mesh_sdk.protocol.beats import WorkerBeat
from mesh_sdk.protocol.records import Registered
from mesh_sdk.protocol.subjects import Subjects
from mesh_sdk.transport.errors import Disconnected, TimedOut
from mesh_sdk.worker.clock import Clock
from mesh_sdk.worker.hold import Holds
from mesh_sdk.worker.holder import Holder
from mesh_sdk.worker.identity import Identity
from mesh_sdk.worker.locals import RUNS_MAX, Locals
from mesh_sdk.worker.observer import Observer
from mesh_sdk.worker.parts import Parts
from mesh_sdk.worker.presence import Presence
from mesh_sdk.worker.profile import Profile
from mesh_sdk.worker.pulse import STALL_S, Pulse
from mesh_sdk.worker.registration import await_free_id
from mesh_sdk.worker.session import Session
from mesh_sdk.worker.slots import Slots
from mesh_sdk.worker.sticky import StickyEvents
from mesh_sdk.worker.threads import Threads
from mesh_sdk.worker.unless import unless

if TYPE_CHECKING:
    from mesh_sdk.transport.bus import Bus, Subscription

log = logging.getLogger(__name__)

PATIENCE_S = 5.0
"""A worker that is not registered by then says what it waits for."""

_HEX = frozenset("0123456789abcdef")

KEY_THREADS = 4
"""Threads for key functions that are plain functions: they must be quick, and steps must not keep them from being called."""

LOOK_TICKS = 5
"""Every how many ticks of the pulse the session is looked at."""

PRESENCE_TTL_S = 5.0
PRESENCE_TTL_CLUSTER_S = 15.0
"""A replicated bucket pauses writes for seconds when its leader dies."""


class Runtime:
    """One running worker.

    Args:
        settings: where the mesh is.
        identity: who the worker is.
        observer: told what happens.
        clock: the machine's.
        sdk: version of the SDK, for the registration.
        sticky_runs: for how many sticky runs something is kept.

    Attributes:
        locals: what is kept for them.
        on_tick: called with every tick of the main loop.
    """

    def __init__(
        self, settings: Settings, identity: Identity, observer: Observer, clock: Clock, sdk: str, sticky_runs: int = RUNS_MAX
    ) -> None:
        self._settings = settings
        self._identity = identity
        self._clock = clock
        self._observer = observer
        self._subjects = Subjects(settings.namespace)
        self.slots = Slots(identity.slots)
        self.threads = Threads(2 * identity.slots)
        self._key_threads = Threads(KEY_THREADS, "mesh-key")
        self.locals = Locals(StickyEvents(observer, identity.worker), sticky_runs)
        self.on_tick: Callable[[], None] | None = None
        self.loop = asyncio.get_running_loop()
        self._client = Client(settings, self.loop)
        started_ms = clock.wall_ms()
        self._profile = Profile(settings, identity, self.slots, self.threads, self._client.client_id, sdk, started_ms)
        self._pulse = Pulse(clock.monotonic, self._tick)
        self._holds = Holds(clock.monotonic, self._pulse.lag_s)
        self._ticks = 0
        self._stalled = False
        self._stop = asyncio.Event()
        self._stop_asked = False
        self._cancel = asyncio.Event()
        self._fenced = asyncio.Event()
        self._registered = asyncio.Event()
        """An incarnation is known to the leader, or the worker has ended."""
        self._ended = False
        self._incarnation = ids.incarnation_id(started_ms, secrets.token_bytes(3))
        self._presence: Presence | None = None
        self._session: Session | None = None
        self._bus: Bus | None = None
        self._subscriptions: list[Subscription] = []

    # ---- what others may ask ------------------------------------------------------------------------------------

    def request_stop(self) -> None:
        """Begin to drain; asked a second time, tell the steps to stop."""
        if self._stop_asked:
            self._cancel.set()
        self._stop_asked = True
        self._stop.set()

    def take_labels(self, labels: Mapping[str, Label]) -> None:
        """Have other labels from now on.

        Raises:
            MeshError: called on another event loop than the worker's.
        """
        if asyncio.get_running_loop() is not self.loop:
            raise MeshError(
                f"labels of worker {self._identity.worker!r} can't be set on this event loop, use that which it runs on; "
                "on a thread without one, as in a sync step: worker.set_labels_sync(…)"
            )
        self._identity.values = dict(labels)

    async def register_again(self) -> None:
        """Tell the leader of changed labels, now or once it knows the worker at all; return when it knows, or the worker has ended."""
        told = False
        while not told:
            await self._registered.wait()
            told = self._ended or (self._session is not None and await self._session.register_again(self._profile.register))

    @property
    def ready(self) -> bool:
        """The leader has journaled the registration, and the worker takes work."""
        session = self._session
        return session is not None and session.ready and not session.draining and not session.paused

    @property
    def draining(self) -> bool:
        """The worker finishes what it holds and takes nothing new."""
        return self._session is not None and self._session.draining

    @property
    def heartbeat_ms(self) -> int:
        """Milliseconds since 1970 of the last beat that went out."""
        return self._presence.beat_ms if self._presence is not None else 0

    @property
    def reports_waiting(self) -> int:
        """Reports that are not stored yet."""
        return self._session.reports.waiting if self._session is not None else 0

    @property
    def connected(self) -> bool:
        """The connection is up."""
        return self._bus is not None and self._bus.connected

    def readiness(self) -> tuple[bool, str]:
        """Whether the worker takes work, and in words how it stands."""
        if self.draining:
            return False, "draining"
        if not self.ready:
            return False, "paused" if self._session is not None and self._session.paused else "not registered"
        return (True, "ready") if self.connected else (False, "no connection to NATS")

    # ---- its life -----------------------------------------------------------------------------------------------

    async def run(self, on_ready: Callable[[], None], grace_s: float) -> None:
        """Work until `request_stop`.

        Args:
            on_ready: called once the leader has journaled the registration.
            grace_s: how long running steps get when the worker stops.

        Raises:
            ConnectionFailed: no server.
            RegistrationRefused: the id is held, or the leader won't have the definitions.
        """
        logs.ask(current_fields)
        try:
            parts = await self._open()
            await self._work(parts, on_ready)
            await self._finish(grace_s)
        except asyncio.CancelledError:
            await self._give_up()
            raise
        finally:
            await self._close()

    async def _open(self) -> Parts:
        identity, subjects = self._identity, self._subjects
        bus = await self._client.bus()
        ttl_s = _presence_ttl_s(bus)
        holder = Holder(bus, subjects, identity.worker) if identity.chosen else None
        if holder is not None:
            self._incarnation = _after(await await_free_id(bus, subjects, holder, ttl_s), self._incarnation)
        self._client.on_notice(Registered, self._on_registered)
        self._subscriptions.append(await bus.subscribe(subjects.control(identity.worker), self._on_control))
        self._subscriptions.append(await bus.subscribe(subjects.control_all, self._on_control))
        self._bus = bus
        self.threads.open()
        self._key_threads.open()
        self._pulse.start()
        self._presence = Presence(self._connect, subjects, identity.worker, self._beat, self._holds, ttl_s=ttl_s, clock=self._clock)
        self._presence.start()
        return Parts(
            worker=identity.worker,
            holder=holder,
            view=identity,
            bus=bus,
            subjects=subjects,
            client=self._client,
            registry=identity.registry,
            slots=self.slots,
            threads=self.threads,
            key_threads=self._key_threads,
            holds=self._holds,
            locals=self.locals,
            observer=self._observer,
            clock=self._clock,
            presence=self._presence,
            pulse=self._pulse,
        )

    async def _work(self, parts: Parts, on_ready: Callable[[], None]) -> None:
        while not self._stop.is_set():
            self._fenced.clear()
            paused = self._session is not None and self._session.paused
            self._session = session = Session(parts, self._incarnation, self._on_fenced, self._stop.set, paused=paused)
            if await self._open_session(session):
                self._profile.say_registered()
                if session.ready:
                    self._registered.set()
                on_ready()
                await unless(self._stop, self._fenced.wait())
            if not self._stop.is_set():
                log.warning("worker %s lost touch with the mesh: it comes back as a new incarnation", parts.worker)
                await unless(self._stop, parts.presence.wait_confirmed())  # what it has finished is told when somebody hears it
                await session.bury()
                self._incarnation = _after(self._incarnation, ids.incarnation_id(self._clock.wall_ms(), secrets.token_bytes(3)))

    async def _open_session(self, session: Session) -> bool:
        """Whether the session is open; False when the worker is to stop before, or the server has gone away."""
        patience = asyncio.get_running_loop().call_later(PATIENCE_S, self._profile.say_waiting)
        try:
            return await unless(self._stop, session.open(self._profile.register(session)))
        except (TimedOut, Disconnected) as error:  # the server is away: that ends an incarnation, not the worker
            log.warning("worker %s could not register: %s", self._identity.worker, error)
            return False
        finally:
            patience.cancel()

    async def _finish(self, grace_s: float) -> None:
        session = self._session
        if session is None:
            return
        log.info("worker %s drains: %d steps to finish, %g s for them", self._identity.worker, len(session.steps.held), grace_s)
        draining = asyncio.ensure_future(session.drain(grace_s))
        cancel = asyncio.ensure_future(self._cancel.wait())
        try:
            await asyncio.wait([draining, cancel], return_when=asyncio.FIRST_COMPLETED)
            session.steps.cancel()
            await draining
        finally:
            draining.cancel()
            cancel.cancel()
        await self._leave(session)
        log.info("worker %s has left", self._identity.worker)

    async def _give_up(self) -> None:
        """Whoever serves was cancelled: what runs is told to stop and handed back at once."""
        if self._session is not None and self._session.ready:
            await self._session.drain(0)
            await self._leave(self._session)

    async def _leave(self, session: Session) -> None:
        self._registered.clear()
        await session.leave()

    async def _close(self) -> None:
        self._pulse.stop()
        self._ended = True
        self._registered.set()
        if self._session is not None:
            await self._session.close()
        if self._presence is not None:
            await self._presence.stop()
        for subscription in self._subscriptions:
            await subscription.close()
        self.threads.close()
        self._key_threads.close()
        await self._client.close()

    def _on_fenced(self) -> None:
        self._registered.clear()
        self._fenced.set()

    def _beat(self) -> WorkerBeat:
        return self._profile.beat(self._incarnation, self._session, self._pulse.lag_s())

    # ---- what comes in --------------------------------------------------------------------------------------------

    def _tick(self, late_s: float) -> None:
        self._observer.loop_lag(late_s)
        if self.on_tick is not None:
            self.on_tick()
        self._ticks += 1
        due, self._stalled = self._stalled or self._ticks % LOOK_TICKS == 0, late_s > STALL_S  # it pulls again at the tick after a stall
        if due and self._session is not None:
            self._session.look()

    def _on_registered(self, notice: Registered) -> None:
        if self._session is not None and notice.worker == self._identity.worker:
            self._session.on_registered(notice)

    def _on_control(self, _subject: str, reply: str, data: bytes) -> None:
        if data:
            self._asked(data)
        if reply and self._bus is not None:
            self._bus.publish(reply, json.dumps(self._profile.about(self._incarnation, self._session)).encode())

    def _asked(self, data: bytes) -> None:
        session = self._session
        try:
            question = json.loads(data)
        except ValueError:  # a foreign probe: it gets its answer all the same
            return
        if session is None or not isinstance(question, dict):
            return
        if question.get("ask") == "holding":
            number = question.get("question")
            session.report_holding(number if type(number) is int else 0)
        elif question.get("ask") == "register":
            session.start_over(question.get("incarnation"))

    async def _connect(self) -> Bus:
        from mesh_sdk.transport.connection import connect

        settings = self._settings
        return await connect(
            settings.servers, name=f"mesh worker {self._identity.worker} presence", connect_timeout=settings.connect_timeout_s
        )


def _after(incarnation: str, own: str) -> str:
    """An id that sorts after an incarnation's, `own` if that does: the wall clock may have been set back since."""
    if len(incarnation) != len(own) or not _HEX.issuperset(incarnation) or set(incarnation) == {"f"}:
        return own  # no worker wrote that
    return max(own, f"{int(incarnation, 16) + 1:0{len(own)}x}")


def _presence_ttl_s(bus: Bus) -> float:
    """As long as the scheduler has it: by MESH_REPLICAS where that is set, else by whether there is a cluster."""
    given = os.environ.get("MESH_REPLICAS", "")
    cluster = int(given) > 1 if given.isdigit() else bus.clustered
    return PRESENCE_TTL_CLUSTER_S if cluster else PRESENCE_TTL_S
