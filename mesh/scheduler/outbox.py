"""What leaves the scheduler after its records stand: lane messages, notices, definitions, dead letters, the slots mirror.

`prepare` encodes while the frame is being written; `send` only sends. Rule: only what a journaled record says is sent.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import NamedTuple

from mesh.core.effects import Effects
from mesh.core.placement import steps_together
from mesh.core.slots import Worker
from mesh.core.state import State
from mesh.scheduler.chores import Chores
from mesh.scheduler.definitions import Definitions
from mesh.scheduler.lanes import LaneMessage, Lanes
from mesh.scheduler.letters import Letters
from mesh.store.pools import PoolConsumers
from mesh.store.slots import Row, SlotsMirror
from mesh_sdk.protocol.codec import FRAME_BYTES_MAX, FRAME_RECORDS_MAX, encode
from mesh_sdk.protocol.definitions import WorkflowDefinition
from mesh_sdk.protocol.records import NULL, VERSION, Done, Notice, NoticeFrame, Registered, RunError
from mesh_sdk.protocol.subjects import Subjects
from mesh_sdk.transport.bus import Bus

log = logging.getLogger(__name__)

_WRITTEN_S = 1.0


class Told(NamedTuple):
    """What a worker hears about its registration."""

    worker: str
    refused: bool
    subject: str
    data: bytes


class Prepared:
    """Effects, encoded."""

    __slots__ = ("effects", "lanes", "messages", "registered", "slots")

    def __init__(
        self, effects: Effects, lanes: list[LaneMessage], messages: list[tuple[str, bytes]], registered: list[Told], slots: list[Row]
    ) -> None:
        self.effects = effects
        self.lanes = lanes
        self.messages = messages
        self.registered = registered
        self.slots = slots


class Outbox:
    """Sends for one term.

    Args:
        bus, subjects, state: of the scheduler.
        lanes: writes lane messages.
        term: stands in every notice.
    """

    def __init__(self, bus: Bus, subjects: Subjects, state: State, lanes: Lanes, term: int) -> None:
        self._bus = bus
        self._subjects = subjects
        self._state = state
        self._lanes = lanes
        self._term = term
        self._mirror = SlotsMirror(bus, subjects, term)
        self.consumers = PoolConsumers(bus, subjects)
        self._chores = Chores()
        self.letters = Letters(bus, subjects, self._chores)
        self._definitions = Definitions(bus, subjects, state, self._chores)

    def mirror(self, sequence: int) -> Callable[[], None]:
        """Mirror what has changed since the last frame: rows as of this sequence, sent when the result is called."""
        rows = self._mirror.encode(self._mirror.due(self._state), self._state)

        def send() -> None:
            self._mirror.send(rows, sequence)
            self._retire_gone(rows)

        return send

    def _retire_gone(self, rows: list[Row]) -> None:
        """Rows of workers that are gone stay for a day only."""
        for worker, row in rows:
            if not row["total"] and worker not in self._state.workers:
                self._retire(worker)

    def _retire(self, worker: str) -> None:
        self._chores.add(f"ending the row of worker {worker}", lambda: self._mirror.retire(worker, self._state))

    def slots_due(self, state: State) -> list[Worker]:
        """Workers whose slots are to be mirrored with the frame that is being closed."""
        return self._mirror.due(state)

    def prepare(self, effects: Effects, slots: list[Worker]) -> Prepared:
        """Encode what follows from a frame."""
        messages: list[tuple[str, bytes]] = []
        registered: list[Told] = []
        for client, notices in effects.notices.items():
            subject = self._subjects.done(client)
            if effects.registered:
                registered += [self._told(subject, notice) for notice in notices if type(notice) is Registered]
                notices = [notice for notice in notices if type(notice) is not Registered]
            messages += [(subject, data) for data in self._frames(notices)]
        for pool, orders in effects.shared.items():
            known = self._state.pools.get(pool)
            self._lanes.prepare_shared(pool, orders, steps_together(known, len(orders)) if known is not None else 1)
        for address, private in effects.private.items():
            self._lanes.prepare_private(address, private)
        return Prepared(effects, self._lanes.prepared(), messages, registered, self._mirror.encode(slots, self._state))

    def _told(self, subject: str, notice: Registered) -> Told:
        return Told(notice.worker, bool(notice.refused), subject, encode(NoticeFrame(VERSION, self._term, [notice])))

    def _frames(self, notices: list[Notice]) -> list[bytes]:
        found = []
        for start in range(0, len(notices), FRAME_RECORDS_MAX):
            found += self._split(notices[start : start + FRAME_RECORDS_MAX])
        return found

    def _split(self, notices: list[Notice]) -> list[bytes]:
        data = encode(NoticeFrame(VERSION, self._term, notices))
        if len(data) <= FRAME_BYTES_MAX or (len(data) <= self._bus.max_payload and len(notices) == 1):
            return [data]
        if len(notices) > 1:
            half = len(notices) // 2
            return self._split(notices[:half]) + self._split(notices[half:])
        return [encode(NoticeFrame(VERSION, self._term, [too_large(notices[0], self._bus.max_payload)]))]

    def send(self, prepared: Prepared, sequence: int) -> None:
        """Send what was prepared: its records stand at `sequence`."""
        effects = prepared.effects
        if effects.lanes_lost:
            self._lanes.forget()
        self._lanes.send(prepared.lanes)
        if effects.answered:
            self._lanes.answered(effects.answered)
        publish = self._bus.publish
        for subject, data in prepared.messages:
            publish(subject, data)
        self._mirror.send(prepared.slots, sequence)
        self._retire_gone(prepared.slots)
        if effects.registered or effects.definitions:
            names = [record.definition.name for record in effects.definitions]
            self._chores.add("following the workers", lambda: self._follow_workers(names, prepared.registered))
            self._chores.add("deleting consumers", lambda: self.consumers.drop(self._state.pools, self._written))
            self._chores.add("looking at the slots bucket", self._mirror.look)
        for rejected in effects.rejected:
            self.letters.add(rejected)

    async def run(self) -> None:
        """Do the chores that need answers of the server, for ever."""
        self._chores.add("ending rows of workers", lambda: self._mirror.retire_all(self._state))
        await self._chores.run()

    async def publish_definitions(self, definitions: list[WorkflowDefinition]) -> None:
        """Have the definitions in their bucket, as far as there is room."""
        await self._definitions.store([definition.name for definition in definitions])

    async def _follow_workers(self, names: list[str], registered: list[Told]) -> None:
        """Definitions and consumers first, so that a worker that hears it is registered finds both.

        One whose definitions find no room is not told: it asks again by itself, until there is some. Nor is anybody as long as
        the lanes can't be rid of what they are not to find there.
        """
        await self._definitions.store(names)
        await self.consumers.have(self._state.pools)
        workers = self._state.workers
        if not await self._clear({workers[told.worker].pool.id for told in registered if told.worker in workers}):
            log.info("%d workers are not told yet that they are registered: the lanes take nothing", len(registered))
            return
        for told in registered:
            worker = workers.get(told.worker)
            if told.refused or worker is None or await self._definitions.has(worker):
                self._bus.publish(told.subject, told.data)
            else:
                log.info("worker %s is not told yet that it is registered: its definitions find no room", told.worker)

    async def _clear(self, pools: set[str]) -> bool:
        """Rid the lanes of these pools of what is answered; False when the lanes take nothing for long.

        Whoever was the last of a pool may have left it full: that was handed back, and is given out anew. If somebody comes
        before its consumer is deleted, that stays, and delivers all of it.
        """
        await self._lanes.adopted.wait()
        if pools and await self._written() is None:
            return False
        for pool in sorted(pools):
            lane = self._subjects.shared_lane(pool)
            await self._bus.purge(self._subjects.lanes_stream, subject=lane, before=self._lanes.answered_before(lane))
        return True

    async def _written(self) -> int | None:
        """The lanes' last sequence once all that is queued by now stands there; None when they take nothing for long."""
        return self._lanes.fence if await self._lanes.flush(_WRITTEN_S) else None


def too_large(notice: Notice, limit: int) -> Notice:
    """What a client is told instead of a result that no message can carry."""
    if not isinstance(notice, Done):
        return notice
    text = f"the result of run {notice.run} is larger than the {limit} bytes that the server lets through: return less, or a reference"
    return Done(notice.run, "failed", NULL, [RunError("", "PayloadTooLarge", text)])
