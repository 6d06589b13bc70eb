"""Everything the leader is told by streams, in the order of each stream, with the positions to journal.

Rule: a message is offered once and in order; the position says how much of it was decided. Nothing is acknowledged.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
from msgspec import Raw

from mesh.core.inputs import SELF, EventArrived, Sender, Unreadable
from mesh_sdk.protocol.codec import PAYLOAD_BYTES_MAX, BadFrame, read_sparingly, report_frames, trigger_frames
from mesh_sdk.protocol.subjects import PRIORITIES, Subjects
from mesh_sdk.transport.bus import Bus, Delivery, Reader

Decoded = tuple[Any, Sender]

EVENTS = "events"
REPORTS = "reports"
CONTROL = "control"

START_WINDOW = 16
"""Messages of starts read ahead of each priority: what has been read must fit into memory."""
REPORT_WINDOW = 256
MESSAGE_BYTES_MAX = PAYLOAD_BYTES_MAX + 128 * 1024
"""The SDK sends nothing larger; with what a journal frame may hold already it still fits a server's message."""

_check_json = msgspec.json.Decoder().decode


class Source:
    """One ordered input: a subject of a stream, and how far it was decided."""

    def __init__(
        self,
        name: str,
        stream: str,
        subject: str,
        decode: Callable[[Delivery], Iterator[Decoded]],
        *,
        weight: int,
        starts: bool,
        window: int,
    ) -> None:
        self.name = name
        self.stream = stream
        self.subject = subject
        self.decode = decode
        self.weight = weight
        self.starts = starts
        """Starts runs: not read while too many live."""
        self.window = window
        self.credit = 0
        self.sequence = 0
        """Of the last message that was decided, wholly or in part."""
        self.part = 0
        """How many of its records, when not all."""
        self.waiting: deque[Delivery] = deque()
        self.reader: Reader | None = None

    @property
    def position(self) -> list[int]:
        return [self.sequence, self.part]


