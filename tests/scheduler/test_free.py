"""Freeing: what fails there, fails alone."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from mesh.scheduler import free
from mesh.scheduler.free import SNAPSHOT_FRAMES, Freeing
from mesh_sdk.protocol.subjects import Subjects
from mesh_sdk.transport.bus import StreamState
from mesh_sdk.transport.errors import TimedOut

NAMES = Subjects("test")


class Bus:
    """A server that is too busy to purge."""

    async def purge(self, stream: str, **what: Any) -> int:
        raise TimedOut(f"{stream}: no answer in time")

    async def stream_state(self, stream: str) -> StreamState:
        return StreamState("", 1, 1, 1, 1, 1 << 30)


@pytest.fixture
def freeing() -> Freeing:
    report = SimpleNamespace(name="reports", stream=NAMES.reports_stream, subject=NAMES.report)
    loop = SimpleNamespace(
        inbox=SimpleNamespace(sources=[report]),
        positions={"reports": [7, 0]},
        journal=SimpleNamespace(sequence=SNAPSHOT_FRAMES + 1),
        outbox=SimpleNamespace(letters=SimpleNamespace(unwritten=lambda source: None)),
        frame_bytes=0,
    )
    lanes = SimpleNamespace(fence=1, purgeable=lambda messages: [])
    return Freeing(Bus(), NAMES, loop, lanes, "nats://nowhere", 10, 0)  # type: ignore[arg-type]


async def test_an_input_that_can_not_be_purged_keeps_the_journal_from_no_snapshot(
    freeing: Freeing, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = asyncio.Event()

    async def trim(*_: Any) -> None:
        made.set()

    monkeypatch.setattr(free, "trim", trim)
    await freeing.round()
    async with asyncio.timeout(5):
        await made.wait()


async def test_whatever_goes_wrong_with_a_snapshot_is_told_and_tried_again(
    freeing: Freeing, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tries: list[int] = []

    async def trim(*_: Any) -> None:
        tries.append(1)
        raise ValueError("of a kind that nobody has thought of")

    monkeypatch.setattr(free, "trim", trim)
    monkeypatch.setattr(free, "SNAPSHOT_AGAIN_S", 0.0)
    async with asyncio.timeout(5):
        while len(tries) < 3:
            await freeing.round()
            await asyncio.sleep(0)
    assert "no snapshot was made: ValueError" in caplog.text
