"""Sees what workers really do, whatever the journal says: which attempts are executed, where, and what leaves the leader.

Rule: a broken promise is reported at the moment it breaks, with what was known then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import msgspec

from mesh.core.image import digest
from mesh.core.state import State
from mesh_sdk.context import Context
from mesh_sdk.protocol.codec import BadFrame, lane_frames, notice_frames
from mesh_sdk.protocol.records import REFUSED, Assign, Done
from mesh_sdk.protocol.subjects import Subjects
from tests.simulation.auditor import COMPARED_EVERY, Auditor
from tests.simulation.limits import slots
from tests.simulation.process import Process, current
from tests.simulation.stream import Message, Stream


class Witness:
    """See the module.

    Args:
        subjects: of the namespace.
        auditor: knows what is journaled.
        report: gets what is wrong.
        trace: gets what happens.
    """

    def __init__(self, subjects: Subjects, auditor: Auditor, report: Callable[[str], None], trace: Callable[[str], None]) -> None:
        self._auditor = auditor
        self._report = report
        self._trace = trace
        self.journal: Stream
        """The stream; as soon as there is one."""
        self._lanes = subjects.lanes_stream
        self._journal = subjects.journal_stream
        self._slots = f"KV_{subjects.slots_bucket}"
        self._done = subjects.done("")
        self.executed = auditor.executed
        self.running: dict[str, tuple[Assign, Process]] = {}
        self.executions = 0
        self.hard_places: dict[str, str] = {}
        self.slots: dict[Process, int] = {}
        """Of each worker's process, those that have ended included."""
        self._awaiting: set[str] = set()
        self.pauses: dict[Process, Callable[[], bool]] = {}
        """Of each worker's process, whether it is paused."""
        self._paused: dict[Process, int] = {}
        """Process that an operator has paused → journal sequence at which that was seen."""

    @contextmanager
    def executing(self, context: Context[Any]) -> Iterator[None]:
        """A step runs here."""
        assign = context._attempt.assign
        worker, token = context.worker.id(), assign.token
        self._trace(f"runs {assign.workflow}:{assign.name} attempt {assign.attempt} {token} of {assign.run}")
        if token in self.executed:
            self._report(f"attempt {token} of {assign.run} {assign.name} is executed by {worker}, and was by {self.executed[token]}")
        if context._attempt.action.sticky == "HARD" and self.hard_places.setdefault(assign.run, worker) != worker:
            self._report(f"HARD run {assign.run} is executed by {worker}, and was by {self.hard_places[assign.run]}")
        if assign.attempt < 1 or token not in self._auditor.released:
            self._report(f"attempt {token} of {assign.run} is executed by {worker} and was never released")
        self.executed[token] = worker
        self.executions += 1
        self.running[token] = assign, current()
        self._look_at_slots(worker)
        self._look_at_pause(worker, token)
        self._auditor.places.executed(self.running, token, asyncio.get_running_loop().time())
        try:
            yield
        finally:
            del self.running[token]
            self._awaiting.discard(token)

    @contextmanager
    def awaiting(self, context: Context[Any]) -> Iterator[None]:
        """A step awaits children here: it has lent its slot out."""
        token = context._attempt.assign.token
        self._awaiting.add(token)
        yield  # one that is cancelled here gets no slot any more
        self._awaiting.discard(token)
        self._look_at_slots(context.worker.id())

    def labelled(self, worker: str, labels: Mapping[str, str | int]) -> None:
        """A worker says this of itself from now on."""
        self._auditor.choices.said.setdefault(worker, []).append(labels)

    def _look_at_slots(self, worker: str) -> None:
        """A process executes no more steps than it has slots."""
        process = current()
        busy = sum(
            slots(assign.workflow, assign.name)
            for token, (assign, other) in self.running.items()
            if other is process and token not in self._awaiting
        )
        if busy > self.slots[process]:
            self._report(f"worker {worker} executes steps of {busy} slots and has {self.slots[process]}")

    def look_at_pauses(self) -> None:
        """Now and then: who thinks that an operator has it take nothing new."""
        for process, paused in self.pauses.items():
            if process.dead or not paused():
                self._paused.pop(process, None)
            else:
                self._paused.setdefault(process, self._auditor.sequence)

    def _look_at_pause(self, worker: str, token: str) -> None:
        """A paused worker takes nothing from its shared lane."""
        since = self._paused.get(current())
        if since is not None and self.pauses[current()]() and self._auditor.shared.get(token, 0) > since:
            self._report(f"worker {worker} is paused and executes attempt {token}, which went to the shared lane after that")

    def still_running(self) -> list[str]:
        """Attempts that living workers execute."""
        return [token for token, (_, process) in self.running.items() if not process.dead]

    def stored(self, stream: Stream, message: Message) -> None:
        """A lane message, or a row of the mirror: it must follow from the journal."""
        if stream.name == self._journal:
            self.journal = stream
        if stream.name == self._slots and message.data:
            self._row(message)
        if stream.name != self._lanes:
            return
        if message.subject.endswith("fence.0"):
            return self._trace(f"  lanes {message.sequence}: fence {message.data.decode()}")
        try:
            frame, _ = lane_frames.decode(message.data)
        except BadFrame as error:
            return self._report(f"a lane message can't be read: {error}")
        tokens = " ".join(order.token for order in frame.records if type(order) is Assign)
        self._trace(f"  lanes {message.sequence}: {message.subject} term {frame.term} {tokens}")
        for order in frame.records:
            if type(order) is Assign and order.token not in self._auditor.released:
                self._report(f"attempt {order.token} of {order.run} was sent to {message.subject} and is not in the journal")
        if frame.term < self._auditor.fenced_by:
            self._report(f"term {frame.term} has written to the lanes after term {self._auditor.fenced_by} had fenced them")

    def _row(self, message: Message) -> None:
        """The ledger as readers see it, at the journal sequence that it names."""
        row: dict[str, Any] = msgspec.json.decode(message.data)
        id = message.subject.rpartition(".")[2]
        if row["sequence"] != self._auditor.sequence:
            return
        worker = self._auditor.state.workers.get(id)
        mirrored = row["total"], row["used"], row["reserved"]
        ledger = (worker.slots, worker.used, len(worker.reserved)) if worker is not None else (0, *mirrored[1:])
        if mirrored != ledger:
            self._report(f"slots of {id} at journal sequence {row['sequence']} are mirrored as {mirrored}, the ledger says {ledger}")

    def follows(self, sequence: int, next: int) -> None:
        """A standby goes on from one frame to another: what it leaves out is not there any more."""
        kept = [left_out for left_out in range(sequence + 1, next) if left_out in self.journal.messages]
        if kept or next <= sequence:
            self._report(f"a standby at journal sequence {sequence} goes on at {next}: {len(kept)} frames between them are there")

    def followed(self, sequence: int, state: State) -> None:
        """A standby has applied a frame, perhaps after loading a snapshot."""
        if sequence % COMPARED_EVERY == 0:
            self._auditor.hear(sequence, digest(state))

    def published(self, subject: str, data: bytes) -> None:
        """A notice: it must follow from the journal."""
        if not subject.startswith(self._done):
            return
        frame, _ = notice_frames.decode(data)
        for notice in frame.records:
            if type(notice) is Done and notice.status != REFUSED and self._auditor.ended.get(notice.run) != notice.status:
                self._report(f"run {notice.run} is told to have {notice.status}; journaled is {self._auditor.ended.get(notice.run)}")


_witness: Witness | None = None


def witness() -> Witness:
    """The one of the simulation that runs."""
    assert _witness is not None
    return _witness


def appoint(one: Witness) -> None:
    """Have this one see from now on."""
    global _witness
    _witness = one
