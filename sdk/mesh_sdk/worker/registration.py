"""Making the worker known: is its id free, and has the leader journaled it?

Rule: nothing runs before the leader has said so.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import Any

import msgspec

from mesh_sdk.errors import RegistrationRefused
from mesh_sdk.protocol.beats import WorkerBeat
from mesh_sdk.protocol.codec import decode_leader_beat, decode_worker_beat
from mesh_sdk.protocol.records import Register, Registered
from mesh_sdk.protocol.subjects import Subjects
from mesh_sdk.transport.bus import Bus
from mesh_sdk.transport.errors import NoResponders, Refused, TimedOut, TransportError
from mesh_sdk.worker.holder import STILL_BEATS_S, Holder
from mesh_sdk.worker.reports import Reports

PROBE_TIMEOUT_S = 0.5
REPEAT_S = 2.0
REPEAT_S_MAX = 10.0

log = logging.getLogger(__name__)


async def await_free_id(bus: Bus, subjects: Subjects, holder: Holder, ttl_s: float) -> str:
    """Make sure that nobody else is this worker.

    Args:
        bus: the connection.
        subjects: of the namespace.
        holder: for the id that is wanted.
        ttl_s: how long a holder that does not go is listened for.

    Returns:
        The incarnation that had the id last; "" when that is not known.

    Raises:
        RegistrationRefused: another process holds the id and goes on beating.
    """
    worker, before = holder.worker, ""
    free = False
    while not free:
        revision: int | None = None
        try:
            revision, last = await holder.seen()
            before = last or before
        except TransportError as error:  # no scheduler has made the bucket yet: before it registers, the worker looks again
            log.debug("who holds worker id %s is not known yet: %r", worker, error)
        await _await_nobody(bus, subjects, worker, ttl_s)
        try:
            free = revision is None or await holder.take(revision)
        except TransportError as error:
            log.debug("worker id %s could not be taken yet: %r", worker, error)
            free = True
    return before


async def _await_nobody(bus: Bus, subjects: Subjects, worker: str, ttl_s: float) -> None:
    """Return when nobody answers for the id, or whoever did has fallen silent for as long as a presence lives."""
    loop = asyncio.get_running_loop()
    until = loop.time() + ttl_s
    answer = await _probe(bus, subjects, worker)
    if answer is None:
        return
    heard: list[tuple[float, WorkerBeat]] = []

    def on_beat(_subject: str, _reply: str, data: bytes) -> None:
        with suppress(msgspec.MsgspecError):  # not a beat of this version: nothing to go by
            heard[:] = [(loop.time(), decode_worker_beat(data))]

    beats = await bus.subscribe(subjects.worker_beat(worker), on_beat)
    never = asyncio.Event()
    try:
        while loop.time() < until:
            with suppress(TimeoutError):
                async with asyncio.timeout(min(PROBE_TIMEOUT_S, max(0.0, until - loop.time()))):
                    await never.wait()
            again = await _probe(bus, subjects, worker)
            if again is None:
                return
            answer = again or answer
    finally:
        await beats.close()
    if heard and loop.time() - heard[0][0] < STILL_BEATS_S:
        raise _refused(worker, answer, heard[0][1])


async def _probe(bus: Bus, subjects: Subjects, worker: str) -> bytes | None:
    """What whoever holds the id says of itself, empty when it says nothing; None when nobody is there."""
    try:
        return await bus.request(subjects.control(worker), b'{"ask":"who"}', PROBE_TIMEOUT_S)
    except NoResponders:
        return None
    except TransportError:
        return b""


def _refused(worker: str, answer: bytes, beat: WorkerBeat) -> RegistrationRefused:
    return RegistrationRefused(
        f"worker id {worker!r} is held by {_holder(answer, beat)}, which is {'draining' if beat.draining else 'alive'}: "
        f"{'wait until it has ended' if beat.draining else 'stop it'}, or give this worker another id (MESH_WORKER_ID or id=)"
    )


def _holder(answer: bytes, beat: WorkerBeat) -> str:
    told: dict[str, Any] = {}
    with suppress(msgspec.MsgspecError):
        told = msgspec.json.decode(answer, type=dict[str, Any])
    started = told.get("started_ms", beat.started_ms)
    return f"worker {told.get('name', beat.name)!r} (started {_time(started)}, incarnation {told.get('incarnation', beat.incarnation)})"


def _time(milliseconds: object) -> str:
    from datetime import UTC, datetime

    if not isinstance(milliseconds, int) or not milliseconds:
        return "at an unknown time"
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="seconds")


class Registration:
    """Registers one incarnation with whoever leads.

    Args:
        bus: the connection.
        subjects: of the namespace.
        reports: of this incarnation.
        incarnation: whose answer counts.
    """

    def __init__(self, bus: Bus, subjects: Subjects, reports: Reports, incarnation: str) -> None:
        self._bus = bus
        self._subjects = subjects
        self._reports = reports
        self._incarnation = incarnation
        self._term = 0
        self._answer: asyncio.Future[str] | None = None
        self._asked = False
        self._new_term = asyncio.Event()

    async def register(self, register: Register, holder: Holder | None = None) -> None:
        """Return once the leader has journaled the registration.

        Args:
            register: says what the worker is.
            holder: of a new incarnation whose id was chosen: it must still be this worker's.

        Raises:
            RegistrationRefused: it won't have it, or the worker's id has become another's.
        """
        if holder is not None:
            await self._claim(holder)
        beats = await self._bus.subscribe(self._subjects.leader_beat, self._on_beat)
        wait = REPEAT_S
        try:
            answer = await self._ask(register)
            while not answer.done():
                await self._first(answer, wait)
                wait = min(REPEAT_S_MAX, wait * 1.5)
                if not answer.done():
                    await self._tell(register)
        finally:
            await beats.close()
        if refused := answer.result():
            raise RegistrationRefused(refused)

    async def _ask(self, register: Register) -> asyncio.Future[str]:
        """Tell the leader for the first time; whose answer it is that comes from now on."""
        again, self._asked = self._asked, True
        if not again:
            self._answer = asyncio.get_running_loop().create_future()
        await self._tell(register)
        if again or self._answer is None:  # what was answered until now is what was asked before, more than once perhaps
            self._answer = asyncio.get_running_loop().create_future()
        return self._answer

    async def _tell(self, register: Register) -> None:
        self._new_term.clear()
        await asyncio.shield(self._reports.put(register, 1024))

    async def _claim(self, holder: Holder) -> None:
        """An id that was chosen must still be this worker's: two may have come at once, or one was away for long."""
        try:
            beat = await holder.claim(self._incarnation)
        except (NoResponders, Refused, msgspec.MsgspecError) as error:  # the server is about to come back: the worker tries again
            raise TimedOut(f"who holds the worker's id could not be found out: {error}") from error
        if beat is not None:
            raise _refused(beat.worker, b"", beat)

    async def _first(self, answer: asyncio.Future[Any], timeout: float) -> None:
        """Wait for the answer, a new leader, or `timeout`."""
        term: asyncio.Future[Any] = asyncio.ensure_future(self._new_term.wait())
        try:
            await asyncio.wait([answer, term], timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        finally:
            term.cancel()

    def on_registered(self, notice: Registered) -> bool:
        """Take the leader's answer. False when it answers nothing that was asked: see `refused` then."""
        if notice.incarnation != self._incarnation or self._answer is None or self._answer.done():
            return False
        self._answer.set_result(notice.refused)
        return True

    def _on_beat(self, _subject: str, _reply: str, data: bytes) -> None:
        with suppress(msgspec.MsgspecError):  # not a beat of this version
            beat = decode_leader_beat(data)
            if beat.term > self._term:
                if self._term:
                    self._new_term.set()
                self._term = beat.term
