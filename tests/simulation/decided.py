"""What was told to the scheduler, and where: whatever the journal says was decided must be behind the positions that it names.

Rule: looked up by what both sides name, the run's id or the attempt's token.
"""

from __future__ import annotations

from collections.abc import Callable

from mesh.core import records as facts
from mesh.core.records import JournalFrame
from mesh_sdk.protocol.codec import BadFrame, report_frames, trigger_frames
from mesh_sdk.protocol.records import Finished, Start
from mesh_sdk.protocol.subjects import Subjects
from tests.simulation.stream import Message, Stream


class Decided:
    """See the module.

    Args:
        subjects: of the namespace.
        report: gets what is wrong.
    """

    def __init__(self, subjects: Subjects, report: Callable[[str], None]) -> None:
        self._triggers, self._reports = subjects.triggers_stream, subjects.reports_stream
        self._events = subjects.events_stream
        self._report = report
        self._told: dict[str, tuple[str, int]] = {}
        """Run id or token → (source, sequence) of what first told of it."""
        self.defined: set[str] = set()
        """Workflows, as journaled so far."""
        self.events: dict[int, tuple[str, frozenset[str]]] = {}
        """Stored events by sequence, and what was defined before them."""
        self.started_by: set[tuple[int, str]] = set()
        """(event, workflow) of runs."""

    def stored(self, stream: Stream, message: Message) -> None:
        """A start or a report was stored."""
        try:
            if stream.name == self._triggers:
                source = f"start{message.subject.rpartition('.')[2]}"
                for trigger in trigger_frames.decode(message.data)[0].records:
                    if type(trigger) is Start:
                        self._told.setdefault(trigger.run, (source, message.sequence))
            elif stream.name == self._events:
                self.events[message.sequence] = (message.subject, frozenset(self.defined))
            elif stream.name == self._reports:
                for report in report_frames.decode(message.data)[0].records:
                    if type(report) is Finished:
                        self._told.setdefault(report.token, ("reports", message.sequence))
        except BadFrame as error:
            self._report(f"a frame on {message.subject} can't be read: {error}")

    def started(self, event: int, workflow: str) -> None:
        """An event has started a run."""
        if (event, workflow) in self.started_by:
            self._report(f"event {event} starts a run of {workflow} a second time")
        self.started_by.add((event, workflow))

    def look(self, sequence: int, frame: JournalFrame) -> None:
        """A journal frame: its positions are not before what it decides."""
        for record in frame.records:
            if type(record) is facts.WorkflowDefined:
                self.defined.add(record.definition.name)
            name = record.run if type(record) is facts.RunStarted else record.token if type(record) is facts.StepFinished else ""
            told = self._told.get(name)
            if told is not None and frame.positions.get(told[0], [0])[0] < told[1]:
                self._report(f"frame {sequence} decides {told[0]} {told[1]} and has the position {frame.positions.get(told[0])}")
