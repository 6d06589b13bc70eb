"""The leader's loop: take, decide, journal, effects, free. In that order, always.

While a frame is being written the loop decides what arrives, for the next one; effects leave only after the ack.
Rule: nothing leaves the scheduler that is not in the journal, and a refused frame ends the term.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from typing import Any

from mesh.core.core import Core
from mesh.core.effects import Teller
from mesh.core.inputs import SELF, Sender, TimePassed, Unreadable
from mesh.core.records import JOURNAL_VERSION, Fact, JournalFrame
from mesh.scheduler.clock import CoreClock
from mesh.scheduler.inbox import Decoded, Inbox, Source
from mesh.scheduler.journal import Journal, PendingFrame, encode_frame
from mesh.scheduler.outbox import Outbox
from mesh_sdk.protocol.records import Cancel, Start

log = logging.getLogger(__name__)

RECORDS_MAX = 1024
BYTES_MAX = 256 * 1024
"""A frame is closed when it has grown to either; one more record of the largest size still fits a server's message."""
STALL_S = 0.4
"""After a pause of this length the leader asks whether it still leads before it says anything."""

CUT_RECORDS = 2 * RECORDS_MAX
"""A single decision with more records than this (a lost worker that held thousands) is journaled in several frames."""

Probe = Callable[[str, list[Fact]], None]
"""Told at the end of each phase, in this order: decide, journal, notice (notices sent, lane messages queued), effects (a batch of
lane messages stored), free. The last two come without records. Tests die there."""


Poison = set[tuple[str, int, int] | str]
"""What has broken a term of this process: (source, sequence, index) of records, which are rejected instead of decided again, and runs
whose time had come, by their ids, which are cancelled."""
_DEFECT = "it could not be decided: this is a defect of the scheduler, please report it"


