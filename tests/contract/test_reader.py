"""Reading in order: each message once, over cuts, holes and restarts."""

from __future__ import annotations

import asyncio

import pytest

from mesh_sdk.transport.bus import Bus, Delivery
from tests.contract.conftest import MakeBus, stream, until
from tests.contract.proxy import Proxy
from tests.contract.servers import Server


async def test_it_begins_where_it_was_told(bus: Bus, name: str):
    await bus.ensure_stream(stream(name))
    for n in range(5):
        await bus.append(f"{name}.{'a' if n % 2 else 'b'}", b"%d" % n, message_id=f"{n}")
    got: list[Delivery] = []
    reader = bus.reader(name, f"{name}.b", 2, got.append)
    assert reader.position == 1
    await reader.start()
    await until(lambda: len(got) == 2)
    assert [(each.sequence, each.data, each.subject, each.pending) for each in got] == [
        (3, b"2", f"{name}.b", 1),
        (5, b"4", f"{name}.b", 0),
    ]
    assert got[0].headers == {"Nats-Msg-Id": "2"}
    assert abs(got[0].time_ms - got[1].time_ms) < 60_000
    assert reader.position == 5
    assert reader.caught_up
    await reader.close()
    await bus.append(f"{name}.b", b"unread")
    assert len(got) == 2


async def test_an_empty_stream_is_caught_up_at_once(bus: Bus, name: str):
    await bus.ensure_stream(stream(name))
    reader = bus.reader(name, f"{name}.>", 1, lambda delivery: None)
    assert not reader.caught_up
    await reader.start()
    assert reader.caught_up
    await reader.close()


async def test_pausing_bounds_what_still_comes(bus: Bus, name: str):
    await bus.ensure_stream(stream(name))
    await asyncio.gather(*(bus.append_soon(f"{name}.a", b"%d" % n) for n in range(100)))
    got: list[int] = []
    reader = bus.reader(name, f"{name}.>", 1, lambda delivery: got.append(delivery.sequence), window=10)
    await reader.start()
    reader.pause()
    await bus.request(f"$JS.API.STREAM.INFO.{name}", b"", 5)
    assert len(got) <= 20
    reader.resume()
    await until(lambda: len(got) == 100)
    assert got == list(range(1, 101))
    await reader.close()


async def test_a_faulty_callback_stops_nothing(bus: Bus, name: str, caplog: pytest.LogCaptureFixture):
    await bus.ensure_stream(stream(name))
    got: list[int] = []

    def take(delivery: Delivery) -> None:
        got.append(delivery.sequence)
        raise RuntimeError("faulty")

    reader = bus.reader(name, f"{name}.>", 1, take, window=2)
    await reader.start()
    await asyncio.gather(*(bus.append_soon(f"{name}.a", b"") for _ in range(10)))
    await until(lambda: len(got) == 10)
    assert got == list(range(1, 11))
    await reader.close()


async def test_a_deleted_consumer_is_replaced(bus: Bus, name: str):
    await bus.ensure_stream(stream(name))
    got: list[int] = []
    reader = bus.reader(name, f"{name}.>", 1, lambda delivery: got.append(delivery.sequence))
    await reader.start()
    await bus.append(f"{name}.a", b"")
    await until(lambda: got == [1])
    names = (await bus.request(f"$JS.API.CONSUMER.NAMES.{name}", b"", 5)).decode()
    consumer = names.split('"consumers":["')[1].split('"')[0]
    await bus.delete_consumer(name, consumer)
    await bus.append(f"{name}.a", b"")
    await until(lambda: got == [1, 2])
    await reader.close()


async def test_nothing_is_lost_nor_doubled_over_holes_and_cuts(make_bus: MakeBus, proxy: Proxy, server: Server, name: str):
    writer, bus = await make_bus(server.url), await make_bus(proxy.url)
    await writer.ensure_stream(stream(name))
    got: list[int] = []
    reader = bus.reader(name, f"{name}.>", 1, lambda delivery: got.append(int(delivery.data)), window=16)
    await reader.start()
    count = 0
    for _ in range(4):
        for hole in (False, True):
            before = len(got)
            for _ in range(20):
                await writer.append(f"{name}.a", b"%d" % count)
                count += 1
            if not hole:
                await until(lambda before=before: len(got) >= before + 10)
            proxy.hole = hole
        proxy.cut()
        proxy.hole = False
    await until(lambda: len(got) >= count)
    assert got == list(range(count))
    assert reader.position == count
    await reader.close()


async def test_nothing_is_lost_nor_doubled_over_server_restarts(make_bus: MakeBus, own_server: Server, name: str):
    bus = await make_bus(own_server.url)
    await bus.ensure_stream(stream(name))
    got: list[int] = []
    reader = bus.reader(name, f"{name}.>", 1, lambda delivery: got.append(int(delivery.data)))
    await reader.start()
    count = 0
    for _ in range(3):
        for _ in range(20):
            await bus.append(f"{name}.a", b"%d" % count)
            count += 1
        own_server.kill()
        await until(lambda: not bus.connected)
        own_server.start()
        await until(lambda: bus.connected)
    await until(lambda: len(got) >= count)
    assert got == list(range(count))
    await until(lambda: reader.caught_up)
    await reader.close()


async def test_it_waits_for_a_stream_that_is_not_there_yet(bus: Bus, name: str):
    got: list[int] = []
    reader = bus.reader(name, f"{name}.>", 1, lambda delivery: got.append(delivery.sequence))
    starting = asyncio.ensure_future(reader.start())
    await asyncio.sleep(0)
    await bus.ensure_stream(stream(name))
    await bus.append(f"{name}.a", b"")
    await asyncio.wait_for(starting, 10)
    await until(lambda: got == [1])
    await reader.close()


async def test_a_stream_that_lost_its_end_is_read_on_and_said_loudly(bus: Bus, name: str, caplog: pytest.LogCaptureFixture):
    await bus.ensure_stream(stream(name))
    await bus.append(f"{name}.a", b"1")
    got: list[int] = []
    reader = bus.reader(name, f"{name}.>", 100, lambda delivery: got.append(delivery.sequence))
    await reader.start()
    assert reader.position == 1
    assert "99" in caplog.text
    await bus.append(f"{name}.a", b"2")
    await until(lambda: got == [2])
    await reader.close()


async def test_no_consumers_are_left_behind(bus: Bus, name: str):
    await bus.ensure_stream(stream(name))
    reader = bus.reader(name, f"{name}.>", 1, lambda delivery: None)
    await reader.start()
    await reader.close()
    async with asyncio.timeout(10):
        while b'"total":0' not in await bus.request(f"$JS.API.CONSUMER.NAMES.{name}", b"", 5):
            pass
