"""Streams as things: made and changed, looked at, read, purged."""

from __future__ import annotations

import asyncio

import pytest

from mesh_sdk.transport.bus import Bus
from mesh_sdk.transport.errors import StreamMissing
from tests.contract.conftest import MIB, stream


async def test_a_stream_is_made_and_brought_to_its_settings(bus: Bus, name: str):
    assert await bus.stream_state(name) is None
    made = await bus.ensure_stream(stream(name, max_bytes=MIB))
    await bus.append(f"{name}.a", b"x")
    changed = await bus.ensure_stream(stream(name, max_bytes=2 * MIB, ttl=True, max_age_s=60))
    assert changed.created == made.created
    assert (changed.limit_bytes, changed.messages) == (2 * MIB, 1)
    assert await bus.ensure_stream(stream(name, max_bytes=2 * MIB, ttl=True, max_age_s=60)) == changed


async def test_last_and_get(bus: Bus, name: str):
    await bus.ensure_stream(stream(name))
    await bus.append(f"{name}.a", b"1", message_id="m")
    await bus.append(f"{name}.b", b"2")
    last = await bus.last(name, f"{name}.a")
    assert last is not None
    assert (last.sequence, last.subject, last.data, last.headers) == (1, f"{name}.a", b"1", {"Nats-Msg-Id": "m"})
    assert await bus.get(name, 1) == last
    assert await bus.get(name, 3) is None
    assert await bus.last(name, f"{name}.c") is None
    with pytest.raises(StreamMissing, match="10059"):
        await bus.get("nowhere", 1)


@pytest.mark.parametrize("direct", [True, False])
async def test_read_everything_from_a_place(bus: Bus, name: str, direct: bool):
    await bus.ensure_stream(stream(name, direct=direct))
    count = 1200 if direct else 30
    await asyncio.gather(*(bus.append_soon(f"{name}.{'ab'[n % 2]}", b"%d" % n) for n in range(count)))
    assert [each.sequence for each in await bus.read(name, f"{name}.>")] == list(range(1, count + 1))
    evens = await bus.read(name, f"{name}.a", 4)
    assert [int(each.data) for each in evens] == list(range(4, count, 2))
    assert {each.subject for each in evens} == {f"{name}.a"}
    assert evens[0] == await bus.get(name, 5) or direct
    assert await bus.read(name, f"{name}.c") == []


async def test_purge(bus: Bus, name: str):
    await bus.ensure_stream(stream(name))
    for n in range(6):
        await bus.append(f"{name}.{'ab'[n % 2]}", b"x")
    assert await bus.purge(name, before=3) == 2
    assert await bus.purge(name, subject=f"{name}.a", before=5) == 1
    assert [each.sequence for each in await bus.read(name, f"{name}.>")] == [4, 5, 6]
    assert await bus.purge(name) == 3


@pytest.mark.parametrize("memory", [False, True])
async def test_a_purge_up_to_a_sequence_that_is_not_there_yet_goes_on_from_it(bus: Bus, name: str, memory: bool):
    await bus.ensure_stream(stream(name, memory=memory))
    for _ in range(3):
        await bus.append(f"{name}.a", b"x")
    await bus.purge(name, before=1_000)
    state = await bus.stream_state(name)
    assert state is not None
    assert (state.first, state.last, state.messages) == (1_000, 999, 0)
    assert await bus.append(f"{name}.a", b"x", expect=0) == 1_000
    await bus.purge(name, before=500)
    assert await bus.append(f"{name}.a", b"x", expect=1_000) == 1_001


async def test_consumers_are_made_and_deleted_twice_without_complaint(bus: Bus, name: str):
    await bus.ensure_stream(stream(name))
    for _ in range(2):
        await bus.ensure_consumer(name, "pool", f"{name}.a", ack_wait_s=1, memory=False)
    for _ in range(2):
        await bus.delete_consumer(name, "pool")
    with pytest.raises(StreamMissing):
        await bus.ensure_consumer("nowhere", "pool", "x", ack_wait_s=1, memory=False)
