"""Follows the journal: loads the newest snapshot, applies every frame after it, and so knows what the leader knows."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable

import msgspec

from mesh.core.records import JOURNAL_VERSION, InputRejected, JournalFrame, TermStarted
from mesh.core.state import State
from mesh.scheduler.journal import decode_frame
from mesh.scheduler.strays import Strays, is_frame
from mesh.store.snapshots import Snapshots
from mesh_sdk.protocol.subjects import Subjects
from mesh_sdk.transport.bus import Bus, Delivery, Reader

log = logging.getLogger(__name__)

REJECTED_REMEMBERED = 100
_WINDOW = 1024


class Unfollowable(Exception):
    """The journal holds what this version can't apply."""


class Follower:
    """The state as of `sequence`, kept up to date.

    Args:
        bus, subjects: where the journal is.
        finished_max: how many finished runs are remembered.
    """

    def __init__(self, bus: Bus, subjects: Subjects, finished_max: int) -> None:
        self._bus = bus
        self._subjects = subjects
        self._finished_max = finished_max
        self._snapshots = Snapshots(bus, subjects)
        self._reader: Reader | None = None
        self._moved = asyncio.Event()
        self._broken: Exception | None = None
        self._failed = asyncio.Event()
        self._strays = Strays(bus, subjects)
        self.state = State(finished_max)
        self.sequence = 0
        self.snapshot_sequence = 0
        self.positions: dict[str, list[int]] = {}
        self.rejected: deque[InputRejected] = deque(maxlen=REJECTED_REMEMBERED)
        self.on_term: Callable[[int, str], None] = lambda term, holder: None

    async def start(self) -> None:
        """Load the newest snapshot and read on from it."""
        await self.stop()  # a reader left over would go on applying, to a state that may be the leader's own by then
        self._broken = None
        self._failed.clear()
        loaded = await self._snapshots.newest(self._finished_max)
        if loaded is None:
            self.state, self.sequence, self.positions = State(self._finished_max), 0, {}
        else:
            self.state, self.sequence, self.positions = loaded.state, loaded.sequence, loaded.positions
        self.snapshot_sequence = self.sequence
        self._reader = self._bus.reader(
            self._subjects.journal_stream, self._subjects.all_journals, self.sequence + 1, self._apply, window=_WINDOW
        )
        await self._reader.start()

    def forget(self) -> None:
        """Let go of the state: whoever has stopped and needs it no more has room for another."""
        self.state = State(self._finished_max)

    async def stop(self) -> None:
        """Apply no more."""
        if self._reader is not None:
            await self._reader.close()
            self._reader = None

    def _apply(self, delivery: Delivery) -> None:
        if self._broken is not None:
            return
        try:
            self._apply_frame(delivery)
        except Exception as error:  # whatever it is, this state can't be trusted any more; `wait_for` raises it
            log.error("journal frame %d can't be applied: %s", delivery.sequence, error)
            self._broken = error
            self._failed.set()
        self._moved.set()

    def _apply_frame(self, delivery: Delivery) -> None:
        if delivery.sequence != self.sequence + 1:
            raise Unfollowable(
                f"the journal goes on at {delivery.sequence}, this follower is at {self.sequence}: it was trimmed ahead of us. If this is "
                "said again, the newest snapshots are of a newer version: start schedulers of that version"
            )
        if not is_frame(delivery.subject, delivery.headers, self._subjects):
            self._strays.passed(delivery.sequence, delivery.subject)
            self.sequence = delivery.sequence
            return
        self._apply_records(delivery.sequence, self._frame(delivery))

    def _frame(self, delivery: Delivery) -> JournalFrame:
        try:
            frame = decode_frame(delivery.data)
            if frame.version != JOURNAL_VERSION:
                raise msgspec.ValidationError(f"version {frame.version} of the journal, this is version {JOURNAL_VERSION}")
        except msgspec.MsgspecError as error:
            told = f"frame {delivery.sequence} was written by a newer version, or is damaged: {error}"
            raise Unfollowable(f"{told}. Unknown records: no snapshot, no leading; start schedulers of that version") from error
        if frame.term != self.state.term and not (frame.records and type(frame.records[0]) is TermStarted):
            raise Unfollowable(f"frame {delivery.sequence} is of term {frame.term} amid term {self.state.term}: no scheduler wrote it")
        return frame

    def _apply_records(self, sequence: int, frame: JournalFrame) -> None:
        state = self.state
        state.now = frame.at
        for record in frame.records:
            if type(record) is TermStarted:
                state.term = sequence
                self.on_term(sequence, record.holder)
            elif type(record) is InputRejected:
                self.rejected.append(record)
            state.apply(record)
        state.changed_workers.clear()  # for leaders, who mirror them
        self.sequence = sequence
        self.positions.update(frame.positions)

    async def wait_for(self, sequence: int, timeout_s: float) -> bool:
        """Wait until a journal sequence has been applied. False when it takes too long.

        Raises:
            Unfollowable: the state can't be brought there; `start` again.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        while self.sequence < sequence:
            if self._broken is not None:
                raise Unfollowable(str(self._broken)) from self._broken
            left = deadline - loop.time()
            if left <= 0:
                return False
            self._moved.clear()
            try:
                async with asyncio.timeout(left):
                    await self._moved.wait()
            except TimeoutError:
                return False
        return True

    async def failure(self) -> None:
        """Return when the journal can't be followed any more."""
        await self._failed.wait()

    @property
    def follows(self) -> bool:
        """It reads the journal, and the state can be trusted."""
        return self._reader is not None and self._broken is None

    @property
    def broken(self) -> bool:
        """The state can't be trusted: `start` again."""
        return self._broken is not None
