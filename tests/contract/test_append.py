"""Storing messages: expectations, ids, batches, limits, and what a lost connection does to them."""

from __future__ import annotations

import asyncio

import pytest

from mesh_sdk.transport.bus import Bus
from mesh_sdk.transport.errors import Disconnected, Refused, StreamFull, StreamMissing, TimedOut, WrongSequence
from tests.contract.conftest import MIB, MakeBus, lanes, stream, until
from tests.contract.proxy import Proxy
from tests.contract.servers import Server


async def test_append_returns_the_sequence(bus: Bus, name: str):
    await bus.ensure_stream(stream(name))
    assert [await bus.append(f"{name}.a", b"x") for _ in range(3)] == [1, 2, 3]
    state = await bus.stream_state(name)
    assert state is not None
    assert (state.first, state.last, state.messages, state.limit_bytes) == (1, 3, 3, 16 * MIB)


async def test_an_expectation_is_about_the_subject(bus: Bus, name: str):
    await bus.ensure_stream(stream(name))
    assert await bus.append(f"{name}.a", b"1", expect=0) == 1
    assert await bus.append(f"{name}.b", b"2", expect=0) == 2
    assert await bus.append(f"{name}.a", b"3", expect=1) == 3
    with pytest.raises(WrongSequence, match="3"):
        await bus.append(f"{name}.a", b"4", expect=1)


async def test_a_message_id_is_stored_once(bus: Bus, name: str):
    await bus.ensure_stream(stream(name))
    assert await bus.append(f"{name}.a", b"1", message_id="m-1") == 1
    assert await bus.append(f"{name}.a", b"1", message_id="m-1") == 1
    assert await bus.append(f"{name}.a", b"2", message_id="m-2") == 2


async def test_soon_is_on_its_way_at_once_and_in_order(bus: Bus, name: str):
    await bus.ensure_stream(stream(name))
    futures = [bus.append_soon(f"{name}.a", b"%d" % n) for n in range(50)]
    assert await asyncio.gather(*futures) == list(range(1, 51))
    assert [found.data for found in await bus.read(name, f"{name}.>")] == [b"%d" % n for n in range(50)]


async def test_a_batch_is_stored_whole_and_in_order(bus: Bus, name: str):
    await bus.ensure_stream(lanes(name))
    fence = await bus.append(f"{name}.lane.fence.0", b"", expect=0)
    messages = [(f"{name}.lane.shared.p", b"%d" % n) for n in range(20)]
    assert await bus.append_batch(messages, expect_subject=f"{name}.lane.fence.0", expect=fence) == fence + 20
    assert [found.data for found in await bus.read(name, f"{name}.lane.shared.*")] == [b"%d" % n for n in range(20)]


@pytest.mark.parametrize("size", [1, 2, 20])
async def test_a_batch_behind_the_fence_is_refused_whole(bus: Bus, name: str, size: int):
    await bus.ensure_stream(lanes(name))
    old = await bus.append(f"{name}.lane.fence.0", b"", expect=0)
    new = await bus.append(f"{name}.lane.fence.0", b"", expect=old)
    messages = [(f"{name}.lane.worker.w", b"x")] * size
    with pytest.raises(WrongSequence):
        await bus.append_batch(messages, expect_subject=f"{name}.lane.fence.0", expect=old)
    state = await bus.stream_state(name)
    assert state is not None
    assert state.last == new


async def test_batches_have_a_limit(bus: Bus):
    for size in (0, 1001):
        with pytest.raises(Refused, match=f"{size} messages"):
            await bus.append_batch([("x", b"")] * size, expect_subject="x", expect=0)


async def test_a_full_stream_refuses(bus: Bus, name: str):
    await bus.ensure_stream(stream(name, max_bytes=2000))
    answers = await asyncio.gather(*(bus.append(f"{name}.a", b"x" * 100) for _ in range(50)), return_exceptions=True)
    assert answers[0] == 1
    assert isinstance(answers[-1], StreamFull)
    assert "maximum bytes" in str(answers[-1])
    await bus.purge(name)
    await bus.append(f"{name}.a", b"x" * 100)


async def test_no_stream_and_too_large_are_told_apart(bus: Bus, name: str):
    with pytest.raises(StreamMissing, match=name):
        await bus.append(f"{name}.nowhere", b"x")
    with pytest.raises(Refused, match="1048576"):
        await bus.append(f"{name}.a", b"x" * (bus.max_payload + 1))
    with pytest.raises(Refused, match="1048576"):
        bus.publish(f"{name}.a", b"x" * (bus.max_payload + 1))
    assert bus.connected


async def test_a_forged_subject_or_id_is_no_protocol_line(bus: Bus, name: str):
    await bus.ensure_stream(stream(name))
    with pytest.raises(ValueError, match="no subject"):
        await bus.append(f"{name}.a x", b"x")
    with pytest.raises(ValueError, match="no subject"):
        bus.publish(f"{name}.a\r\nPUB", b"x")
    with pytest.raises(ValueError, match="control"):
        bus.append_soon(f"{name}.a", b"x", message_id="a\r\nNats-TTL: 1s")


async def test_what_is_in_flight_when_the_connection_is_cut_ends_with_disconnected(make_bus: MakeBus, proxy: Proxy, name: str):
    bus = await make_bus(proxy.url)
    await bus.ensure_stream(stream(name))
    told: list[bool] = []
    bus.on_connection(told.append)
    proxy.hole = True
    future = bus.append_soon(f"{name}.a", b"x", timeout=30)
    question = asyncio.ensure_future(bus.request("nobody", b"", 30))
    await asyncio.sleep(0)
    proxy.refuse = True
    proxy.cut()
    with pytest.raises(Disconnected):
        await future
    with pytest.raises(Disconnected):
        await question
    assert told == [False]
    assert not bus.connected
    assert bus.publish(f"{name}.a", b"x") is False
    with pytest.raises(Disconnected, match="nothing was sent"):
        await bus.append(f"{name}.a", b"x")
    proxy.hole = proxy.refuse = False
    await until(lambda: told == [False, True])
    assert await bus.append(f"{name}.a", b"x") >= 1


async def test_a_frozen_server_times_out(make_bus: MakeBus, own_server: Server, name: str):
    bus = await make_bus(own_server.url)
    await bus.ensure_stream(stream(name))
    own_server.freeze()
    loop = asyncio.get_running_loop()
    begin = loop.time()
    with pytest.raises(TimedOut, match=name):
        await bus.append(f"{name}.a", b"x", timeout=0.2)
    assert loop.time() - begin < 2
    own_server.thaw()


async def test_a_hole_is_noticed_by_pings(make_bus: MakeBus, proxy: Proxy, name: str):
    bus = await make_bus(proxy.url)
    told: list[bool] = []
    bus.on_connection(told.append)
    proxy.hole = True
    await until(lambda: told == [False])
    proxy.hole = False
    await until(lambda: told == [False, True])


async def test_closing_ends_what_waits(make_bus: MakeBus, own_server: Server, name: str):
    bus = await make_bus(own_server.url)
    await bus.ensure_stream(stream(name))
    own_server.freeze()
    future = bus.append_soon(f"{name}.a", b"x", timeout=30)
    await bus.close()
    with pytest.raises(Disconnected, match="closed"):
        await future
    own_server.thaw()
