"""Who should lead: a lease in a bucket, beats on a core subject. Who does lead, the journal alone decides.

Silence of the leader counts only while one's own connection and loop were up throughout; whoever was deposed waits.
Rule: nothing here is trusted with correctness; a wrong guess costs a refused write.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from hashlib import blake2b

import msgspec

from mesh_sdk.protocol.beats import LeaderBeat
from mesh_sdk.protocol.codec import decode_leader_beat, encode
from mesh_sdk.protocol.records import VERSION
from mesh_sdk.protocol.subjects import PARTITION, Subjects
from mesh_sdk.transport.bus import Bus
from mesh_sdk.transport.errors import TransportError, WrongSequence

log = logging.getLogger(__name__)

BEAT_S = 0.1
SILENCE_S = 0.5
JITTER_S = 0.2
LEASE_TTL_S = 3.0
DEPOSED_WAIT_S = 5.0
_STALL_S = 0.3


class Leadership:
    """Hears the leader, and knows when it is time to try.

    Args:
        bus, subjects: where beats and lease are.
        holder: this scheduler's id.
    """

    def __init__(self, bus: Bus, subjects: Subjects, holder: str) -> None:
        self._bus = bus
        self._subjects = subjects
        self.holder = holder
        self._lease = bus.bucket(subjects.leader_bucket)
        self._revision = 0
        self._loop = asyncio.get_running_loop()
        self._silent_since = self._loop.time()
        self._last_tick = self._loop.time()
        self._not_before = 0.0
        self._attempts = 0
        self.leader = ""
        self.term = 0
        self.leading = False
        self._changed = asyncio.Event()
        self.on_leader: Callable[[str, int], None] = lambda holder, term: None

    async def start(self) -> None:
        """Listen for beats."""
        await self._bus.subscribe(self._subjects.leader_beat, self._hear)
        self._bus.on_connection(self._connection)

    def _connection(self, up: bool) -> None:
        self._silent_since = self._loop.time()

    def _hear(self, subject: str, reply: str, data: bytes) -> None:
        try:
            beat = decode_leader_beat(data)
        except msgspec.MsgspecError:
            return
        now = self._loop.time()
        heard = now - self._silent_since < SILENCE_S / 2  # well before silence makes a candidate
        if beat.holder == self.holder or (beat.term < self.term and heard):  # a newer one that was heard once and never again was none
            return
        self._silent_since = now
        if beat.term != self.term or beat.holder != self.leader:
            self.leader, self.term = beat.holder, beat.term
            self.on_leader(beat.holder, beat.term)
            self._changed.set()
        if beat.resigned:
            self.leader = ""
            self._silent_since = self._loop.time() - SILENCE_S - JITTER_S
            self._changed.set()

    def newer_leader(self, term: int) -> bool:
        """Somebody else has been heard to lead in a newer term."""
        return self.term > term

    # ---- waiting for one's turn ---------------------------------------------------------------------------------------

    async def vacancy(self) -> None:
        """Return when the leader has been silent for long enough that this scheduler should try."""
        while True:
            self._tick()
            if self.vacant():
                return
            self._changed.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(BEAT_S / 2):
                    await self._changed.wait()

    def vacant(self) -> bool:
        """Whether this scheduler should try."""
        now = self._loop.time()
        return self._bus.connected and now >= self._not_before and now - self._silent_since >= SILENCE_S + self._jitter()

    def _tick(self) -> None:
        """Silence does not count while this loop itself stood still."""
        now = self._loop.time()
        if now - self._last_tick > _STALL_S or not self._bus.connected:
            self._silent_since = now
        self._last_tick = now

    def _jitter(self) -> float:
        """Differs by scheduler and attempt, so that two do not try at the same moment again and again."""
        digest = blake2b(f"{self.holder}{self._attempts}".encode(), digest_size=2).digest()
        return int.from_bytes(digest, "big") / 65536 * JITTER_S

    def deposed(self) -> None:
        """Leave it to the others for a while."""
        self._not_before = self._loop.time() + DEPOSED_WAIT_S

    # ---- the lease -------------------------------------------------------------------------------------------------------

    async def take_lease(self) -> bool:
        """Put one's own name over the silent holder's. False when somebody else was faster, or still has it."""
        self._attempts += 1
        self._silent_since = self._loop.time() - SILENCE_S  # the next try is one jitter away
        value = self.holder.encode()
        try:
            entry = await self._lease.get(PARTITION)
            if entry is None:
                self._revision = await self._lease.create(PARTITION, value, ttl_s=LEASE_TTL_S)
            else:
                self._revision = await self._lease.update(PARTITION, value, entry[1], ttl_s=LEASE_TTL_S)
        except WrongSequence:
            return False
        except TransportError as error:
            log.info("the lease can't be taken now: %s", error)
            return False
        return True

    async def renew(self) -> bool:
        """Keep the lease. False when it is somebody else's."""
        value = self.holder.encode()
        try:
            self._revision = await self._lease.update(PARTITION, value, self._revision, ttl_s=LEASE_TTL_S)
        except WrongSequence:
            return await self._renew_anew(value)
        except TransportError as error:
            log.warning("the lease could not be renewed: %s", error)
        return True

    async def _renew_anew(self, value: bytes) -> bool:
        """The revision is another: the lease has expired (take it again), or a write of ours whose ack was lost stands."""
        try:
            entry = await self._lease.get(PARTITION)
            if entry is not None and entry[0] != value:
                return False
            if entry is None:
                self._revision = await self._lease.create(PARTITION, value, ttl_s=LEASE_TTL_S)
            else:
                self._revision = entry[1]
        except WrongSequence:
            return False
        except TransportError as error:
            log.warning("the lease could not be renewed: %s", error)
        return True

    async def resign(self, term: int, sequence: int) -> None:
        """Tell the others to take over now."""
        self.beat(term, sequence, resigned=True)
        await self.give_back()

    async def give_back(self) -> None:
        """Let go of the lease, if it is one's own: whoever leads all the same can take it again."""
        try:
            entry = await self._lease.get(PARTITION)  # a renewal may have been cut off between its write and its answer
            if entry is not None and entry[0] == self.holder.encode():
                await self._lease.delete(PARTITION, revision=entry[1])
        except TransportError as error:
            log.info("the lease was not given back, it expires by itself: %s", error)

    def beat(self, term: int, sequence: int, *, resigned: bool = False) -> None:
        """Say that this scheduler leads."""
        self._bus.publish(self._subjects.leader_beat, encode(LeaderBeat(VERSION, self.holder, term, sequence, resigned)))
