"""The lanes, written: fenced atomic batches, one in flight; and what stands in them until it is answered.

Each batch expects the fence's last sequence and ends by writing the fence anew, so batches form a chain like the
journal's frames: one that is sent again after a doubt is stored once or refused, and a deposed leader's is refused whole.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable

from mesh.core.effects import Address
from mesh.scheduler.journal import Deposed
from mesh.scheduler.lookout import LanesGone, Lookout
from mesh_sdk.protocol.codec import FRAME_BYTES_MAX, encode
from mesh_sdk.protocol.records import VERSION, Assign, LaneFrame, Order
from mesh_sdk.protocol.subjects import Subjects
from mesh_sdk.transport.bus import Bus
from mesh_sdk.transport.errors import NoResponders, StreamFull, StreamMissing, TimedOut, TransportError, WrongSequence

log = logging.getLogger(__name__)

BATCH_MESSAGES_MAX = 256
BATCH_BYTES_MAX = 2 * 1024 * 1024
"""A batch is closed before it grows past this: one larger than the stream would never be taken, and a small server has lanes of 4 MiB."""
MESSAGE_STEPS_MAX = 64
HEADERS_BYTES_MAX = 1024
"""More than the headers of any lane message have."""
PURGE_MESSAGES = 512
"""A lane is purged when this many of its messages at its front are answered."""
SEQUENCES = 1 << 20
"""Of the lanes, for each sequence of the journal: far more than the lane messages that follow from one frame."""

_ACK_TIMEOUT_S = 2.0
_AGAIN_S = 0.05


class _Message:
    """One stored message: how many of its steps are unanswered."""

    __slots__ = ("open", "sequence")

    def __init__(self, open: int) -> None:
        self.open = open
        self.sequence = 0


LaneMessage = tuple[str, bytes, _Message]
"""Subject, bytes, and what is known of it."""


class Lanes:
    """Writes lane messages for one term.

    Args:
        bus: the connection.
        subjects: the namespace's names.
        term: stands in every message.
    """

    def __init__(self, bus: Bus, subjects: Subjects, term: int) -> None:
        self._bus = bus
        self._subjects = subjects
        self._term = term
        self._fence = 0
        self._doubt = False
        self._given_up: LanesGone | None = None
        self.lookout = Lookout(bus, subjects)
        self._batches = 0
        self._prepared: list[LaneMessage] = []
        self._waiting: list[LaneMessage] = []
        self._wake = asyncio.Event()
        self._queued = 0
        self._through = 0
        """How many of the messages that were queued are written, or dropped."""
        self._moved = asyncio.Event()
        self._writing: asyncio.Future[int] | None = None
        self._open: dict[str, _Message] = {}
        self._stored: dict[str, deque[_Message]] = {}
        self.adopted = asyncio.Event()
        """Set when what an older leader left in them is known, as far as it is not answered."""
        self.on_written: Callable[[int], None] = lambda count: None
        self.on_undeliverable: Callable[[str, int, int], None] = lambda token, size, limit: None
        self.stop_listening = bus.on_connection(self._connection)

    async def void(self, journal: int) -> int:
        """Take everything out of the lanes that was written before this journal sequence.

        Lanes that were made anew begin at a sequence that no lanes before them had, for it follows from the journal's: a
        fence is a sequence, and were two of them to be the same, a paused leader could write behind its successor's. What a
        newer leader writes into lanes of its own stands behind a higher sequence, so that this can come late.

        Returns:
            The sequence from which they go on.
        """
        await self._bus.purge(self._subjects.lanes_stream, before=journal * SEQUENCES)
        return journal * SEQUENCES

    async def fenced(self) -> int:
        """Sequence of the older leader's fence; 0: none. After a restart of the one server that holds them lanes are there, and empty."""
        last = await self._bus.last(self._subjects.lanes_stream, self._subjects.lane_fence)
        return last.sequence if last is not None else 0

    async def take_fence(self, after: int = 0) -> None:
        """From here on, every batch of an older leader is refused.

        Args:
            after: the sequence that the lanes have reached; a fence before it says that they were emptied meanwhile.

        Raises:
            LanesGone: there is no lanes stream.
            Deposed: a newer leader holds the fence.
            StreamFull: there is no room even for a fence; freeing would come after it, so what the lanes hold has to be given up.
        """
        fence = self._subjects.lane_fence
        while True:
            try:
                last = await self._bus.last(self._subjects.lanes_stream, fence)
                if last is not None and (newer := _fence_term(last.data)) > self._term:
                    journal = await self._bus.stream_state(self._subjects.journal_stream)
                    if journal is None or newer <= journal.last:  # a term is a sequence of the journal: past its end there is none
                        raise Deposed("a newer leader holds the lanes' fence")
                    log.error("the lanes' fence says term %d, which the journal does not know: it is taken all the same", newer)
                self._fence = await self._bus.append(fence, b"%d 0" % self._term, expect=last.sequence if last else 0)
                self.lookout.found()
                self._given_up = None
                self._batches = 0  # also when the lanes were made anew: what `_look` compares
                if self._fence < after:
                    raise LanesGone("they were emptied meanwhile")
                return
            except StreamFull:
                raise
            except TransportError as error:
                log.warning("the lanes' fence could not be taken, tried again: %s", error)
                await self._again(error)

    def prepare_shared(self, pool: str, orders: list[Order], together: int) -> None:
        """Encode steps for a pool, at most so many together in one message."""
        self._prepare(self._subjects.shared_lane(pool), orders, max(1, min(MESSAGE_STEPS_MAX, together)))

    def prepare_private(self, address: Address, orders: list[Order]) -> None:
        """Encode orders for one incarnation of a worker."""
        self._prepare(self._subjects.worker_lane(*address), orders, MESSAGE_STEPS_MAX)

    def _prepare(self, subject: str, orders: list[Order], size: int) -> None:
        for start in range(0, len(orders), size):
            self._split(subject, orders[start : start + size])

    def prepared(self) -> list[LaneMessage]:
        """What was prepared since the last call, for `send`: others may send while its records are still being written."""
        prepared, self._prepared = self._prepared, []
        return prepared

    def send(self, prepared: list[LaneMessage]) -> None:
        """The records of what was prepared stand: write it."""
        if prepared:
            self._waiting += prepared
            self._queued += len(prepared)
            self._wake.set()

    def _split(self, subject: str, orders: list[Order]) -> None:
        data = encode(LaneFrame(VERSION, self._term, orders))
        if len(data) > FRAME_BYTES_MAX and len(orders) > 1:
            half = len(orders) // 2
            self._split(subject, orders[:half])
            self._split(subject, orders[half:])
            return
        limit = self._bus.max_payload - HEADERS_BYTES_MAX
        if len(data) > limit:
            if isinstance(orders[0], Assign):  # nothing else can be so large
                self.on_undeliverable(orders[0].token, len(data), limit)
            return
        tokens = [order.token for order in orders if type(order) is Assign]
        message = _Message(len(tokens))
        for token in tokens:
            self._open[token] = message
        self._prepared.append((subject, data, message))

    def answered(self, tokens: Iterable[str]) -> None:
        """These attempts need their lane messages no more."""
        pop = self._open.pop
        for token in tokens:
            message = pop(token, None)
            if message is not None:
                message.open -= 1

    def forget(self) -> None:
        """The stream is gone, and everything in it; what was to be written before that was journaled will be given out anew."""
        self._pass(len(self._waiting))
        self._waiting.clear()
        self._stored.clear()

    def _pass(self, count: int) -> None:
        self._through += count
        self._moved.set()

    def adopt(self, subject: str, sequence: int, unanswered: list[str]) -> None:
        """An older leader's message still stands: it is freed like one's own. Called newest first, before any is purged."""
        message = _Message(len(unanswered))
        message.sequence = sequence
        for token in unanswered:
            self._open[token] = message
        self._stored.setdefault(subject, deque()).appendleft(message)

    def _connection(self, up: bool) -> None:
        """The server may be another, and the memory stream with it gone: look, also when there is nothing to write."""
        if up:
            self.doubt()

    def doubt(self) -> None:
        """The lanes may be gone, or not what they were: look."""
        self._doubt = True
        self._wake.set()

    def give_up(self, why: LanesGone) -> None:
        """What they hold does not reach everybody: have them made anew."""
        self._given_up = why
        self._wake.set()

    async def run(self) -> None:
        """Write what is queued, one batch at a time, for ever.

        Raises:
            LanesGone, Deposed.
        """
        while True:
            await self._wake.wait()
            self._wake.clear()
            if self._doubt:
                await self._look()
            while self._waiting and self._given_up is None:
                await self._write(self._next_batch())
            if self._given_up is not None:
                why, self._given_up = self._given_up, None
                raise why

    def _next_batch(self) -> list[LaneMessage]:
        """The first of what waits, as much as one batch takes."""
        count = size = 0
        for _, data, _ in self._waiting[:BATCH_MESSAGES_MAX]:
            size += len(data)
            if count and size > BATCH_BYTES_MAX:
                break
            count += 1
        batch, self._waiting = self._waiting[:count], self._waiting[count:]
        return batch

    async def flush(self, timeout_s: float) -> bool:
        """Wait until all that is queued by now is written (or dropped); False when that takes longer than this."""
        end = self._queued
        try:
            async with asyncio.timeout(timeout_s):
                while self._through < end:
                    self._moved.clear()
                    await self._moved.wait()
        except TimeoutError:
            return False
        return True

    async def settle(self, timeout_s: float) -> None:
        """Wait until the batch in flight is stored or refused, for at most this long."""
        if self._writing is not None:
            await asyncio.wait({self._writing}, timeout=timeout_s)

    async def _look(self) -> None:
        """Make sure that the lanes are still those that were fenced."""
        self._doubt = False
        await self._until_found()
        await self._mine(b"%d %d" % (self._term, self._batches))

    async def _until_found(self) -> None:
        """Wait until somebody says that the lanes are there."""
        while True:
            try:
                if await self.lookout.find():
                    return
                raise LanesGone("there is no lanes stream")
            except TransportError as error:
                log.info("nobody says whether the lanes are there: %s", error)
                await asyncio.sleep(_AGAIN_S)

    async def _again(self, error: TransportError) -> None:
        """Wait a moment before another try, unless it is sure that the stream is gone, or as good as gone."""
        if isinstance(error, StreamMissing | NoResponders | TimedOut):
            await self._until_found()
        await asyncio.sleep(_AGAIN_S)

    async def _write(self, batch: list[LaneMessage]) -> None:
        self._batches += 1
        mark = b"%d %d" % (self._term, self._batches)
        messages = [(subject, data) for subject, data, _ in batch]
        messages.append((self._subjects.lane_fence, mark))
        try:
            last = self._fence = await self._store(messages, mark)
        finally:
            self._pass(len(batch))
        first = last - len(batch)
        for place, (subject, _, message) in enumerate(batch):
            message.sequence = first + place
            lane = self._stored.get(subject)
            if lane is None:
                lane = self._stored[subject] = deque()
            lane.append(message)
        self.on_written(len(batch))

    async def _store(self, messages: list[tuple[str, bytes]], mark: bytes) -> int:
        """Store a batch once; its last sequence."""
        while True:
            try:
                self._writing = self._bus.append_batch_soon(
                    messages, expect_subject=self._subjects.lane_fence, expect=self._fence, timeout=_ACK_TIMEOUT_S
                )
                return await self._writing
            except WrongSequence:
                log.warning("a batch of %d lane messages was refused by the fence", len(messages))
                return await self._mine(mark)
            except TransportError as error:
                log.warning("a batch of %d lane messages is in doubt, sent again: %s", len(messages), error)
                await self._again(error)

    async def _mine(self, mark: bytes) -> int:
        """The fence's sequence if the last batch is the one that was sent."""
        while True:
            try:
                last = await self._bus.last(self._subjects.lanes_stream, self._subjects.lane_fence)
            except TransportError as error:
                log.warning("the lanes' fence can't be read, tried again: %s", error)
                await self._again(error)
                continue
            if last is None:
                raise LanesGone("they have no fence: they are not those that were fenced")
            if last.data == mark:
                return last.sequence
            raise Deposed("another scheduler holds the lanes' fence")

    def purgeable(self, least: int = PURGE_MESSAGES) -> list[tuple[str, int]]:
        """(subject, sequence) up to which lanes are answered, for those where that is worth a purge."""
        found = []
        for subject, lane in list(self._stored.items()):
            count = 0
            end = 0
            while count < len(lane) and lane[count].open <= 0:
                end = lane[count].sequence
                count += 1
            if count >= least:
                for _ in range(count):
                    lane.popleft()
                found.append((subject, end + 1))
            if not lane:
                del self._stored[subject]
        return found

    def answered_before(self, subject: str) -> int:
        """The sequence before which a lane holds nothing that is still to be answered: not to be asked before they are adopted."""
        return next((message.sequence for message in self._stored.get(subject, ()) if message.open > 0), self._fence + 1)

    @property
    def fence(self) -> int:
        """Sequence of the fence; older fence messages can be purged."""
        return self._fence


def _fence_term(data: bytes) -> int:
    try:
        return int(data.split()[0])
    except (ValueError, IndexError):
        return 0
