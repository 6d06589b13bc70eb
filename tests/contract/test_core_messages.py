"""Core messages: subscriptions in force when told so, answers, nobody there."""

from __future__ import annotations

import asyncio

import pytest

from mesh_sdk.transport.bus import Bus
from mesh_sdk.transport.errors import NoResponders, TimedOut
from tests.contract.conftest import MakeBus, until
from tests.contract.proxy import Proxy
from tests.contract.servers import Server


async def test_a_subscription_is_in_force_when_it_returns(make_bus: MakeBus, server: Server, name: str):
    one, other = await make_bus(server.url), await make_bus(server.url)
    for n in range(20):
        heard: list[bytes] = []
        subscription = await one.subscribe(f"{name}.{n}", lambda subject, reply, data, heard=heard: heard.append(data))
        assert other.publish(f"{name}.{n}", b"x")
        await until(lambda heard=heard: heard == [b"x"])
        await subscription.close()


async def test_our_own_writes_never_overtake_a_subscription(bus: Bus, name: str):
    for n in range(50):
        heard = asyncio.Event()
        waiting = asyncio.ensure_future(bus.subscribe(f"{name}.{n}", lambda *_, heard=heard: heard.set()))
        await asyncio.sleep(0)
        bus.publish(f"{name}.{n}", b"x")
        await asyncio.wait_for(heard.wait(), 5)
        await (await waiting).close()


async def test_a_closed_subscription_is_silent(bus: Bus, name: str):
    heard: list[bytes] = []
    subscription = await bus.subscribe(f"{name}.a", lambda subject, reply, data: heard.append(data))
    after: list[bytes] = []
    await bus.subscribe(f"{name}.*", lambda subject, reply, data: after.append(data))
    await subscription.close()
    bus.publish(f"{name}.a", b"x")
    await until(lambda: after == [b"x"])
    assert heard == []


async def test_questions_are_answered(bus: Bus, name: str):
    def answer(subject: str, reply: str, data: bytes) -> None:
        bus.publish(reply, data.upper())

    await bus.subscribe(f"{name}.q", answer)
    assert await bus.request(f"{name}.q", b"hello", 5) == b"HELLO"
    answers = await asyncio.gather(*(bus.request(f"{name}.q", b"a%d" % n, 5) for n in range(100)))
    assert answers == [b"A%d" % n for n in range(100)]


async def test_nobody_there_is_told_at_once(bus: Bus, name: str):
    with pytest.raises(NoResponders, match=name):
        await bus.request(f"{name}.q", b"", 30)


async def test_no_answer_times_out(bus: Bus, name: str):
    await bus.subscribe(f"{name}.q", lambda *_: None)
    with pytest.raises(TimedOut, match=name):
        await bus.request(f"{name}.q", b"", 0.1)


async def test_a_faulty_callback_stops_nothing(bus: Bus, name: str, caplog: pytest.LogCaptureFixture):
    heard: list[bytes] = []

    def fail(subject: str, reply: str, data: bytes) -> None:
        raise RuntimeError("faulty")

    await bus.subscribe(f"{name}.a", fail)
    await bus.subscribe(f"{name}.*", lambda subject, reply, data: heard.append(data))
    bus.publish(f"{name}.a", b"1")
    bus.publish(f"{name}.a", b"2")
    await until(lambda: heard == [b"1", b"2"])
    assert "faulty" in caplog.text


async def test_subscriptions_are_back_before_the_listeners_hear_of_it(make_bus: MakeBus, proxy: Proxy, server: Server, name: str):
    bus, other = await make_bus(proxy.url), await make_bus(server.url)
    heard: list[bytes] = []
    await bus.subscribe(f"{name}.a", lambda subject, reply, data: heard.append(data))

    def back(up: bool) -> None:
        if up:
            other.publish(f"{name}.a", b"from elsewhere")
            bus.publish(f"{name}.a", b"our own")

    remove = bus.on_connection(back)
    proxy.cut()
    await until(lambda: len(heard) == 2)
    remove()
    assert sorted(heard) == [b"from elsewhere", b"our own"]


async def test_subscribing_while_disconnected_waits_for_the_connection(make_bus: MakeBus, proxy: Proxy, server: Server, name: str):
    bus, other = await make_bus(proxy.url), await make_bus(server.url)
    proxy.refuse = True
    proxy.cut()
    await until(lambda: not bus.connected)
    heard: list[bytes] = []
    waiting = asyncio.ensure_future(bus.subscribe(f"{name}.a", lambda subject, reply, data: heard.append(data)))
    await asyncio.sleep(0)
    assert not waiting.done()
    proxy.refuse = False
    await asyncio.wait_for(waiting, 10)
    other.publish(f"{name}.a", b"x")
    await until(lambda: heard == [b"x"])
