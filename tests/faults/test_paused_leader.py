"""A leader that is stopped for ten seconds and wakes: somebody else leads, and it says nothing more."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from mesh.core import records as facts
from mesh_sdk import Mesh
from mesh_sdk.protocol import codec
from mesh_sdk.transport.connection import Link
from tests.faults import journal
from tests.faults.fleet import LEADER, Fleet, await_that

AFTER_S = 1.0
RESULT_S = 10.0


class Heard:
    """Everything that schedulers say: (when, subject, term)."""

    def __init__(self) -> None:
        self.said: list[tuple[float, str, int]] = []

    def beat(self, subject: str, reply: str, data: bytes) -> None:
        self.said.append((time.monotonic(), subject, codec.decode_leader_beat(data).term))

    def notice(self, subject: str, reply: str, data: bytes) -> None:
        self.said.append((time.monotonic(), subject, codec.notice_frames.decode(data)[0].term))


@asynccontextmanager
async def _listening(bus: Link) -> AsyncIterator[Heard]:
    heard = Heard()
    subscriptions = [
        await bus.subscribe(journal.NAMES.leader_beat, heard.beat),
        await bus.subscribe(journal.NAMES.done("*"), heard.notice),
    ]
    yield heard
    for subscription in subscriptions:
        await subscription.close()


@pytest.mark.parametrize(("phase", "stopped_s"), [("", 10.0), ("journal", 2.0), ("notice", 2.0)])
async def test_a_leader_that_wakes_says_nothing_and_steps_down(fleet: Fleet, bus: Link, phase: str, stopped_s: float) -> None:
    """Stopped anywhere; between journal and effects; with an assignment that is not written yet."""
    paused = fleet.ready(fleet.start(LEADER))
    fleet.worker()
    fleet.scheduler()
    async with Mesh(url=fleet.server.url) as mesh, _listening(bus) as heard:
        before = [mesh.start_nowait("Chain", {"n": n, "ms": 20}) for n in range(20)]
        for ref in before:
            await ref.accepted()
        if phase:
            paused.tell(f"stop report {phase}")
            await asyncio.to_thread(paused.line, f"stopped at {phase}", RESULT_S)
        else:
            paused.send(signal.SIGSTOP)
        stopped_at = time.monotonic()
        async with asyncio.timeout(RESULT_S):
            assert [await ref.result() for ref in before] == [n + 3 for n in range(20)]
        term = [number for number, frame in await journal.frames(bus) for r in frame.records if isinstance(r, facts.TermStarted)][-1]
        took_over = next(when for when, _, number in heard.said if number == term)
        assert took_over - stopped_at < 2.0
        while time.monotonic() - stopped_at < stopped_s:
            assert await mesh.run("once", {"n": 1}) == {"n": 1}
        paused.send(signal.SIGCONT)
        await asyncio.to_thread(await_that, "stepping down", lambda: " is over: another scheduler" in paused.output, RESULT_S)
        woke = time.monotonic()
        while time.monotonic() - woke < AFTER_S:
            assert await mesh.run("once", {"n": 2}) == {"n": 2}
        late = [said for said in heard.said if said[0] > took_over and said[2] < term]
        assert not late, "nothing of the old term is said in the new one"
        assert await _orders_of_older_terms(bus, term) == []
    if phase == "notice":
        assert "lane messages was refused by the fence" in paused.output
    found = await journal.records(bus)
    journal.check_once(found)
    journal.check_executions(fleet.executions())


async def _orders_of_older_terms(bus: Link, term: int) -> list[int]:
    """Sequences of lane messages that an older leader has written since this term began."""
    began = await bus.get(journal.NAMES.journal_stream, term)
    assert began is not None
    found = []
    for stored in await bus.read(journal.NAMES.lanes_stream, journal.NAMES.all_lanes):
        if stored.time_ms > began.time_ms:
            is_fence = stored.subject == journal.NAMES.lane_fence
            written = int(stored.data.split()[0]) if is_fence else codec.lane_frames.decode(stored.data)[0].term
            if written < term:
                found.append(stored.sequence)
    return found
