"""Buckets and object stores: expiry seen by everybody, compare and set, blobs whole or not at all."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import pytest

from mesh_sdk.transport.bus import Bus, KeyValue
from mesh_sdk.transport.connection import Link
from mesh_sdk.transport.errors import Damaged, StreamFull, StreamMissing, TimedOut, TransportError, WrongSequence
from mesh_sdk.transport.kv import bucket_stream
from mesh_sdk.transport.objects import object_stream
from tests.contract.conftest import MIB, MakeBus, until
from tests.contract.proxy import Proxy
from tests.contract.servers import Server

Change = tuple[str, bytes | None, int]


async def bucket(bus: Bus, name: str) -> KeyValue:
    await bus.ensure_stream(bucket_stream(name, max_bytes=MIB, memory=True))
    return bus.bucket(name)


async def test_put_get_delete(bus: Bus, name: str):
    keys = await bucket(bus, name)
    assert await keys.get("a") is None
    assert await keys.put("a", b"1") == 1
    assert await keys.put("b.c", b"") == 2
    assert await keys.get("a") == (b"1", 1)
    assert await keys.entries() == {"a": (b"1", 1), "b.c": (b"", 2)}
    with pytest.raises(WrongSequence):
        await keys.delete("a", revision=7)
    await keys.delete("a", revision=1)
    assert await keys.get("a") is None
    assert await keys.entries() == {"b.c": (b"", 2)}


async def test_create_and_update_compare(bus: Bus, name: str):
    keys = await bucket(bus, name)
    revision = await keys.create("a", b"1")
    with pytest.raises(WrongSequence):
        await keys.create("a", b"2")
    with pytest.raises(WrongSequence):
        await keys.update("a", b"2", revision + 1)
    assert await keys.update("a", b"2", revision) == revision + 1
    await keys.delete("a")
    assert await keys.create("a", b"3") == revision + 3


async def test_expiry_is_seen_by_everybody(bus: Bus, name: str):
    keys = await bucket(bus, name)
    changes: list[Change] = []
    watch = await keys.watch(lambda *change: changes.append(change))
    revision = await keys.create("a", b"1", ttl_s=1)
    await until(lambda: changes == [("a", b"1", revision)])
    revision = await keys.update("a", b"2", revision, ttl_s=1)
    await until(lambda: len(changes) == 3)
    assert changes[1] == ("a", b"2", revision)
    assert changes[2][:2] == ("a", None)
    assert await keys.get("a") is None
    assert await keys.entries() == {}
    assert await keys.create("a", b"3", ttl_s=5) == revision + 2
    await watch.close()


async def test_a_watch_begins_with_what_is_there(bus: Bus, name: str):
    keys = await bucket(bus, name)
    for n in range(300):
        await keys.put(f"k{n}", b"%d" % n)
    await keys.delete("k0")
    seen: dict[str, bytes | None] = {}
    watch = await keys.watch(lambda key, value, revision: seen.update({key: value}))
    assert seen == {f"k{n}": b"%d" % n for n in range(1, 300)}
    await keys.delete("k1")
    await until(lambda: seen["k1"] is None)
    await watch.close()
    await keys.put("k2", b"unseen")
    assert seen["k2"] == b"2"


async def test_what_went_during_a_cut_is_told_after_it(make_bus: MakeBus, proxy: Proxy, server: Server, name: str):
    other, bus = await make_bus(server.url), await make_bus(proxy.url)
    keys = await bucket(other, name)
    await keys.put("a", b"1")
    await keys.put("b", b"1")
    seen: dict[str, bytes | None] = {}
    watch = await bus.bucket(name).watch(lambda key, value, revision: seen.update({key: value}))
    proxy.hole = True
    await keys.put("a", b"2")
    await keys.delete("b")
    await keys.put("c", b"1")
    proxy.cut()
    proxy.hole = False
    await until(lambda: seen == {"a": b"2", "b": None, "c": b"1"})
    await watch.close()


async def test_a_bucket_that_a_restart_has_lost_is_told_as_gone(make_bus: MakeBus, own_server: Server, name: str):
    bus = await make_bus(own_server.url)
    keys = await bucket(bus, name)
    await keys.put("a", b"1")
    await keys.put("b", b"1")
    seen: dict[str, bytes | None] = {}
    watch = await keys.watch(lambda key, value, revision: seen.update({key: value}))
    own_server.kill()
    await until(lambda: not bus.connected)
    own_server.start()
    await until(lambda: bus.connected)
    with pytest.raises(StreamMissing):
        await keys.put("b", b"2")
    await bucket(bus, name)
    await keys.put("b", b"2")
    await until(lambda: seen == {"a": None, "b": b"2"})
    await watch.close()


async def test_watching_a_bucket_that_is_not_there_ends(bus: Bus, name: str):
    with pytest.raises(TransportError, match=name):
        await bus.bucket(name).watch(lambda *change: None)


async def test_objects_are_stored_whole(bus: Bus, name: str):
    await bus.ensure_stream(object_stream(name, max_bytes=16 * MIB))
    objects = bus.objects(name)
    blob = os.urandom(2 * MIB + 17)
    assert await objects.get("snapshot/1 of 2") is None
    await objects.put("snapshot/1 of 2", blob)
    await objects.put("empty", b"")
    assert await objects.get("snapshot/1 of 2") == blob
    assert await objects.get("empty") == b""
    assert await objects.names() == ["empty", "snapshot/1 of 2"]
    await objects.put("snapshot/1 of 2", b"new")
    assert await objects.get("snapshot/1 of 2") == b"new"
    state = await bus.stream_state(f"OBJ_{name}")
    assert state is not None
    assert state.bytes < MIB
    await objects.delete("snapshot/1 of 2")
    await objects.delete("never there")
    assert await objects.names() == ["empty"]


async def test_an_object_without_room_leaves_the_old_one(bus: Bus, name: str):
    await bus.ensure_stream(object_stream(name, max_bytes=MIB))
    objects = bus.objects(name)
    await objects.put("a", b"x" * (MIB // 2))
    with pytest.raises(StreamFull):
        await objects.put("a", b"y" * MIB)
    assert await objects.get("a") == b"x" * (MIB // 2)
    await objects.put("b", b"z" * (MIB // 4))


async def test_an_object_is_whole_though_nobody_heard_that_it_was_stored(bus: Link, name: str, monkeypatch: pytest.MonkeyPatch):
    await bus.ensure_stream(object_stream(name, max_bytes=16 * MIB))
    store = bus.store

    async def unheard(subject: str, *what: Any) -> None:
        await store(subject, *what)
        if ".M." in subject:
            raise TimedOut(subject)

    monkeypatch.setattr(bus, "store", unheard)
    with pytest.raises(TimedOut):
        await bus.objects(name).put("a", b"x")
    monkeypatch.undo()
    assert await bus.objects(name).get("a") == b"x"


async def test_a_damaged_object_is_not_handed_out(bus: Bus, name: str):
    await bus.ensure_stream(object_stream(name, max_bytes=16 * MIB))
    objects = bus.objects(name)
    await objects.put("a", os.urandom(MIB))
    await bus.purge(f"OBJ_{name}", before=3)
    with pytest.raises(Damaged, match="'a'"):
        await objects.get("a")


async def test_objects_are_read_while_they_are_replaced(bus: Bus, name: str):
    await bus.ensure_stream(object_stream(name, max_bytes=16 * MIB))
    objects = bus.objects(name)
    blobs = [bytes([n]) * (MIB // 2) for n in range(5)]
    await objects.put("a", blobs[0])

    async def replace() -> None:
        for blob in blobs[1:]:
            await objects.put("a", blob)

    replacing = asyncio.ensure_future(replace())
    while not replacing.done():
        assert await objects.get("a") in blobs
    await replacing
    assert await objects.get("a") == blobs[-1]
