"""Who holds a worker id that was chosen: a record in the presence bucket, written by compare-and-set only.

Two newcomers that find nobody there both go on; the record tells them apart. Each puts its own in place of the one that it
had seen before it looked around, and once more just before it registers. Whoever finds another's then gives way if that one
beats, and takes its place if it doesn't. Later, a worker that hears beats of its id which are not its own looks at the
record, and has the one start over that it does not name: one that stood still, was replaced, and woke.

Rule: only the worker whose record stands there registers.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from contextlib import suppress

import msgspec
from msgspec import Struct

from mesh_sdk.protocol.beats import WorkerBeat
from mesh_sdk.protocol.codec import decode_worker_beat, encode
from mesh_sdk.protocol.subjects import Subjects
from mesh_sdk.transport.bus import Bus
from mesh_sdk.transport.errors import TransportError, WrongSequence

STILL_BEATS_S = 1.5
"""Three beats: whoever is not heard for that long is not there, or stands still."""
RECORD_TTL_S = 7 * 86_400.0
"""Ids that nobody uses any more leave no record for ever."""

log = logging.getLogger(__name__)


class Record(Struct, array_like=True, gc=False):
    """Whose id it is. `incarnation` is "" until that worker is about to register."""

    owner: str
    incarnation: str = ""


_record = msgspec.json.Decoder(Record)


class Holder:
    """The record of one id, for one worker that wants it, over all its incarnations.

    Args:
        bus: the worker's connection.
        subjects: of the namespace.
        worker: the id.
    """

    def __init__(self, bus: Bus, subjects: Subjects, worker: str) -> None:
        self.worker = worker
        self._bus = bus
        self._bucket = bus.bucket(subjects.workers_bucket)
        self._beats = subjects.worker_beat(worker)
        self._control = subjects.control(worker)
        self._key = f"{worker}.holder"
        self._owner = secrets.token_hex(8)
        self._incarnation = ""
        self._before = ""
        """The incarnation before this one, whose last beats may still be on their way."""
        self._guarded = False
        self._check: asyncio.Task[None] | None = None

    async def seen(self) -> tuple[int, str]:
        """The record's revision now, 0 when there is none, and the incarnation that it names, "" when none."""
        found = await self._bucket.get(self._key)
        if found is None:
            return 0, ""
        with suppress(msgspec.MsgspecError):  # not a record of this version: nothing to go by
            return found[1], _record.decode(found[0]).incarnation
        return found[1], ""

    async def take(self, revision: int, incarnation: str = "") -> bool:
        """Put this worker's record in place of that of a revision; False when that is not the last one any more."""
        value = encode(Record(self._owner, incarnation))
        try:
            if revision:
                await self._bucket.update(self._key, value, revision, ttl_s=RECORD_TTL_S)
            else:
                await self._bucket.create(self._key, value, ttl_s=RECORD_TTL_S)
        except WrongSequence:
            return False
        return True

    async def claim(self, incarnation: str) -> WorkerBeat | None:
        """Make the id this worker's, to register under it.

        Args:
            incarnation: that is about to register.

        Returns:
            The beat of another worker, which has the id and lives; None when it is ours.
        """
        if self._incarnation != incarnation:
            self._before, self._incarnation = self._incarnation, incarnation
        while True:
            record, revision = await self._read()
            if record is not None and record.owner != self._owner and (beat := await self._heard(record, incarnation)) is not None:
                return beat
            if await self.take(revision, incarnation):
                break
        if not self._guarded:
            await self._bus.subscribe(self._beats, self._on_beat)  # for as long as the connection lives
            self._guarded = True
        return None

    async def _read(self) -> tuple[Record | None, int]:
        found = await self._bucket.get(self._key)
        return (_record.decode(found[0]), found[1]) if found is not None else (None, 0)

    async def _heard(self, other: Record, own: str) -> WorkerBeat | None:
        """A beat of the worker that the record names, if there is one."""
        heard: asyncio.Future[WorkerBeat] = asyncio.get_running_loop().create_future()

        def on_beat(_subject: str, _reply: str, data: bytes) -> None:
            with suppress(msgspec.MsgspecError):  # not a beat of this version
                beat = decode_worker_beat(data)
                its = beat.incarnation == other.incarnation if other.incarnation else beat.incarnation != own
                if its and not heard.done():
                    heard.set_result(beat)

        beats = await self._bus.subscribe(self._beats, on_beat)
        try:
            async with asyncio.timeout(STILL_BEATS_S):
                return await heard
        except TimeoutError:
            return None
        finally:
            await beats.close()

    # ---- once it is ours ------------------------------------------------------------------------------------------------------

    def _on_beat(self, _subject: str, _reply: str, data: bytes) -> None:
        with suppress(msgspec.MsgspecError):  # not a beat of this version
            beat = decode_worker_beat(data)
            ours = beat.incarnation in (self._incarnation, self._before)
            if not ours and (self._check is None or self._check.done()):
                self._check = asyncio.get_running_loop().create_task(self._settle(beat.incarnation), name="mesh worker id check")

    async def _settle(self, other: str) -> None:
        """Two incarnations beat: the one that the record does not name is to start over, and finds out about it as it registers."""
        try:
            record, _ = await self._read()
        except (TransportError, msgspec.MsgspecError) as error:
            log.debug("who holds worker id %s could not be found out, again at the next beat: %r", self.worker, error)
            return
        if record is None or other == self._incarnation:
            return
        ours = record.owner == self._owner
        late = other if ours else self._incarnation
        log.warning("another worker beats under the id %s: %s", self.worker, "it is told to go" if ours else "it has taken the id over")
        self._bus.publish(self._control, encode({"ask": "register", "incarnation": late}))
