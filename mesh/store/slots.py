"""The slots bucket: the leader's ledger, mirrored at most every 100 ms a worker, exact as of a journal sequence."""

from __future__ import annotations

import asyncio

import msgspec

from mesh.core.slots import Worker
from mesh.core.state import State
from mesh_sdk.protocol.subjects import Subjects
from mesh_sdk.transport.bus import Bus

INTERVAL_S = 0.1
STEPS_MAX = 200
"""Attempts named of one worker."""

Row = tuple[str, dict[str, object]]


class SlotsMirror:
    """Puts workers' rows into the bucket; readers ignore rows of an older term or sequence."""

    def __init__(self, bus: Bus, subjects: Subjects, term: int) -> None:
        self._bus = bus
        self._prefix = f"$KV.{subjects.slots_bucket}."
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
