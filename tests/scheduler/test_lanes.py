"""Lanes on a real server: fences of leaders that were paused, lanes that are full, deleted and made anew."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest

from mesh.core.effects import Effects
from mesh.core.state import State
from mesh.scheduler.journal import Deposed
from mesh.scheduler.lanes import SEQUENCES, Lanes
from mesh.scheduler.lookout import LanesGone
from mesh.scheduler.outbox import Outbox
from mesh.server import EmbeddedServer
from mesh.store.topology import Topology
from mesh_sdk.protocol.records import Order, Withdraw
from mesh_sdk.protocol.subjects import Subjects
from mesh_sdk.transport.bus import Bus
from mesh_sdk.transport.connection import connect
from mesh_sdk.transport.errors import StreamFull

WITHIN_S = 10.0
LANES_BYTES = 4_000
ADDRESS = ("w", "i")
ORDER: Order = Withdraw("r", 0, 1, "t", "why")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    with EmbeddedServer(Path(tmp_path_factory.mktemp("nats"))) as running:
        yield running


class House:
    """A namespace of its own, with lanes made and remade as a leader does it."""

    def __init__(self, bus: Bus, namespace: str) -> None:
        self.bus = bus
        self.names = Subjects(namespace)

    async def journal(self, frames: int) -> None:
        """Have a journal that is so long."""
        journal = next(settings for settings in Topology(self.names).stored() if settings.name == self.names.journal_stream)
        await self.bus.ensure_stream(msgspec.structs.replace(journal, max_bytes=1_000_000))
        for _ in range(frames):
            await self.bus.append(self.names.journal, b"{}")

    async def make(self, term: int, max_bytes: int = 1_000_000) -> Lanes:
        """A leader that makes the lanes, or empties those that are there, and fences them."""
        await self.bus.ensure_stream(msgspec.structs.replace(Topology(self.names).lanes(), max_bytes=max_bytes))
        lanes = Lanes(self.bus, self.names, term)
        await lanes.void(term)
        await lanes.take_fence()
        return lanes

    async def delete(self) -> None:
        await self.bus.request(f"$JS.API.STREAM.DELETE.{self.names.lanes_stream}", b"", WITHIN_S)

    async def orders(self) -> list[int]:
        """Sequences of what lies in the private lane."""
        return [stored.sequence for stored in await self.bus.read(self.names.lanes_stream, self.names.worker_lane(*ADDRESS))]


@pytest.fixture
async def house(server: EmbeddedServer, request: pytest.FixtureRequest) -> AsyncIterator[House]:
    bus = await connect([server.url], name="test")
    yield House(bus, "".join(letter for letter in request.node.name if letter.isalnum())[-30:])
    await bus.close()


def order(lanes: Lanes) -> None:
    lanes.prepare_private(ADDRESS, [ORDER])
    lanes.send(lanes.prepared())


async def test_a_leader_that_was_paused_while_the_lanes_were_remade_writes_nothing(house: House) -> None:
    """Both fences are the first message of their streams: only their sequences tell them apart."""
    await house.journal(3)
    paused = await house.make(1)
    order(paused)
    await house.delete()
    newer = await house.make(2)
    assert newer.fence >= 2 * SEQUENCES > paused.fence
    with pytest.raises(Deposed):
        await asyncio.wait_for(paused.run(), WITHIN_S)
    assert await house.orders() == []


async def test_a_leader_that_was_paused_before_it_emptied_the_lanes_removes_nothing_of_a_newer_one(house: House) -> None:
    await house.journal(3)
    newer = await house.make(2)
    writing = asyncio.create_task(newer.run())
    order(newer)
    assert await newer.flush(WITHIN_S)
    stood = await house.orders()
    late = Lanes(house.bus, house.names, 1)
    await late.void(1)
    with pytest.raises(Deposed):
        await late.take_fence()
    assert await house.orders() == stood != []
    writing.cancel()


async def test_what_follows_from_a_frame_that_is_in_flight_does_not_leave_with_what_is_sent_meanwhile(house: House) -> None:
    """A takeover sends beside the loop; what the loop has prepared leaves when its own records stand."""
    lanes = await house.make(1)
    outbox = Outbox(house.bus, house.names, State(10), lanes, 1)
    follows = Effects()
    follows.private[ADDRESS] = [ORDER]
    in_flight = outbox.prepare(follows, [])
    outbox.send(outbox.prepare(Effects(), []), 1)
    writing = asyncio.create_task(lanes.run())
    assert await lanes.flush(WITHIN_S)
    assert await house.orders() == []
    outbox.send(in_flight, 2)
    assert await lanes.flush(WITHIN_S)
    assert len(await house.orders()) == 1
    writing.cancel()


async def test_lanes_that_were_emptied_are_not_taken_for_those_that_were_fenced(house: House) -> None:
    """So a cluster leaves them when the one server that holds them was restarted."""
    await house.journal(3)
    await house.make(1)
    older = await Lanes(house.bus, house.names, 2).fenced()
    await house.delete()
    await house.bus.ensure_stream(msgspec.structs.replace(Topology(house.names).lanes(), max_bytes=1_000_000))
    successor = Lanes(house.bus, house.names, 2)
    assert await successor.fenced() == 0
    with pytest.raises(LanesGone):
        await successor.take_fence(older)


async def test_full_lanes_are_no_place_for_a_fence_until_they_are_emptied(house: House) -> None:
    await house.journal(3)
    await house.make(1, LANES_BYTES)
    with suppress(StreamFull):
        while True:
            await house.bus.append(house.names.worker_lane(*ADDRESS), b"x" * 10)
    successor = Lanes(house.bus, house.names, 2)
    with pytest.raises(StreamFull):
        await asyncio.wait_for(successor.take_fence(), WITHIN_S)
    await successor.void(2)
    await successor.take_fence()
    assert await house.orders() == []


async def test_flushing_waits_for_what_is_queued_and_not_for_what_comes_after(house: House) -> None:
    await house.journal(3)
    lanes = await house.make(1)
    order(lanes)
    assert not await lanes.flush(0.05), "nobody writes yet"
    lanes.on_written = lambda count: order(lanes)  # there is always more to write
    writing = asyncio.create_task(lanes.run())
    for _ in range(3):
        assert await lanes.flush(WITHIN_S)
    writing.cancel()


async def test_what_was_dropped_with_lost_lanes_is_not_waited_for(house: House) -> None:
    await house.journal(3)
    lanes = await house.make(1)
    order(lanes)
    lanes.forget()
    assert await lanes.flush(WITHIN_S)
