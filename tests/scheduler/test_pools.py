"""Consumers of shared lanes on a real server: what somebody has seen is never delivered again as if for the first time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from mesh.server import EmbeddedServer
from mesh.store.pools import PoolConsumers
from mesh.store.topology import Topology
from mesh_sdk.protocol.subjects import Subjects
from mesh_sdk.transport.bus import LaneMessage
from mesh_sdk.transport.connection import Link, connect
from mesh_sdk.transport.errors import TimedOut

WITHIN_S = 10.0
POOL = "p"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    with EmbeddedServer(Path(tmp_path_factory.mktemp("nats"))) as running:
        yield running


class House:
    """A namespace of its own with lanes."""

    def __init__(self, bus: Link, namespace: str) -> None:
        self.bus = bus
        self.names = Subjects(namespace)
        self.last = 0
        self.consumers = PoolConsumers(bus, self.names)

    async def assign(self, data: bytes) -> None:
        self.last = await self.bus.append(self.names.shared_lane(POOL), data)

    async def written(self) -> int | None:
        return self.last

    async def there(self) -> list[str]:
        return await self.bus.consumers(self.names.lanes_stream)

    async def pulled(self, expected: bytes) -> list[bytes]:
        """What a worker is given until it sees this, all of it answered."""
        found: list[bytes] = []
        seen = asyncio.Event()

        def take(message: LaneMessage) -> None:
            assert message.deliveries == 1
            found.append(message.data)
            message.ack()
            if message.data == expected:
                seen.set()

        puller = self.bus.puller(self.names.lanes_stream, self.names.pool_consumer(POOL), lambda: 8, take)
        await puller.start()
        async with asyncio.timeout(WITHIN_S):
            await seen.wait()
        await puller.close()
        return found


@pytest.fixture
async def house(server: EmbeddedServer, request: pytest.FixtureRequest) -> AsyncIterator[House]:
    bus = await connect([server.url], name="test")
    made = House(bus, "".join(letter for letter in request.node.name if letter.isalnum())[-30:])
    await bus.ensure_stream(msgspec.structs.replace(Topology(made.names).lanes(), max_bytes=1_000_000))
    await made.consumers.take_over([POOL], 0)
    await made.assign(b"old")
    assert await made.pulled(b"old") == [b"old"]
    yield made
    await bus.close()


async def test_a_pool_that_comes_back_is_given_nothing_that_was_answered(house: House) -> None:
    await house.consumers.drop([], house.written)
    assert await house.there() == []
    await house.consumers.have([POOL])
    await house.assign(b"new")
    assert await house.pulled(b"new") == [b"new"]


async def test_a_leader_that_dies_while_it_deletes_has_emptied_the_lane_before(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    delete = house.bus.delete_consumer

    async def dies(stream: str, name: str) -> None:
        await delete(stream, name)
        raise TimedOut("it is dead")

    monkeypatch.setattr(house.bus, "delete_consumer", dies)
    with pytest.raises(TimedOut):
        await house.consumers.drop([], house.written)
    successor = PoolConsumers(house.bus, house.names)
    await successor.take_over([], house.last)
    await successor.have([POOL])
    await house.assign(b"new")
    assert await house.pulled(b"new") == [b"new"]


async def test_a_successor_that_finds_a_lane_without_its_consumer_empties_it(house: House) -> None:
    await house.bus.delete_consumer(house.names.lanes_stream, house.names.pool_consumer(POOL))
    await PoolConsumers(house.bus, house.names).take_over([POOL], house.last)
    await house.assign(b"new")
    assert await house.pulled(b"new") == [b"new"]


async def test_a_pool_that_is_back_in_time_keeps_its_consumer_and_its_lane(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    pools: set[str] = set()
    purge = house.bus.purge

    async def meanwhile(stream: str, **what: Any) -> None:
        await purge(stream, **what)
        pools.add(POOL)
        await house.assign(b"new")

    monkeypatch.setattr(house.bus, "purge", meanwhile)
    await house.consumers.drop(pools, house.written)
    assert await house.there() == [house.names.pool_consumer(POOL)]
    assert await house.pulled(b"new") == [b"new"]


async def test_nothing_is_deleted_while_the_lanes_take_nothing(house: House) -> None:
    async def stuck() -> int | None:
        return None

    await house.consumers.drop([], stuck)
    assert await house.there() == [house.names.pool_consumer(POOL)]
    await house.consumers.drop([], house.written)
    assert await house.there() == []


async def test_lanes_that_were_lost_while_they_were_made_get_their_consumers(house: House) -> None:
    """Those that were made before went with the stream."""
    await house.bus.request(f"$JS.API.STREAM.DELETE.{house.names.lanes_stream}", b"", WITHIN_S)
    await house.bus.ensure_stream(msgspec.structs.replace(Topology(house.names).lanes(), max_bytes=1_000_000))
    await house.consumers.take_over([POOL], 0)
    assert await house.there() == [house.names.pool_consumer(POOL)]
