"""Frees what is decided: inputs behind their positions, answered lane messages, the journal behind its snapshots.

Rule: never past a position that is journaled, and never the message at it (it shows whether a stream lost its tail).
"""

from __future__ import annotations

import asyncio
import logging

from mesh.scheduler.inbox import EVENTS
from mesh.scheduler.lanes import PURGE_MESSAGES, Lanes
from mesh.scheduler.loop import Loop
from mesh.scheduler.trim import HelperFailed, crowded, trim
from mesh_sdk.protocol.subjects import Subjects
from mesh_sdk.transport.bus import Bus
from mesh_sdk.transport.errors import TransportError

log = logging.getLogger(__name__)

EVENTS_KEPT = 100_000
"""Events stay readable after they are decided, this many at most, and in half of the stream's bytes."""
SNAPSHOT_BYTES = 64 * 1024 * 1024
"""Journal bytes after which a snapshot is due."""
SNAPSHOT_FRAMES = 50_000
LANES_PART = 4
"""Past this part of its bytes the lanes' stream is freed of all that is answered, however few messages of a lane that are."""
SWEEP_ROUNDS = 60
"""As seldom all lanes are freed of what is answered: those of workers that are gone never come to a number worth a purge."""
JOURNAL_PART = 4
"""A snapshot is due at this part of the journal's bytes at the latest: between two of them there must be room."""
SNAPSHOT_AGAIN_S = 30.0
"""A snapshot that could not be made is tried again after this time."""


class Freeing:
    """Frees for one term."""

    def __init__(self, bus: Bus, subjects: Subjects, loop: Loop, lanes: Lanes, url: str, finished_max: int, snapshot_sequence: int) -> None:
        self._bus = bus
        self._subjects = subjects
        self._loop = loop
        self._lanes = lanes
        self._url = url
        self._finished_max = finished_max
        self._freed: dict[str, int] = {}
        self._snapshot_at = snapshot_sequence
        self._snapshot_bytes: int | None = None
        """`loop.frame_bytes` at the newest snapshot; of an older term's, what the journal held before."""
        self._snapshot_every = SNAPSHOT_BYTES
        self._snapshot: asyncio.Task[None] | None = None
        self._again_at: float | None = None
        self._rounds = 0

    async def round(self) -> None:
        """Free what can be freed now. Failing is harmless: the next round tries again.

        Each for itself: an input whose purge fails round after round must not keep the journal from its snapshots.
        """
        for part in (self._free_inputs, self._free_lanes, self._snapshot_if_due):
            try:
                await part()
            except TransportError as error:
                log.info("freeing is put off: %s", error)

    async def _free_inputs(self) -> None:
        for source in self._loop.inbox.sources:
            sequence = self._loop.positions.get(source.name, [0, 0])[0]
            sequence = min(sequence, self._loop.outbox.letters.unwritten(source.name) or sequence)
            if sequence <= self._freed.get(source.name, 0):
                continue
            if source.name == EVENTS:
                await self._free_events(sequence)
            else:
                await self._bus.purge(source.stream, subject=source.subject, before=sequence)
            self._freed[source.name] = sequence

    async def _free_events(self, decided: int) -> None:
        state = await self._bus.stream_state(self._subjects.events_stream)
        if state is None:
            return
        keep_from = state.last - EVENTS_KEPT
        if state.limit_bytes > 0 and state.bytes > state.limit_bytes // 2 and state.messages:
            keep_from = max(keep_from, state.first + state.messages // 2)
        before = min(decided, keep_from)
        if before > state.first:
            await self._bus.purge(self._subjects.events_stream, before=before)

    async def _free_lanes(self) -> None:
        stream = self._subjects.lanes_stream
        state = await self._bus.stream_state(stream)
        if state is None or not state.first <= self._lanes.fence <= state.last:  # deleted or emptied, with perhaps nothing to write
            return self._lanes.doubt()
        crowded = 0 < state.limit_bytes < LANES_PART * state.bytes
        self._rounds += 1
        whole = crowded or self._rounds % SWEEP_ROUNDS == 0
        for subject, before in self._lanes.purgeable(1 if whole else PURGE_MESSAGES):
            await self._bus.purge(stream, subject=subject, before=before)
        if self._lanes.fence:
            await self._bus.purge(stream, subject=self._subjects.lane_fence, before=self._lanes.fence)

    async def _journal_bytes(self) -> int:
        """Where this term begins to count: frames of older terms fill the journal too, and it may be a small one."""
        state = await self._bus.stream_state(self._subjects.journal_stream)
        if state is None:
            return 0
        if state.limit_bytes > 0:
            self._snapshot_every = min(SNAPSHOT_BYTES, state.limit_bytes // JOURNAL_PART)
        return min(0, self._snapshot_every - state.bytes)  # the older of the two snapshots keeps about so much

    async def _snapshot_if_due(self) -> None:
        if self._snapshot_bytes is None:
            self._snapshot_bytes = await self._journal_bytes()
        if self._snapshot is not None and not self._snapshot.done():
            return
        sequence, now = self._loop.journal.sequence, asyncio.get_running_loop().time()
        if self._again_at is not None:
            due = now >= self._again_at
        else:
            many = self._loop.frame_bytes - self._snapshot_bytes > self._snapshot_every or sequence - self._snapshot_at > SNAPSHOT_FRAMES
            due = many or await crowded(self._bus, self._subjects)
        if due:
            self._again_at = None
            self._snapshot_at, self._snapshot_bytes = sequence, self._loop.frame_bytes
            self._snapshot = asyncio.get_running_loop().create_task(self._make_snapshot())

    async def _make_snapshot(self) -> None:
        """Have a helper process write a snapshot, then trim the journal behind the older of the two that are kept."""
        try:
            await trim(self._bus, self._subjects, self._url, self._finished_max)
        except (HelperFailed, OSError, TransportError) as error:
            self._try_again(str(error))
        except Exception as error:  # a defect: without a word and another try there would be no snapshot for a long time
            log.exception("a snapshot failed in a way that nobody has thought of")
            self._try_again(repr(error))

    def _try_again(self, why: str) -> None:
        self._again_at = asyncio.get_running_loop().time() + SNAPSHOT_AGAIN_S
        log.error("no snapshot was made: %s. Nothing is lost: the journal stays whole; tried again in %g s", why, SNAPSHOT_AGAIN_S)
