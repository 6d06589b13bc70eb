"""The leader's loop over a journal that the test answers: what is written, in which order, and what never is."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pytest
from msgspec import Raw

from mesh.core.core import Core
from mesh.core.image import encode_image, image
from mesh.core.inputs import SELF, Sender, TermBegan
from mesh.core.loading import load
from mesh.core.run import Run
from mesh.core.state import State
from mesh.scheduler.clock import CoreClock
from mesh.scheduler.inbox import Inbox
from mesh.scheduler.journal import decode_frame
from mesh.scheduler.loop import Loop, Poison
from mesh_sdk.protocol.codec import encode
from mesh_sdk.protocol.definitions import StepDefinition, WorkflowDefinition
from mesh_sdk.protocol.records import VERSION, Register, Start, TriggerFrame
from mesh_sdk.protocol.subjects import Subjects
from mesh_sdk.transport.bus import Delivery

NAMES = Subjects("test")


class ScriptedJournal:
    """Frames stand when the test says so."""

    def __init__(self) -> None:
        self.sequence = 1
        self.frames: list[bytes] = []
        self.sent = asyncio.Event()
        self.answers: list[asyncio.Future[None]] = []

    def send(self, data: bytes) -> int:
        self.frames.append(data)
        self.answers.append(asyncio.get_running_loop().create_future())
        self.sent.set()
        return len(self.frames)

    async def settle(self, frame: int) -> int:
        await self.answers[frame - 1]
        self.sequence += 1
        return self.sequence

    async def verify_after(self, stall_s: float) -> None:
        return None

    async def next_frame(self) -> None:
        await asyncio.wait_for(self.sent.wait(), 5)
        self.sent.clear()


class ScriptedOutbox:
    """Notes what is sent."""

    def __init__(self) -> None:
        self.sent: list[int] = []

    def slots_due(self, state: State) -> list[Any]:
        return []

    def prepare(self, effects: Any, slots: list[Any]) -> Any:
        return effects

    def send(self, prepared: Any, sequence: int) -> None:
        self.sent.append(sequence)


class Bench:
    """A loop with its parts."""

    def __init__(self, state: State | None = None, poison: Poison | None = None) -> None:
        tokens = itertools.count()
        self.core = Core(state or State(), lambda: f"t{next(tokens)}")
        self.core.decide(TermBegan("me"), SELF)
        self.core.take()
        self.inbox = Inbox(NAMES, lambda source: self.loop.arrived(source))
        self.journal = ScriptedJournal()
        self.outbox = ScriptedOutbox()
        clock = CoreClock(asyncio.get_running_loop().time)
        clock.anchor(1_700_000_000_000, asyncio.get_running_loop().time())
        self.poison: Poison = poison or set()
        self.loop = Loop(self.core, self.journal, self.inbox, self.outbox, clock, 1, 100, None, self.poison)  # type: ignore[arg-type]
        self._sequence = itertools.count(1)
        self._runs = itertools.count(1)

    def start(self, workflow: str = "nobody-registers-this") -> str:
        """A client's start arrives, in a message of its own."""
        run = f"{next(self._runs):032x}"
        frame = TriggerFrame(VERSION, "client", [Start(run, workflow, Raw(b"{}"))])
        source = next(source for source in self.inbox.starts if source.name == "start1")
        source.waiting.append(Delivery(next(self._sequence), 1, source.subject, encode(frame), 0, None))
        self.loop.arrived(source)
        return run


async def test_nothing_is_sent_before_its_frame_stands() -> None:
    bench = Bench()
    running = asyncio.create_task(bench.loop.run())
    bench.start()
    await bench.journal.next_frame()
    bench.start()  # decided while the first frame is being written; not written itself yet
    await asyncio.sleep(0)
    assert (len(bench.journal.frames), bench.outbox.sent) == (1, [])
    bench.journal.answers[0].set_result(None)
    await bench.journal.next_frame()
    assert bench.outbox.sent == [2]
    first, second = map(decode_frame, bench.journal.frames)
    assert (first.positions, second.positions) == ({"start1": [1, 0]}, {"start1": [2, 0]})
    running.cancel()


async def test_a_decision_that_broke_is_never_journaled(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench()
    running = asyncio.create_task(bench.loop.run())
    bench.start()
    await bench.journal.next_frame()
    apply = bench.core.state.apply

    def broken(record: Any) -> None:
        apply(record)
        raise KeyError("a defect")

    monkeypatch.setattr(bench.core.state, "apply", broken)
    bench.start()  # while a frame is in flight: half of its decision is in the core's hands
    bench.journal.answers[0].set_result(None)
    with pytest.raises(KeyError):
        await asyncio.wait_for(running, 5)
    assert len(bench.journal.frames) == 1
    assert bench.poison == {("start1", 2, 0)}


async def test_a_run_whose_time_could_not_be_decided_does_not_break_the_next_term(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its time comes again in every term."""
    bench = Bench()
    register = Register("w", 1, [WorkflowDefinition("w", [StepDefinition("a")])], {}, "c")
    bench.core.decide(register, Sender("w1", "1"))
    runs = [f"{number:032x}" for number in range(2)]
    for run in runs:
        bench.core.decide(Start(run, "w", Raw(b"{}"), delay_ms=1), Sender("client"))
    bench.core.take()
    snapshot = encode_image(image(bench.core.state))
    begin = Core.begin_run

    def broken(core: Core, run: Run) -> None:
        if run.id == runs[1]:
            raise KeyError("a defect")
        begin(core, run)

    monkeypatch.setattr(Core, "begin_run", broken)
    with pytest.raises(KeyError):
        await asyncio.wait_for(bench.loop.run(), 5)
    assert bench.journal.frames == []
    assert bench.poison == {runs[1]}
    successor = Bench(load(snapshot, 100), bench.poison)
    running = asyncio.create_task(successor.loop.run())
    await successor.journal.next_frame()
    kinds = [type(record).__name__ for record in decode_frame(successor.journal.frames[0]).records]
    assert kinds == ["RunFinished", "RunBegan", "StepReleased"]
    assert [run.id for run in successor.core.state.runs.values()] == runs[:1]
    given_up = successor.core.state.find(runs[1])
    assert given_up is not None
    assert "a defect of the scheduler" in given_up.reason
    running.cancel()


async def test_what_broke_a_term_is_rejected_in_the_next_and_its_client_told() -> None:
    bench = Bench()
    bench.poison.add(("start1", 1, 0))
    running = asyncio.create_task(bench.loop.run())
    run = bench.start()
    await bench.journal.next_frame()
    kinds = [type(record).__name__ for record in decode_frame(bench.journal.frames[0]).records]
    assert kinds == ["InputRejected", "RunRefused"]
    refused = bench.core.state.find(run)
    assert refused is not None
    assert refused.client == "client"
    running.cancel()
