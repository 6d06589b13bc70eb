"""Messages in the journal that no scheduler wrote stop nobody; what claims to be a frame and is none stops all, loudly."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from mesh.core.records import JOURNAL_VERSION, JournalFrame, TermStarted
from mesh.engine import Engine
from mesh.scheduler.follower import Follower, Unfollowable
from mesh.scheduler.journal import Deposed, Journal, encode_frame
from mesh.store.topology import Topology
from mesh_sdk.protocol.subjects import Subjects
from mesh_sdk.transport.connection import Link, connect
from mesh_sdk.transport.errors import WrongSequence
from tests.contract.conftest import until
from tests.contract.servers import Server

NAMES = Subjects("test")
STRANGE = (b"garbage", b"", encode_frame(JournalFrame(JOURNAL_VERSION, 1, 1, {}, [TermStarted("stranger")])))


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    running = Server(tmp_path).start()
    yield running
    running.kill()


@pytest.fixture
async def bus(server: Server) -> AsyncIterator[Link]:
    link = await connect([server.url], name="test")
    await Topology(NAMES).ensure(link)
    yield link
    await link.close()


async def begin(bus: Link, holder: str = "a", at: int = 0) -> Journal:
    """A journal whose first frame says who leads."""
    journal = Journal(bus, NAMES, holder, at)
    await write(journal, at + 1, TermStarted(holder))
    return journal


async def write(journal: Journal, term: int, *records: TermStarted) -> int:
    frame = JournalFrame(JOURNAL_VERSION, term, 1, {}, list(records))
    async with asyncio.timeout(10):
        return await journal.settle(journal.send(encode_frame(frame)))


async def stray(bus: Link, *, subject: str = NAMES.journal) -> int:
    last = 0
    for data in STRANGE:
        last = await bus.append(subject, data)
    return last


async def followed(bus: Link, to: int) -> Follower:
    follower = Follower(bus, NAMES, 10)
    await follower.start()
    try:
        assert await follower.wait_for(to, 5)
    finally:
        await follower.stop()
    return follower


async def test_the_leader_goes_on_behind_them(bus: Link) -> None:
    journal = await begin(bus)
    await stray(bus)
    await stray(bus, subject=f"{NAMES.prefix}.journal.other")
    assert await write(journal, 1) == 1 + 2 * len(STRANGE) + 1
    assert await write(journal, 1) == journal.sequence
    assert journal.strays.count == len(STRANGE), "those on another subject keep nobody out"
    await stray(bus)
    last = await write(journal, 1)
    assert journal.strays.count == 2 * len(STRANGE)
    letters = [msgspec.json.decode(stored.data) for stored in await bus.read(NAMES.dead_stream, NAMES.dead("journal"))]
    assert len({letter["sequence"] for letter in letters}) == journal.strays.count
    assert all("no scheduler wrote it" in letter["reason"] for letter in letters)
    follower = await followed(bus, last)
    assert (follower.sequence, follower.state.term, follower.state.holder) == (last, 1, "a")


async def test_a_frame_whose_answer_was_lost_is_found_before_them(bus: Link) -> None:
    journal = await begin(bus)
    frame = journal.send(encode_frame(JournalFrame(JOURNAL_VERSION, 1, 1, {}, [])))
    await frame.future
    await stray(bus)
    frame.future = journal.append_soon(frame.data, "sent again, with an id that the stream does not know any more")
    async with asyncio.timeout(10):
        assert await journal.settle(frame) == 2
    assert await write(journal, 1) == 2 + len(STRANGE) + 1


async def test_a_successors_frame_among_them_is_found(bus: Link) -> None:
    journal = await begin(bus)
    successor = await begin(bus, "b", await stray(bus))
    journal.confirmed_at -= 1
    with pytest.raises(Deposed):
        await journal.verify_after(0.4)
    await stray(bus)
    with pytest.raises(Deposed):
        await write(journal, 1)
    journal.confirmed_at -= 1
    with pytest.raises(Deposed):
        await journal.verify_after(0.4)
    assert await write(successor, successor.sequence) > 0


async def test_they_depose_nobody_who_looks_whether_he_leads(bus: Link) -> None:
    journal = await begin(bus)
    journal.confirmed_at -= 1
    await stray(bus)
    await journal.verify_after(0.4)
    pending = journal.send(encode_frame(JournalFrame(JOURNAL_VERSION, 1, 1, {}, [])))
    assert await journal.settle(pending) == 1 + len(STRANGE) + 1


async def test_a_leader_of_the_stream_that_lags_deposes_nobody(bus: Link, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was just elected, and refuses what expects more than it has so far."""
    journal = await begin(bus)
    honest, refused = bus.append_soon, 0

    def append_soon(*what: Any, **more: Any) -> asyncio.Future[int]:
        nonlocal refused
        refused += 1
        if refused > 2:
            return honest(*what, **more)
        future: asyncio.Future[int] = bus.loop.create_future()
        future.set_exception(WrongSequence("wrong last sequence: 0", 10071))
        return future

    monkeypatch.setattr(bus, "append_soon", append_soon)
    assert await write(journal, 1) == 2


async def test_a_journal_that_has_lost_its_end_deposes(bus: Link) -> None:
    journal = await begin(bus)
    await bus.purge(NAMES.journal_stream)
    with pytest.raises(Deposed, match="lost its end"):
        await write(journal, 1)


async def test_a_scheduler_leads_behind_them(server: Server, bus: Link) -> None:
    last = await begin(bus)
    await stray(bus)
    await stray(bus, subject=f"{NAMES.prefix}.journal.other")
    lines: list[str] = []
    stop = asyncio.Event()
    task = asyncio.create_task(Engine(server.url, "test").run(lines.append, stop))
    await until(lambda: bool(lines))
    assert lines[0].endswith(f"leads term {last.sequence + 2 * len(STRANGE) + 1}")
    stop.set()
    await task


@pytest.mark.parametrize(
    "data", [b"garbage", encode_frame(JournalFrame(JOURNAL_VERSION, 7, 1, {}, []))], ids=["not to be read", "of a term that never was"]
)
async def test_what_claims_to_be_a_frame_is_no_stray(bus: Link, data: bytes) -> None:
    journal = await begin(bus)
    await bus.append(NAMES.journal, data, expect=journal.sequence)
    follower = Follower(bus, NAMES, 10)
    await follower.start()
    with pytest.raises(Unfollowable):
        await follower.wait_for(2, 5)
    await follower.stop()
    with pytest.raises(Deposed):
        await write(journal, 1)
