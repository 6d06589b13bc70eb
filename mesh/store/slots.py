"""The slots bucket: the leader's ledger, mirrored at most every 100 ms a worker, exact as of a journal sequence.

The row of a worker that is gone stays for a day, so that `sticky_worker=` knows it, and then goes by itself: worker ids are
new at each start, and the bucket must not hold every one there ever was.
"""

from __future__ import annotations

import asyncio
import logging

import msgspec

from mesh.core.slots import Worker
from mesh.core.state import State
from mesh_sdk.protocol.subjects import Subjects
from mesh_sdk.transport.bus import Bus
from mesh_sdk.transport.errors import StreamFull

log = logging.getLogger(__name__)

INTERVAL_S = 0.1
STEPS_MAX = 200
"""Attempts named of one worker."""
GONE_TTL_S = 24 * 3600.0
"""How long a worker that is gone is known."""
FULL_PART = 0.99
"""Of its bytes, from which on the bucket counts as full."""

Row = tuple[str, dict[str, object]]


class SlotsMirror:
    """Puts workers' rows into the bucket; readers ignore rows of an older term or sequence."""

    def __init__(self, bus: Bus, subjects: Subjects, term: int) -> None:
        self._bus = bus
        self._bucket = bus.bucket(subjects.slots_bucket)
        self._prefix = f"$KV.{subjects.slots_bucket}."
        self._stream = f"KV_{subjects.slots_bucket}"
        self._full = False
        self._term = term
        self._next_at = 0.0

    def due(self, state: State) -> list[Worker]:
        """Workers whose rows have changed, if it is time."""
        now = asyncio.get_running_loop().time()
        if not state.changed_workers or now < self._next_at:
            return []
        self._next_at = now + INTERVAL_S
        workers = list(state.changed_workers.values())
        state.changed_workers = {}
        return workers

    def encode(self, workers: list[Worker], state: State) -> list[Row]:
        """Rows as of this moment."""
        return [
            (
                worker.id,
                {
                    "total": 0 if worker.gone else worker.slots,
                    "used": worker.used,
                    "reserved": len(worker.reserved),
                    "steps": [attempt.step.run.id + "/" + attempt.step.name for attempt in list(worker.held.values())[:STEPS_MAX]],
                },
            )
            for worker in workers
        ]

    def send(self, rows: list[Row], sequence: int) -> None:
        """The rows' journal sequence stands."""
        for worker, row in rows:
            row["term"], row["sequence"] = self._term, sequence
            self._bus.publish(self._prefix + worker, msgspec.json.encode(row))

    async def retire(self, worker: str, state: State) -> None:
        """Have the row of a worker end after GONE_TTL_S, unless it is back; at once, where its end finds no room beside it."""
        row = await self._bucket.get(worker)
        if row is None or worker in state.workers:
            return
        try:
            await self._bucket.put(worker, row[0], ttl_s=GONE_TTL_S)
        except StreamFull:
            await self._bucket.delete(worker)

    async def look(self) -> None:
        """Say so when the bucket is full: rows are sent without waiting for an answer, and new ones are refused then."""
        state = await self._bus.stream_state(self._stream)
        full = state is not None and state.bytes > FULL_PART * state.limit_bytes
        if full and not self._full:
            log.error("the slots bucket is full: rows of workers that come now are missing there, everything else goes on")
        self._full = full

    async def retire_all(self, state: State) -> None:
        """Retire every row of a worker that is not there: an older leader may not have come to it."""
        for worker in await self._bucket.entries():
            if worker not in state.workers:
                await self.retire(worker, state)
