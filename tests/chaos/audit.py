"""Reads the journal of a chaos run while it is written, past the network, and keeps every frame: the leaders trim behind it.

Rule: it is the referee of what was recorded; it decides nothing.
"""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from mesh.core import records as facts
from mesh.core.image import digest as state_digest
from mesh.core.records import JournalFrame
from mesh.core.state import State
from mesh.scheduler.journal import decode_frame
from mesh_sdk.protocol.subjects import Subjects
from mesh_sdk.transport.bus import Delivery
from mesh_sdk.transport.connection import Link, connect
from mesh_sdk.transport.errors import TransportError
from tests.chaos.history import Line
from tests.chaos.witness import digest
from tests.faults.journal import digests

NAMES = Subjects()
FINISHED_MAX = 10_000
SAMPLE_S = 2.0
ASK_S = 2.0
AGREE_S = 40.0
INPUTS = {"events": NAMES.events_stream, "trigger": NAMES.triggers_stream, "report": NAMES.reports_stream}
CONNECT_S = 20.0


class Frame(NamedTuple):
    """A message of the journal, and when it was seen."""

    sequence: int
    at: float
    digest: str
    frame: JournalFrame
    data: bytes


class Audit:
    """See the module."""

    def __init__(self, bus: Link) -> None:
        self.frames: list[Frame] = []
        self.started: dict[str, facts.RunStarted] = {}
        self.ended: dict[str, facts.RunFinished] = {}
        self.refused: set[str] = set()
        self.repeated: dict[str, str] = {}
        self.samples: list[tuple[float, int, str]] = []
        """(when, journal sequence, the digest of the leader's state there)."""
        self.complaints: list[str] = []
        self.unreplayable = ""
        """Why the journal makes no state, "" if it does."""
        self.repeats = 0
        """Frames that were read again."""
        self._bus = bus
        self._reader = bus.reader(NAMES.journal_stream, NAMES.journal, 1, self._take)

    @classmethod
    async def open(cls, url: str) -> Audit:
        """Connect to the servers themselves."""
        return cls(await connect(url.split(","), name="chaos audit", connect_timeout=CONNECT_S))

    async def start(self) -> None:
        """Read on from now; the journal exists."""
        await self._reader.start()

    async def close(self) -> None:
        await self._reader.close()
        await self._bus.close()

    def _take(self, delivery: Delivery) -> None:
        last = self.frames[-1].sequence if self.frames else 0
        if delivery.sequence <= last:  # a server that was behind when it was asked: the reader begins again from there
            self.repeats += 1
            if self.frames[delivery.sequence - self.frames[0].sequence].digest != digest("journal", delivery.data):
                self.complaints.append(f"journal frame {delivery.sequence} was another one before")
            return
        if delivery.sequence != last + 1:
            self.complaints.append(f"the journal goes on at {delivery.sequence} after {last}")
        frame = decode_frame(delivery.data)
        self.frames.append(Frame(delivery.sequence, time.monotonic(), digest("journal", delivery.data), frame, delivery.data))
        for record in frame.records:
            if isinstance(record, facts.RunStarted):
                self.started[record.run] = record
            elif isinstance(record, facts.RunFinished):
                self.ended[record.run] = record
            elif isinstance(record, facts.RunRefused):
                self.refused.add(record.run)
            elif isinstance(record, facts.StartRepeated):
                self.repeated[record.requested] = record.run

    def write(self, file: Path) -> None:
        """Keep the journal for whoever looks into a broken promise: a line is a frame's sequence and its JSON."""
        file.write_bytes(b"".join(b"%d %s\n" % (kept.sequence, kept.data) for kept in self.frames))

    def unended(self, requested: list[str]) -> list[str]:
        """What has not ended: of these acknowledged starts, and of all runs, children and events' too."""
        runs = {self.repeated.get(run, run) for run in requested} | set(self.started)
        return sorted(run for run in runs if run not in self.ended and run not in self.refused)

    async def settled(self, requested: list[str], within_s: float) -> list[str]:
        """Wait until everything has ended; what has not by then."""
        end = time.monotonic() + within_s
        while (left := self.unended(requested)) and time.monotonic() < end:
            await asyncio.sleep(0.2)
        return left

    # ---- states -----------------------------------------------------------------------------------------------------

    async def sample(self) -> None:
        """Ask the leader for its state's digest now and then, for ever."""
        while True:
            with suppress(TransportError):
                answer = await self._ask_leader()
                self.samples.append((time.monotonic(), answer["sequence"], answer["digest"]))
            await asyncio.sleep(SAMPLE_S)

    async def agreed(self) -> bool:
        """Wait until the leader and its standby have one state at one sequence, when nothing happens any more."""
        end = time.monotonic() + AGREE_S
        while time.monotonic() < end:
            with suppress(TransportError):
                leader = await self._ask_leader()
                answers = await digests(self._bus)
                standby = [one for one in answers if not one["leads"] and one["sequence"] == leader["sequence"]]
                if standby and self.frames and self.frames[-1].sequence == leader["sequence"]:
                    self.samples += [(time.monotonic(), one["sequence"], one["digest"]) for one in (leader, *standby)]
                    return True
            await asyncio.sleep(0.3)
        return False

    def replay(self) -> tuple[State, dict[int, str]]:
        """The state after all frames, from the first one on, and its digest wherever somebody has told theirs."""
        state = State(FINISHED_MAX)
        wanted, found = {sequence for _, sequence, _ in self.samples}, {}
        for kept in self.frames:
            try:
                _apply(state, kept)
            except Exception as error:  # a journal that two leaders wrote: the other checkers say what came of it
                self.unreplayable = f"frame {kept.sequence} can't be applied to what stands before it: {error!r}"
                break
            if kept.sequence in wanted:
                found[kept.sequence] = state_digest(state)
        return state, found

    async def _ask_leader(self) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(await self._bus.request(NAMES.api("digest"), b"{}", ASK_S))["ok"]
        return answer

    # ---- what is stored -----------------------------------------------------------------------------------------------

    async def compare(self, lines: list[Line]) -> tuple[int, list[str]]:
        """Compare acknowledged messages with what the input streams hold now.

        Returns:
            How many were compared, and what is not as it was acknowledged. What was decided is purged, and not missed here.
        """
        compared, wrong = 0, []
        for kind, stream in INPUTS.items():
            acknowledged = {line.fields["sequence"]: line.fields["digest"] for line in lines if line.fields["stream"] == kind}
            if not acknowledged:
                continue
            held = await self._held(kind, stream)
            last = held[0]
            for sequence, written in acknowledged.items():
                if sequence > last:
                    wrong.append(f"{kind} {sequence} was acknowledged, and the stream ends at {last}")
                elif sequence in held[1]:
                    compared += 1
                    if held[1][sequence] != written:
                        wrong.append(f"{kind} {sequence} holds {held[1][sequence]}, acknowledged was {written}")
        return compared, wrong

    async def _held(self, kind: str, stream: str) -> tuple[int, dict[int, str]]:
        """A stream's last sequence, and the digests of what it holds."""
        async with asyncio.timeout(AGREE_S):
            while True:
                with suppress(TransportError):
                    stored = await self._bus.read(stream, ">")
                    state = await self._bus.stream_state(stream)
                    if state is not None:
                        return state.last, {message.sequence: digest(kind, message.data) for message in stored}
                await asyncio.sleep(0.2)


def _apply(state: State, kept: Frame) -> None:
    state.now = kept.frame.at
    for record in kept.frame.records:
        if isinstance(record, facts.TermStarted):
            state.term = kept.sequence
        state.apply(record)
    state.changed_workers.clear()
