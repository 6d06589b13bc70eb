"""Every stream and bucket has a limit, and what happens at it: the sender is told and keeps what it has; nothing is lost in silence."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from mesh.store.topology import Limits, Topology
from mesh_sdk import Mesh, RunRef, Unavailable
from mesh_sdk.protocol.subjects import Subjects
from mesh_sdk.transport.bus import Bus, StreamState
from mesh_sdk.transport.connection import connect
from mesh_sdk.transport.errors import StreamFull
from tests.faults.fleet import Process
from tests.faults.journal import NAMES
from tests.longlife.asking import ask, line_of, until
from tests.longlife.house import House

WITHIN_S = 20.0
TEXT = "x" * 2_000

AT_THE_LIMIT = {
    "EVENTS": "the publisher is refused",
    "TRIGGERS": "the client is refused once it has waited",
    "REPORTS": "the worker keeps its reports and takes no more work",
    "JOURNAL": "the leader decides no more until there is room",
    "DEAD": "the oldest letters go",
    "LANES": "the leader keeps assignments until there is room",
    "OBJ snapshots": "the older snapshot goes first; else the journal stays whole",
    "KV workers": "rows expire by themselves; a worker that comes waits for room",
    "KV slots": "rows of workers that are gone expire after a day, or go at once; those of workers that come are missing, which is said",
    "KV workflows": "the worker is not told that it is registered until there is room",
    "KV leader": "one row",
}
"""What `docs/longlife.md` tells of each; the tests below, and those in `test_full_buckets.py`, show it."""


def test_everything_that_is_stored_has_a_limit():
    topology = Topology(Subjects())
    everything = [*topology.stored(), *topology.remembered(), topology.lanes()]
    assert len(everything) == len(AT_THE_LIMIT)
    for settings in everything:
        assert 0 < settings.max_bytes <= Limits().events, settings.name
        assert settings.discard_old == (settings.name == Subjects().dead_stream), f"{settings.name}: only dead letters go unasked"


async def full(bus: Bus, stream: str, part: float = 0.9) -> StreamState:
    """Wait until a stream is at its limit."""
    deadline = time.monotonic() + WITHIN_S
    while True:
        state = await bus.stream_state(stream)
        if state is not None and state.bytes > part * state.limit_bytes:
            return state
        assert time.monotonic() < deadline, f"{stream} is not full: {state}"
        await asyncio.sleep(0.05)


async def count_until_refused(send: Callable[[int], Awaitable[object]], refusal: type[Exception]) -> int:
    """Send until the server refuses; how often it did not."""
    for n in range(10_000):
        try:
            await send(n)
        except refusal:
            return n
    raise AssertionError("nothing was ever refused")


async def leader_of(house: House, limits: str, live_runs: int = 0) -> Process:
    """A leader with streams of these sizes, and the workflows known."""
    house.live_runs = live_runs
    leader = house.begin_scheduler(LONGLIFE_LIMITS=limits)
    await line_of(leader, "ready", WITHIN_S)
    return leader


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    with House(tmp_path) as running:
        yield running


async def test_events_that_find_no_room_are_refused(house: House) -> None:
    leader = await leader_of(house, "events=131072", live_runs=10)
    house.worker("w0").end()  # nobody works: the window fills, events are not read, the stream fills
    async with Mesh(url=house.server.url) as mesh:
        stored = await count_until_refused(lambda n: mesh.events.publish("longlife:x", {"n": n, "text": TEXT}), Unavailable)
        assert stored > 10
        with pytest.raises(Unavailable, match="holds all the events it may"):
            await mesh.events.publish("longlife:x", {"n": 0, "text": TEXT})
        house.worker("w1")
        await until(leader, "all that was stored has run", lambda told: told["finished"] == stored and not told["runs"], WITHIN_S)


async def test_starts_that_find_no_room_wait_and_are_refused_in_time(house: House) -> None:
    leader = await leader_of(house, "triggers=131072", live_runs=10)
    house.worker("w0").end()
    bus = await connect([house.server.url], name="test")
    try:
        async with Mesh(url=house.server.url) as mesh:
            refs: list[RunRef[object]] = []
            while (state := await bus.stream_state(NAMES.triggers_stream)) is not None and state.bytes < 0.97 * state.limit_bytes:
                refs.append(mesh.start_nowait("one", {"n": len(refs), "text": TEXT}))
                await asyncio.sleep(0.001)
            with pytest.raises(StreamFull):
                await bus.append(NAMES.trigger(1), b"x" * 60_000)
            late = [mesh.start_nowait("one", {"n": -1, "text": TEXT}) for _ in range(60)]
            with pytest.raises((Unavailable, TimeoutError)):
                await asyncio.wait_for(late[-1].accepted(), 2)
            house.worker("w1")
            results = await asyncio.gather(*[ref.result(timeout=WITHIN_S) for ref in (*refs, *late)])
            assert results == [*range(len(refs)), *[-1] * len(late)], "what waited for room has run too"
            told = await until(leader, "nothing is left", lambda told: not told["runs"], WITHIN_S)
            assert told["finished"] == len(refs) + len(late)
    finally:
        await bus.close()


async def test_a_worker_keeps_reports_that_find_no_room(house: House) -> None:
    leader = await leader_of(house, "reports=65536")
    house.worker("w1", slots=10)
    bus = await connect([house.server.url], name="test")
    try:
        async with Mesh(url=house.server.url) as mesh:
            assert await mesh.run("one", {"n": 0}) == 0
            refs = [await mesh.start("held", {"n": n, "ms": 500}) for n in range(10)]
            rubbish = await count_until_refused(lambda n: bus.append(NAMES.report, b"x" * 5_000), StreamFull)  # freed with the next round
            assert rubbish
            assert [await ref.result(timeout=WITHIN_S) for ref in refs] == list(range(10))
            assert (await ask(leader))["runs"] == 0
    finally:
        await bus.close()


async def test_a_leader_whose_journal_is_full_goes_on_when_there_is_room(house: House) -> None:
    """Snapshots are made in time where the journal is small; a burst fills it all the same: the leader says so, waits, and goes on."""
    leader = await leader_of(house, "journal=3000000")
    house.worker("w1", slots=10)
    bus = await connect([house.server.url], name="test")
    try:
        async with Mesh(url=house.server.url) as mesh:
            refs = [mesh.start_nowait("one", {"n": n, "text": TEXT}) for n in range(3_000)]
            assert [await ref.result(timeout=2 * WITHIN_S) for ref in refs] == list(range(3_000)), "6 MB and more went through 3 MB"
            state = await bus.stream_state(NAMES.journal_stream)
            assert state is not None
            assert state.first > 1
            assert "the journal has no room" in leader.output
    finally:
        await bus.close()


async def test_a_journal_that_is_full_when_nobody_leads_is_trimmed_first(house: House) -> None:
    leader = await leader_of(house, "journal=1000000", live_runs=10_000)
    house.worker("w0").end()
    bus = await connect([house.server.url], name="test")
    try:
        async with Mesh(url=house.server.url) as mesh:
            refs = [mesh.start_nowait("one", {"n": n, "text": TEXT}) for n in range(420)]
            await refs[-1].accepted()
            await until(leader, "all are live", lambda told: told["runs"] == 420, WITHIN_S)
            leader.kill()
            state = await bus.stream_state(NAMES.journal_stream)
            assert state is not None
            await shrink(bus, state.bytes + 100)
            successor = house.begin_scheduler(LONGLIFE_LIMITS=f"journal={state.bytes + 100}")
            await line_of(successor, "ready", WITHIN_S)
            assert "it is trimmed before anybody leads" in successor.output
            await shrink(bus, 4_000_000)
            house.worker("w1")
            assert [await ref.result(timeout=WITHIN_S) for ref in refs] == list(range(420))
    finally:
        await bus.close()


async def shrink(bus: Bus, limit: int) -> None:
    """Give the journal another limit."""
    settings = next(s for s in Topology(Subjects()).stored() if s.name == NAMES.journal_stream)
    await bus.ensure_stream(msgspec.structs.replace(settings, max_bytes=limit))


async def test_lanes_that_are_full_hold_assignments_back(house: House) -> None:
    leader = await leader_of(house, "lanes=4194304")
    house.worker("w1", slots=220)
    async with Mesh(url=house.server.url) as mesh:
        refs = [mesh.start_nowait("one", {"n": n, "text": 15 * TEXT}) for n in range(220)]
        assert [await ref.result(timeout=2 * WITHIN_S) for ref in refs] == list(range(220)), "6 MB at once, for lanes of 4 MB"
        assert (await ask(leader))["runs"] == 0