class Loop:
    """Runs one term.

    Args:
        core: decides.
        journal: where records go.
        inbox: what streams tell.
        outbox: what follows.
        clock: core time.
        live_runs_max: past it starts wait on disk.
        probe: told `(phase, records)` at the end of each phase.
        poison: what must not be decided; whatever breaks this term is added.
    """

    def __init__(
        self, core: Core, journal: Journal, inbox: Inbox, outbox: Outbox, clock: CoreClock, term: int, live_runs_max: int,
        probe: Probe | None = None, poison: Poison | None = None,
    ) -> None:  # fmt: skip
        self._poison: Poison = poison if poison is not None else set()
        self.core = core
        self.state = core.state
        self.journal = journal
        self.inbox = inbox
        self.outbox = outbox
        self.clock = clock
        self.term = term
        self.live_runs_max = live_runs_max
        self.probe = probe
        self.teller = Teller(core.state)
        self.positions: dict[str, list[int]] = inbox.positions()
        """As journaled."""
        self.on_journaled: Callable[[list[Fact]], None] = lambda records: None
        self._wake = asyncio.Event()
        self._journaled_at = core.state.now
        self.frame_bytes = 0
        """Written to the journal in this term."""
        self._bytes = 0
        self._fresh = True
        self._half: tuple[Source, Iterator[Decoded]] | None = None
        self._own: list[Any] = []
        self._timer: asyncio.TimerHandle | None = None
        self._moved = False
        self._asked: list[Callable[[int], Callable[[], None]]] = []
        self._stopping = False
        self._broken: Exception | None = None

    # ---- what wakes it ----------------------------------------------------------------------------------------------

    def arrived(self, source: Source) -> None:
        """A message has come: decide it now if nothing stands before it."""
        if len(source.waiting) == 1 and not self._full() and not self._closed(source) and self._broken is None:
            try:
                self._take(source)
            except Exception as error:  # the transport must not swallow it: it ends the term
                self._broken = error
        self._wake.set()

    def tell(self, input: Any) -> None:
        """An input of the scheduler's own."""
        self._own.append(input)
        self._wake.set()

    def ask(self, question: Callable[[int], Callable[[], None]]) -> None:
        """Call `question(sequence)` when the state is exactly that of a journal sequence, and what it returns when that
        sequence stands."""
        self._asked.append(question)
        self._wake.set()

    def stop(self) -> None:
        """Take no more; `run` returns when what was decided is journaled and sent."""
        self._stopping = True
        self._wake.set()

    def _closed(self, source: Source) -> bool:
        return self._stopping or (source.starts and len(self.state.runs) >= self.live_runs_max)

    # ---- one round ----------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Lead until stopped.

        Raises:
            Deposed: another scheduler leads.
            Exception: whatever the core could not decide; the term is over, its state void.
        """
        self._own += [Cancel(run, _DEFECT) for run in self._poison if isinstance(run, str) and run in self.state.runs]
        self._set_timer()  # something may have become due while nobody led
        while not (self._stopping and not self.core.out):
            await self._wake.wait()
            self._wake.clear()
            self._check()
            while self._decide() or self.core.out or self._moved or self._asked:
                await self._round()
                self._check()  # what broke meanwhile has left a decision half done: it must not be journaled
            self._set_timer()

    def _check(self) -> None:
        if self._broken is not None:
            raise self._broken

    async def _round(self) -> None:
        records, positions, moved = self.core.take(), self.inbox.positions(), self._moved
        asked = self._take_asked()
        self._bytes, self._fresh, self._moved = 0, True, False
        if not records and not moved:
            self.state.now = self._journaled_at  # nothing happened at the time that was begun: the journal does not know it
            ready = [question(self.journal.sequence) for question in asked]
            await self.journal.verify_after(STALL_S)
            for answer in ready:
                answer()
            return
        at = self._journaled_at = self.state.now
        chunks = [records[i : i + CUT_RECORDS] for i in range(0, len(records), CUT_RECORDS)] or [records]
        answers = [question(self.journal.sequence + len(chunks)) for question in asked]  # before anything more is decided
        pending = self._send(chunks[0], at, positions if len(chunks) == 1 else self.positions)
        prepared = self.outbox.prepare(self.teller.tell(records), self.outbox.slots_due(self.state))  # while the frame is being written
        for place, chunk in enumerate(chunks[1:], 2):
            await self._settle(pending, chunks[place - 2])
            pending = self._send(chunk, at, positions if place == len(chunks) else self.positions)
        await self._settle(pending, chunks[-1])
        self.positions = positions
        self.outbox.send(prepared, self.journal.sequence)
        self._probe("notice", records)
        for answer in answers:
            answer()
        self.on_journaled(records)

    def _send(self, records: list[Fact], at: int, positions: dict[str, list[int]]) -> PendingFrame:
        data = encode_frame(JournalFrame(JOURNAL_VERSION, self.term, at, positions, records))  # type: ignore[arg-type]
        self._probe("decide", records)
        self.frame_bytes += len(data)
        return self.journal.send(data)

    async def _settle(self, pending: PendingFrame, records: list[Fact]) -> None:
        """The frame stands, and (after a pause) so does the leadership."""
        await self.journal.settle(pending)
        self._probe("journal", records)
        await self.journal.verify_after(STALL_S)

    def _take_asked(self) -> list[Callable[[int], Callable[[], None]]]:
        asked, self._asked = self._asked, []
        return asked

    def _probe(self, phase: str, records: list[Fact]) -> None:
        if self.probe is not None:
            self.probe(phase, records)

    # ---- deciding -----------------------------------------------------------------------------------------------------------

    def _decide(self) -> bool:
        """Decide what waits, as much as one frame takes. True when something was decided."""
        self.inbox.hold_starts(len(self.state.runs) >= self.live_runs_max)
        own = self._take_own()
        decided = bool(own) or self._half is not None
        for input in own:
            self._one(input, SELF)
        if self._half is not None:
            self._drain(*self._half)
        while not self._stopping and not self._full() and (source := self.inbox.next()) is not None:
            self._take(source)
            decided = True
            self.inbox.hold_starts(len(self.state.runs) >= self.live_runs_max)
        return decided

    def _take_own(self) -> list[Any]:
        own, self._own = self._own, []
        due = self.core.next_at()
        if due is not None and due <= self.clock.now_ms():
            own.append(TimePassed())
        return own

    def _full(self) -> bool:
        return self._half is not None or len(self.core.out) >= RECORDS_MAX or self._bytes >= BYTES_MAX

    def _take(self, source: Source) -> None:
        """Decide the source's next message, or as much of it as fits."""
        delivery = source.waiting.popleft()
        self._bytes += len(delivery.data)
        decoded = source.decode(delivery)
        skip = source.part if delivery.sequence == source.sequence else 0
        for _ in range(skip):
            next(decoded, None)
        source.sequence, source.part = delivery.sequence, skip
        self._drain(source, decoded)

    def _drain(self, source: Source, decoded: Iterator[Decoded]) -> None:
        self._half = None
        self._moved = True
        core = self.core
        if self._fresh:
            self._begin()
        try:
            for input, sender in decoded:
                if self._poison and (source.name, source.sequence, source.part) in self._poison:
                    input = _rejected(source, input)
                core.decide(input, sender)
                source.part += 1
                if len(core.out) >= RECORDS_MAX:
                    self._half = (source, decoded)
                    return
        except Exception:
            self._poison.add((source.name, source.sequence, source.part))
            raise
        source.part = 0

    def _one(self, input: Any, sender: Sender) -> None:
        if self._fresh:
            self._begin()
        try:
            self.core.decide(input, sender)
        except Exception:
            if (run := self.state.timers.deciding) is not None:  # its time comes again in every term
                log.error("what the time has brought for run %s could not be decided: the next term cancels that run", run.id)
                self._poison.add(run.id)
            raise

    def _begin(self) -> None:
        """All records of a frame happen at one time."""
        self._fresh = False
        self.core.begin(self.clock.now_ms())

    # ---- time -----------------------------------------------------------------------------------------------------------------

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due = self.core.next_at()
        if due is not None:
            self._timer = asyncio.get_running_loop().call_at(self.clock.loop_time(due + 1), self._wake.set)

    def close(self) -> None:
        """No timer fires after this."""
        if self._timer is not None:
            self._timer.cancel()


def _rejected(source: Source, input: Any) -> Unreadable:
    return Unreadable(source.name, source.sequence, source.part, _DEFECT, input if type(input) is Start else None)
