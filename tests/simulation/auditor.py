"""Reads the journal as it is written and checks every promise that can be told from it, frame by frame.

Rule: it applies the same records as everybody else to a state of its own, from the first one on, and compares.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from hashlib import blake2b
from typing import Any

from mesh.core import records as facts
from mesh.core.check import BrokenInvariant, check
from mesh.core.image import digest
from mesh.core.state import State
from mesh.scheduler.journal import decode_frame
from mesh_sdk.protocol.subjects import Subjects
from tests.simulation.buckets import Buckets
from tests.simulation.choices import Choices
from tests.simulation.decided import Decided
from tests.simulation.names import HARD_NAMES, STICKY_NAMES
from tests.simulation.places import Places
from tests.simulation.stream import Message, Stream
from tests.simulation.turns import Turns

LINE_MAX = 180
COMPARED_EVERY = 16
"""Frames between two at which standbys say what their state is."""


class Auditor:
    """See the module.

    Args:
        subjects: of the namespace.
        finished_max: as the schedulers have it.
        report: gets what is wrong.
        trace: gets every record; None for none.
    """

    def __init__(
        self, subjects: Subjects, finished_max: int, report: Callable[[str], None], trace: Callable[[str], None] | None = None
    ) -> None:
        self._trace = trace
        self.decided = Decided(subjects, report)
        self.state = State(finished_max)
        self.sequence = 0
        self.seen: Counter[str] = Counter()
        """What there was to look at, and how often."""
        self.places = Places(self.state, report, self.seen)
        self.turns = Turns(self.state, report, self.seen)
        self.buckets = Buckets(report, self.seen)
        self.choices = Choices(self.state, report, self.seen)
        self.started: dict[str, str] = {}
        """Run → workflow."""
        self.ended: dict[str, str] = {}
        self.refused: set[str] = set()
        self.repeated: dict[str, str] = {}
        self.released: dict[str, tuple[str, int]] = {}
        """Attempt token → (run, step)."""
        self.shared: dict[str, int] = {}
        """Attempt token → journal sequence at which it was released to a shared lane."""
        self.completed: set[tuple[str, int]] = set()
        self.executed: dict[str, str] = {}
        """Attempt token → worker that runs it or has; the witness knows."""
        self.fenced_by = 0
        self.journal = blake2b(digest_size=16)
        """Of every byte that was journaled."""
        self.records = 0
        self.wanted: dict[int, list[str]] = {}
        """Journal sequence → digests that others say their state has there."""
        self._digests: dict[int, str] = {}
        self._outcomes: dict[str, tuple[str, bytes]] = {}
        self._journal = subjects.journal_stream
        self._fence = subjects.lane_fence
        self._report = report
        self._term = 0
        self._positions: dict[str, list[int]] = {}
        self._checks: dict[type, Callable[[Any], None]] = {
            facts.RunStarted: self._run_started,
            facts.RunRefused: self._run_refused,
            facts.StartRepeated: self._start_repeated,
            facts.RunBound: self._run_bound,
            facts.StepReleased: self._step_released,
            facts.StepFinished: self._step_finished,
            facts.RunFinished: self._run_finished,
        }

    @property
    def done(self) -> int:
        """Grows with all that gets done."""
        return len(self.completed) + len(self.ended) + len(self.refused) + len(self.repeated)

    def stored(self, stream: Stream, message: Message) -> None:
        """Something was stored somewhere."""
        if stream.name == self._journal:
            self._frame(message)
        elif message.subject == self._fence:
            self.fenced_by = max(self.fenced_by, int(message.data.split()[0]))
        else:
            self.decided.stored(stream, message)

    def _frame(self, message: Message) -> None:
        self.journal.update(message.data)
        frame = decode_frame(message.data)
        begins = bool(frame.records) and type(frame.records[0]) is facts.TermStarted
        if begins:
            self._term = message.sequence
        elif frame.term != self._term:
            self._report(f"frame {message.sequence} is of term {frame.term}, the journal is of term {self._term}")
        self.state.now = frame.at
        for record in frame.records:
            self.records += 1
            if self._trace is not None:
                self._trace(f"  {message.sequence} {_short(record)}")
            if type(record) is facts.TermStarted:
                self.state.term = message.sequence
            self._look_at_record(record)
        self.state.changed_workers.clear()
        self.sequence = message.sequence
        self._look_at_positions(frame.positions)
        self.decided.look(self.sequence, frame)
        self._look_at_state()
        if not begins:
            self.places.look()
            self.turns.look()
        if self.sequence % COMPARED_EVERY == 0:
            self._digests[self.sequence] = digest(self.state)
        for said in self.wanted.pop(self.sequence, ()):
            self.compare(self.sequence, said)

    def _look_at_record(self, record: facts.Fact) -> None:
        if (look := self._checks.get(type(record))) is not None:
            look(record)
        self.places.record(record)
        self.buckets.record(record, self.state.now)
        self.choices.record(record)
        self.turns.before(record)
        self.state.apply(record)
        self.turns.after(record)

    # ---- record by record

    def _run_started(self, record: facts.RunStarted) -> None:
        if record.run in self.started or record.run in self.refused:
            self._report(f"run {record.run} of {record.workflow} is started a second time")
        self.started[record.run] = record.workflow
        if record.event:
            self.decided.started(self.state.event[0], record.workflow)

    def _run_refused(self, record: facts.RunRefused) -> None:
        if record.run in self.started:
            self._report(f"run {record.run} of {record.workflow} was started and is refused now: {record.error} {record.message}")
        self.refused.add(record.run)

    def _start_repeated(self, record: facts.StartRepeated) -> None:
        self.repeated[record.requested] = record.run

    def _run_bound(self, record: facts.RunBound) -> None:
        run = self.state.runs.get(record.run)
        if run is not None and self.started.get(record.run) in HARD_NAMES and run.worker not in ("", record.worker):
            self._report(f"HARD run {record.run} moves from {run.worker} to {record.worker}")

    def _step_released(self, record: facts.StepReleased) -> None:
        if record.token in self.released:
            self._report(f"token {record.token} is released a second time")
        if record.run in self.ended:
            self._report(f"an attempt of run {record.run}, which has {self.ended[record.run]}, is released")
        if (record.run, record.step) in self.completed:
            self._report(f"an attempt of step {record.step} of {record.run}, which is complete, is released")
        self._look_at_room(record)
        self._look_at_parents(record)
        self.released[record.token] = (record.run, record.step)
        if not record.worker:
            self.shared[record.token] = self.sequence + 1

    def _look_at_room(self, record: facts.StepReleased) -> None:
        """The leader gives out no more than what is free by its own ledger. Key functions take nothing of it."""
        run = self.state.runs.get(record.run)
        if run is not None and run.steps[record.step].is_key:
            return
        pool, worker = self.state.pools.get(record.pool), self.state.workers.get(record.worker)
        if pool is None or pool.free <= 0:
            self._report(f"an attempt of run {record.run} is released to pool {record.pool}, which has no free slot")
        if record.worker and (worker is None or worker.room <= 0):
            self._report(f"an attempt of run {record.run} is released to worker {record.worker}, which has no room")

    def _look_at_parents(self, record: facts.StepReleased) -> None:
        """A step waits for those before it."""
        run = self.state.runs.get(record.run)
        for parent in run.flow.parents[record.step] if run is not None else ():
            if (record.run, parent) not in self.completed:
                self._report(f"step {record.step} of run {record.run} is released before its parent {parent} is complete")

    def _step_finished(self, record: facts.StepFinished) -> None:
        if (record.run, record.step) in self.completed:
            self._report(f"step {record.step} of {record.run} is completed a second time")
        if record.run in self.ended:
            self._report(f"step {record.step} of {record.run} is completed after the run has {self.ended[record.run]}")
        if self.released.get(record.token) != (record.run, record.step):
            self._report(f"step {record.step} of {record.run} is completed by attempt {record.token}, which is another step's")
        current = self.state.attempts.get(record.token)
        if current is None or current.step.current is not current:
            self._report(f"step {record.step} of {record.run} is completed by attempt {record.token}, which was replaced")
        elif current.worker is not None and current.worker.id != record.worker:
            self._report(f"attempt {record.token} was given to {current.worker.id} and is completed by {record.worker}")
        if self.executed.get(record.token) != record.worker:
            self._report(
                f"{record.worker} completes step {record.step} of {record.run} by attempt {record.token}, which it has not executed"
            )
        self.completed.add((record.run, record.step))

    def _run_finished(self, record: facts.RunFinished) -> None:
        if record.run in self.ended:
            self._report(f"run {record.run} has {self.ended[record.run]} and now has {record.status}")
        self.ended[record.run] = record.status

    # ---- frame by frame

    def _look_at_positions(self, positions: dict[str, list[int]]) -> None:
        for source, position in positions.items():
            before = self._positions.get(source, [0, 0])
            ahead = position[0] > before[0] or (position[0] == before[0] and (position[1] >= before[1] or position[1] == 0))
            if not ahead:
                self._report(f"frame {self.sequence}: position of {source} goes back from {before} to {position}")
            self._positions[source] = position

    def _look_at_state(self) -> None:
        state = self.state
        try:
            check(state)
        except BrokenInvariant as error:
            self._report(f"frame {self.sequence}: {error}")
        for worker in state.workers.values():
            if worker.used > worker.slots:
                self._report(f"frame {self.sequence}: worker {worker.id} holds {worker.used} of {worker.slots} slots")
        for run in state.runs.values():
            if run.flow.name in STICKY_NAMES:
                places = {
                    step.current.worker.id
                    for step in run.steps
                    if step.current is not None and step.current.worker is not None and not step.is_key
                }
                if len(places) > 1:
                    self._report(f"frame {self.sequence}: sticky run {run.id} has attempts on {sorted(places)}")

    # ---- what others say

    def hear(self, sequence: int, said: str) -> None:
        """Somebody says that this is the digest of the state at a sequence."""
        if sequence > self.sequence:
            self.wanted.setdefault(sequence, []).append(said)
        elif sequence == self.sequence or sequence in self._digests:
            self.compare(sequence, said)

    def compare(self, sequence: int, said: str) -> None:
        """Compare a digest with one's own."""
        if sequence not in self._digests:
            self._digests[sequence] = digest(self.state)
        if self._digests[sequence] != said:
            self._report(f"at journal sequence {sequence} a scheduler has another state than a replay")


def _short(record: facts.Fact) -> str:
    text = repr(record)
    return text if len(text) < LINE_MAX else text[:LINE_MAX] + "…"
