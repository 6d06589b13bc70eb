"""What leaves the scheduler after its records stand: lane messages, notices, definitions, dead letters, the slots mirror.

`prepare` encodes while the frame is being written; `send` only sends. Rule: only what a journaled record says is sent.
"""

from __future__ import annotations

import asyncio
import base64
import logging
from collections.abc import Awaitable, Callable

import msgspec

from mesh.core.effects import Effects
from mesh.core.placement import steps_together
from mesh.core.records import InputRejected
from mesh.core.slots import Worker
from mesh.core.state import State
from mesh.scheduler.lanes import Lanes
from mesh.store.pools import PoolConsumers
from mesh.store.slots import Row, SlotsMirror
from mesh_sdk.protocol.codec import FRAME_BYTES_MAX, FRAME_RECORDS_MAX, encode
from mesh_sdk.protocol.definitions import WorkflowDefinition
from mesh_sdk.protocol.keys import workflow_key
from mesh_sdk.protocol.records import NULL, VERSION, Done, Notice, NoticeFrame, Registered, RunError
from mesh_sdk.protocol.subjects import Subjects
from mesh_sdk.transport.bus import Bus
from mesh_sdk.transport.errors import TransportError

log = logging.getLogger(__name__)

_DEAD_DATA_BYTES_MAX = 256 * 1024
_WRITTEN_S = 1.0


class Prepared:
    """Effects, encoded."""

    __slots__ = ("effects", "messages", "registered", "slots")

    def __init__(self, effects: Effects, messages: list[tuple[str, bytes]], registered: list[tuple[str, bytes]], slots: list[Row]) -> None:
        self.effects = effects
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
        self._chores: asyncio.Queue[Callable[[], Awaitable[None]]] = asyncio.Queue()

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
                self._chores.put_nowait(lambda worker=worker: self._mirror.retire(worker, self._state))  # type: ignore[misc]

    def slots_due(self, state: State) -> list[Worker]:
        """Workers whose slots are to be mirrored with the frame that is being closed."""
        return self._mirror.due(state)

    def prepare(self, effects: Effects, slots: list[Worker]) -> Prepared:
        """Encode what follows from a frame."""
        messages: list[tuple[str, bytes]] = []
        registered: list[tuple[str, bytes]] = []
        for client, notices in effects.notices.items():
            subject = self._subjects.done(client)
            if effects.registered:
                late: list[Notice] = [notice for notice in notices if type(notice) is Registered]
                notices = [notice for notice in notices if type(notice) is not Registered]
                registered += [(subject, data) for data in self._frames(late)]
            messages += [(subject, data) for data in self._frames(notices)]
        for pool, orders in effects.shared.items():
            known = self._state.pools.get(pool)
            self._lanes.prepare_shared(pool, orders, steps_together(known, len(orders)) if known is not None else 1)
        for address, private in effects.private.items():
            self._lanes.prepare_private(address, private)
        return Prepared(effects, messages, registered, self._mirror.encode(slots, self._state))

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
        self._lanes.send_prepared()
        if effects.answered:
            self._lanes.answered(effects.answered)
        publish = self._bus.publish
        for subject, data in prepared.messages:
            publish(subject, data)
        self._mirror.send(prepared.slots, sequence)
        self._retire_gone(prepared.slots)
        if effects.registered or effects.definitions:
            definitions = [record.definition for record in effects.definitions]
            self._chores.put_nowait(lambda: self._follow_workers(definitions, prepared.registered))
            self._chores.put_nowait(lambda: self.consumers.drop(self._state.pools, self._written))
        for rejected in effects.rejected:
            self._chores.put_nowait(lambda record=rejected: self._bury(record))  # type: ignore[misc]

    async def run(self) -> None:
        """Do the chores that need answers of the server, one after the other, for ever."""
        self._chores.put_nowait(lambda: self._mirror.retire_all(self._state))
        while True:
            chore = await self._chores.get()
            while True:
                try:
                    await chore()
                    break
                except TransportError as error:
                    log.warning("a chore of the scheduler failed, tried again: %s", error)
                    await asyncio.sleep(0.2)

    async def publish_definitions(self, definitions: list[WorkflowDefinition]) -> None:
        """Have the definitions in their bucket."""
        bucket = self._bus.bucket(self._subjects.workflows_bucket)
        for definition in definitions:
            await bucket.put(workflow_key(definition.name), encode(definition))

    async def _follow_workers(self, definitions: list[WorkflowDefinition], registered: list[tuple[str, bytes]]) -> None:
        """Definitions and consumers first, so that a worker that hears it is registered finds both."""
        await self.publish_definitions(definitions)
        await self.consumers.have(self._state.pools)
        for subject, data in registered:
            self._bus.publish(subject, data)

    async def _written(self) -> int | None:
        """The lanes' last sequence once all that is queued by now stands there; None when they take nothing for long."""
        return self._lanes.fence if await self._lanes.flush(_WRITTEN_S) else None

    async def _bury(self, record: InputRejected) -> None:
        """Keep what could not be read, with the reason. Its id makes a repeat after a takeover harmless."""
        names = self._subjects
        streams = {"events": names.events_stream, "reports": names.reports_stream}
        stored = await self._bus.get(streams.get(record.source, names.triggers_stream), record.sequence)
        letter = {
            "source": record.source,
            "sequence": record.sequence,
            "index": record.index,
            "reason": record.reason,
            "subject": stored.subject if stored else "",
            "data": base64.b64encode(stored.data[:_DEAD_DATA_BYTES_MAX]).decode() if stored else "",
        }
        source = record.source if record.source in streams else "triggers"
        await self._bus.append(
            names.dead(source), msgspec.json.encode(letter), message_id=f"dead-{record.source}-{record.sequence}-{record.index}"
        )
        log.warning("dead letter from %s, message %d: %s", record.source, record.sequence, record.reason)


def too_large(notice: Notice, limit: int) -> Notice:
    """What a client is told instead of a result that no message can carry."""
    if not isinstance(notice, Done):
        return notice
    text = f"the result of run {notice.run} is larger than the {limit} bytes that the server lets through: return less, or a reference"
    return Done(notice.run, "failed", NULL, [RunError("", "PayloadTooLarge", text)])
