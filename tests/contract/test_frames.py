"""Natural batching: one frame in flight, order, nothing lost, nothing doubled, limits."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from mesh_sdk.transport.bus import Bus
from mesh_sdk.transport.errors import Disconnected, Refused, TimedOut, TransportError
from mesh_sdk.transport.frames import FrameWriter
from tests.contract.conftest import MakeBus, stream, until
from tests.contract.proxy import Proxy
from tests.contract.servers import Server


def wrap(records: list[Any], resent: int) -> Any:
    return [resent, records]


async def stored(bus: Bus, name: str) -> tuple[list[Any], list[int], list[int]]:
    """All records in order, each frame's length and how often it was sent before."""
    frames = [msgspec.json.decode(found.data) for found in await bus.read(name, f"{name}.>")]
    everything = [record for _, records in frames for record in records]
    return everything, [len(records) for _, records in frames], [resent for resent, _ in frames]


async def test_what_is_put_at_once_travels_together(bus: Bus, name: str):
    await bus.ensure_stream(stream(name))
    held: list[Any] = []
    writer = FrameWriter(bus, f"{name}.a", wrap, name=name, on_stored=held.extend)
    first = [writer.put(n, hold=f"h{n}") for n in range(3)]
    assert first[0] is first[1] is first[2]
    assert await asyncio.shield(first[0]) == 1
    assert held == ["h0", "h1", "h2"]
    one = writer.put(3)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    later = [writer.put(n) for n in range(4, 10)]
    assert one is not later[0]
    assert [await one, await later[-1]] == [2, 3]
    assert await stored(bus, name) == (list(range(10)), [3, 1, 6], [0, 0, 0])
    assert (writer.frames, writer.waiting) == (3, 0)
    await writer.close()


async def test_frames_are_cut_at_records_and_bytes(bus: Bus, name: str):
    await bus.ensure_stream(stream(name))
    writer = FrameWriter(bus, f"{name}.a", wrap, name=name, records_max=4, bytes_max=1000)
    futures = [writer.put(n) for n in range(9)]
    hinted = [writer.put("x" * 600, size_hint=600) for _ in range(2)]
    unhinted = [writer.put("y" * 400) for _ in range(4)]
    large = writer.put("z" * 5000)
    await large
    assert all(future.done() for future in [*futures, *hinted, *unhinted])
    records, lengths, _ = await stored(bus, name)
    assert records == [*range(9), *["x" * 600] * 2, *["y" * 400] * 4, "z" * 5000]
    assert max(lengths) <= 4
    assert all(len(found.data) <= 1000 for found in (await bus.read(name, f"{name}.>"))[:-1])
    await writer.close()


async def test_what_can_not_be_stored_is_refused_alone(bus: Bus, name: str):
    await bus.ensure_stream(stream(name))
    writer = FrameWriter(bus, f"{name}.a", wrap, name=name, bytes_max=10_000)
    before = writer.put("before")
    await before
    large = writer.put("x" * (bus.max_payload + 1), size_hint=bus.max_payload)
    strange = writer.put(object(), size_hint=10_000)
    after = writer.put("after", size_hint=10_000)
    with pytest.raises(Refused, match="1048576"):
        await large
    with pytest.raises(TransportError, match="object"):
        await strange
    await after
    assert (await stored(bus, name))[0] == ["before", "after"]
    await writer.close()


async def test_a_bad_record_does_not_take_its_frame_along(bus: Bus, name: str):
    await bus.ensure_stream(stream(name))
    writer = FrameWriter(bus, f"{name}.a", wrap, name=name)
    for record in (1, 2, object(), 3, 4):
        writer.put(record)
    await writer.flush(10)
    await until(lambda: writer.waiting == 0)
    assert (await stored(bus, name))[0] == [1, 2, 3, 4]
    await writer.close()


async def test_nothing_is_lost_nor_doubled_over_holes_and_cuts(make_bus: MakeBus, proxy: Proxy, server: Server, name: str):
    reader, bus = await make_bus(server.url), await make_bus(proxy.url)
    await reader.ensure_stream(stream(name))
    sent_before: list[int] = []

    def note(records: list[Any], resent: int) -> Any:
        sent_before.append(resent)
        return wrap(records, resent)

    writer = FrameWriter(bus, f"{name}.a", note, name=name)
    count = 0
    for _ in range(5):
        for hole in (False, True):
            proxy.hole = hole
            for _ in range(20):
                writer.put(count)
                count += 1
                await asyncio.sleep(0)
        proxy.cut()
        await until(lambda: not bus.connected)
        proxy.hole = False
        await writer.flush(15)
    records, _, _ = await stored(reader, name)
    assert records == list(range(count))
    assert max(sent_before) > 0
    await writer.close()


async def test_nothing_is_lost_over_server_restarts(make_bus: MakeBus, own_server: Server, name: str):
    bus = await make_bus(own_server.url)
    await bus.ensure_stream(stream(name))
    writer = FrameWriter(bus, f"{name}.a", wrap, name=name)
    for round_ in range(3):
        for n in range(200):
            writer.put(round_ * 200 + n)
            await asyncio.sleep(0)
        own_server.kill()
        await until(lambda: not bus.connected)
        own_server.start()
    await writer.flush(15)
    assert (await stored(bus, name))[0] == list(range(600))
    await writer.close()


async def test_a_full_stream_holds_records_back_and_says_so(bus: Bus, name: str):
    await bus.ensure_stream(stream(name, max_bytes=1000))
    writer = FrameWriter(bus, f"{name}.a", wrap, name=name, records_max=1, buffer_max=50)
    seen: list[Any] = []
    count = 0
    while not writer.full:
        writer.put("x" * 50 + str(count))
        count += 1
        await asyncio.sleep(0)
    room = asyncio.ensure_future(writer.wait_room())
    while writer.waiting:
        frames = await bus.read(name, f"{name}.>")
        seen += [record for frame in frames for record in msgspec.json.decode(frame.data)[1]]
        if frames:
            await bus.purge(name, before=frames[-1].sequence + 1)
    await asyncio.wait_for(room, 5)
    seen += (await stored(bus, name))[0]
    assert [int(record[50:]) for record in seen] == list(range(count))
    await writer.close()


async def test_flush_has_an_end_and_close_tells(make_bus: MakeBus, own_server: Server, name: str):
    bus = await make_bus(own_server.url)
    await bus.ensure_stream(stream(name))
    own_server.freeze()
    writer = FrameWriter(bus, f"{name}.a", wrap, name=name)
    future = writer.put(1)
    with pytest.raises(TimedOut, match="1 records"):
        await writer.flush(0.1)
    await writer.close()
    with pytest.raises(Disconnected, match="closed"):
        await future
    own_server.thaw()