class Inbox:
    """The sources of one namespace and partition.

    Args:
        subjects: the namespace's names.
        on_input: called whenever a message has arrived.
    """

    def __init__(self, subjects: Subjects, on_input: Callable[[Source], None]) -> None:
        names = subjects
        self._subjects = subjects
        self._on_input = on_input
        self.reports = Source(REPORTS, names.reports_stream, names.report, decode_reports, weight=0, starts=False, window=REPORT_WINDOW)
        self.control = Source(
            CONTROL, names.triggers_stream, names.trigger_control, _triggers(CONTROL, 0), weight=0, starts=False, window=START_WINDOW
        )
        starts = [
            Source(
                f"start{p}", names.triggers_stream, names.trigger(p), _triggers(f"start{p}", p), weight=p, starts=True, window=START_WINDOW
            )
            for p in reversed(PRIORITIES)
        ]
        events = Source(EVENTS, names.events_stream, names.all_events, self._events, weight=5, starts=True, window=REPORT_WINDOW)
        self.starts = [*starts, events]
        self.sources = [self.control, self.reports, *self.starts]
        self._paused = False

    def place(self, positions: dict[str, list[int]]) -> None:
        """Where the journal says that each source was left."""
        for source in self.sources:
            source.sequence, source.part = positions.get(source.name, [0, 0])

    def positions(self) -> dict[str, list[int]]:
        """How far every source has been decided."""
        return {source.name: [source.sequence, source.part] for source in self.sources if source.sequence}

    async def open(self, bus: Bus) -> None:
        """Read on from the positions."""
        for source in self.sources:
            start = source.sequence if source.part else source.sequence + 1
            source.reader = bus.reader(source.stream, source.subject, start, self._arrival(source), window=source.window)
            await source.reader.start()

    def _arrival(self, source: Source) -> Callable[[Delivery], None]:
        def arrived(delivery: Delivery) -> None:
            source.waiting.append(delivery)
            self._on_input(source)

        return arrived

    async def close(self) -> None:
        """Read no more."""
        for source in self.sources:
            if source.reader is not None:
                await source.reader.close()
                source.reader = None

    def hold_starts(self, hold: bool) -> None:
        """Leave further starts on disk, or read them again."""
        if hold == self._paused:
            return
        self._paused = hold
        for source in self.starts:
            if source.reader is not None:
                if hold:
                    source.reader.pause()
                else:
                    source.reader.resume()

    def next(self) -> Source | None:
        """The source to decide from next: control and reports first, then starts by weight, never one of them only."""
        if self.control.waiting:
            return self.control
        if self.reports.waiting:
            return self.reports
        if self._paused:
            return None
        best: Source | None = None
        total = 0
        for source in self.starts:
            if source.waiting:
                source.credit += source.weight
                total += source.weight
                if best is None or source.credit > best.credit:
                    best = source
        if best is not None:
            best.credit -= total
        return best

    def all_starts_read(self) -> bool:
        """Nothing that was stored a while ago is still to be decided."""
        return all(s.reader is not None and s.reader.caught_up and not s.waiting for s in self.starts)

    def _events(self, delivery: Delivery) -> Iterator[Decoded]:
        name = self._subjects.event_name(delivery.subject)
        if len(delivery.data) > PAYLOAD_BYTES_MAX:
            yield Unreadable(EVENTS, delivery.sequence, -1, _too_large(f"event {name!r}", delivery, PAYLOAD_BYTES_MAX)), SELF
            return
        try:
            read_sparingly(_check_json, delivery.data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            yield Unreadable(EVENTS, delivery.sequence, -1, f"event {name!r} is not JSON: {error}"), SELF
            return
        yield EventArrived(delivery.sequence, delivery.time_ms, name, Raw(delivery.data), _metadata(delivery)), SELF


def _metadata(delivery: Delivery) -> dict[str, str] | None:
    """What the publisher put into the event's headers for its runs."""
    text = (delivery.headers or {}).get("Mesh-Metadata")
    if not text:
        return None
    try:
        return msgspec.json.decode(text, type=dict[str, str])
    except (msgspec.DecodeError, msgspec.ValidationError):
        return None


def _too_large(what: str, delivery: Delivery, limit: int) -> str:
    return f"{what} has {len(delivery.data):,} bytes, the mesh carries at most {limit:,}"


def decode_reports(delivery: Delivery) -> Iterator[Decoded]:
    """What a worker reports, record by record."""
    if len(delivery.data) > MESSAGE_BYTES_MAX:
        yield Unreadable(REPORTS, delivery.sequence, -1, _too_large("a frame of reports", delivery, MESSAGE_BYTES_MAX)), SELF
        return
    try:
        frame, bad = report_frames.decode(delivery.data)
    except BadFrame as error:
        yield Unreadable(REPORTS, delivery.sequence, -1, str(error)), SELF
        return
    for index, reason in bad:
        yield Unreadable(REPORTS, delivery.sequence, index, reason), SELF
    sender = Sender(frame.worker, frame.incarnation, delivery.time_ms)
    for record in frame.records:
        yield record, sender


def _triggers(source: str, priority: int) -> Callable[[Delivery], Iterator[Decoded]]:
    """Decodes starts of one priority, or (0) cancels."""

    def decode(delivery: Delivery) -> Iterator[Decoded]:
        if len(delivery.data) > MESSAGE_BYTES_MAX:
            yield Unreadable(source, delivery.sequence, -1, _too_large("a frame of starts", delivery, MESSAGE_BYTES_MAX)), SELF
            return
        try:
            frame, bad = trigger_frames.decode(delivery.data)
        except BadFrame as error:
            yield Unreadable(source, delivery.sequence, -1, str(error)), SELF
            return
        for index, reason in bad:
            yield Unreadable(source, delivery.sequence, index, reason), SELF
        sender = Sender(frame.client, "", delivery.time_ms, priority, frame.resent > 0)
        for record in frame.records:
            yield record, sender

    return decode
