"""What happens when a bucket is full, or the dead letters are: somebody is told, nothing acknowledged is lost, all else goes on."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from mesh_sdk import Mesh, UnknownWorkflow
from mesh_sdk.transport.bus import Bus
from mesh_sdk.transport.connection import connect
from mesh_sdk.transport.errors import StreamFull
from tests.faults.journal import NAMES
from tests.longlife.asking import line_of, until
from tests.longlife.house import WORKER, House
from tests.longlife.test_limits import WITHIN_S, leader_of

SMALL = "buckets=65536"
JUNK = "junk"


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    with House(tmp_path) as running:
        yield running


@pytest.fixture
async def bus(house: House) -> AsyncIterator[Bus]:
    link = await connect([house.server.url], name="test")
    yield link
    await link.close()


async def fill(bus: Bus, bucket: str) -> int:
    """Put rows into the bucket until not even a small one finds room; how many."""
    rows = 0
    for size in (2_000, 200, 20, 0):
        while True:
            try:
                await bus.bucket(bucket).put(f"{JUNK}-{rows}", b"x" * size)
            except StreamFull:
                break
            rows += 1
            assert rows < 2_000, "the bucket is never full"
    return rows


async def empty(bus: Bus, bucket: str) -> None:
    """Take those rows away."""
    for key in await bus.bucket(bucket).entries():
        if key.startswith(JUNK):
            await bus.purge(f"KV_{bucket}", subject=f"$KV.{bucket}.{key}")


async def says(log: Path, text: str) -> None:
    """Wait for words in a process's output."""
    deadline = time.monotonic() + WITHIN_S
    while text not in log.read_text(errors="replace"):
        assert time.monotonic() < deadline, f"{text!r} is not said:\n{log.read_text(errors='replace')[-3000:]}"
        await asyncio.sleep(0.02)


async def rows_of(bus: Bus, worker: str, there: bool) -> None:
    """Wait until the slots bucket has a row of the worker, or has none."""
    deadline = time.monotonic() + WITHIN_S
    while (await bus.bucket(NAMES.slots_bucket).get(worker) is not None) != there:
        assert time.monotonic() < deadline, f"the row of {worker} is {'not there' if there else 'still there'}"
        await asyncio.sleep(0.05)


async def letters(bus: Bus) -> list[str]:
    """What the dead letters hold, oldest first."""
    return [base64.b64decode(json.loads(stored.data)["data"]).decode() for stored in await bus.read(NAMES.dead_stream, NAMES.all_dead)]


async def lettered(bus: Bus, text: str) -> None:
    """Wait until a dead letter says this."""
    deadline = time.monotonic() + WITHIN_S
    while text not in await letters(bus):
        assert time.monotonic() < deadline, f"no dead letter {text!r}"
        await asyncio.sleep(0.05)


async def test_a_definition_that_finds_no_room_holds_up_nothing_else(house: House, bus: Bus) -> None:
    """Not the dead letters, not other workers, and not a successor, which stores all definitions first."""
    leader = await leader_of(house, SMALL)
    house.worker("w1")
    await fill(bus, NAMES.workflows_bucket)
    async with Mesh(url=house.server.url) as mesh:
        late = house.begin_worker("late", LONGLIFE_MORE="more-" + 150 * "x")
        await says(leader.log, "found no room: it can't be started by name")
        await bus.append(NAMES.report, b"no report")
        await lettered(bus, "no report")
        await asyncio.to_thread(house.worker, "w2")
        assert await mesh.run("one", {"n": 1}) == 1
        with pytest.raises(UnknownWorkflow):
            await mesh.run("more-" + 150 * "x", {"n": 2})

        held = await mesh.start("held", {"n": 3, "ms": 1_500})
        leader.kill()
        successor = house.begin_scheduler(LONGLIFE_LIMITS=SMALL)
        await line_of(successor, "ready", WITHIN_S)
        await bus.append(NAMES.report, b"no report either")
        await lettered(bus, "no report either")
        assert await held.result(timeout=WITHIN_S) == 3
        assert "ready" not in late.output, "it would be ready for runs that nobody can start"

        await empty(bus, NAMES.workflows_bucket)
        await line_of(late, "ready", 2 * WITHIN_S)
        assert await mesh.run("more-" + 150 * "x", {"n": 4}) == 4
    assert leader.output.count("found no room: it can't be started by name") == 1, "said once"


async def test_a_full_slots_bucket_is_said_and_stops_nothing(house: House, bus: Bus) -> None:
    leader = await leader_of(house, SMALL)
    house.worker("w1")
    await rows_of(bus, "w1", there=True)
    await fill(bus, NAMES.slots_bucket)
    late = house.worker("late")
    await says(leader.log, "the slots bucket is full")
    async with Mesh(url=house.server.url) as mesh:
        assert await mesh.run("soft", {"n": 1}) == 1
        assert {info.id for info in await mesh.workers.list()} == {"w1", "late"}, "what is told of them comes from the leader itself"
        await bus.append(NAMES.report, b"no report")
        await lettered(bus, "no report")
        await empty(bus, NAMES.slots_bucket)
        refs = [await mesh.start("one", {"n": n}) for n in range(20)]
        assert [await ref.result(timeout=WITHIN_S) for ref in refs] == list(range(20))
        await asyncio.to_thread(late.end)
        await asyncio.to_thread(house.worker, "late")
        await rows_of(bus, "late", there=True)


async def test_rows_of_workers_that_are_gone_end(house: House, bus: Bus) -> None:
    """By themselves after a while; in a bucket that is full they go at once."""
    leader = house.begin_scheduler(LONGLIFE_LIMITS=SMALL, LONGLIFE_GONE_TTL_S="1")
    await line_of(leader, "ready", WITHIN_S)
    first, second, third = (house.worker(id) for id in ("w1", "w2", "w3"))
    for id in ("w1", "w2", "w3"):
        await rows_of(bus, id, there=True)
    first.end()
    second.kill()
    await rows_of(bus, "w1", there=False)
    await rows_of(bus, "w2", there=False)
    await fill(bus, NAMES.slots_bucket)
    third.end()
    await rows_of(bus, "w3", there=False)
    await until(leader, "no worker is left", lambda told: not told["workers"], WITHIN_S)


async def test_a_worker_whose_presence_finds_no_room_waits_for_it(house: House, bus: Bus) -> None:
    leader = await leader_of(house, SMALL)
    w1 = house.worker("w1")
    await fill(bus, NAMES.workers_bucket)
    async with Mesh(url=house.server.url) as mesh:
        refs = [await mesh.start("one", {"n": n}) for n in range(20)]
        assert [await ref.result(timeout=WITHIN_S) for ref in refs] == list(range(20)), "its own row is there and stays"
        late = house.start((*WORKER[:-1], "debug"), MESH_WORKER_ID="late")
        await says(late.log, "maximum bytes exceeded")
        assert "ready" not in late.output
        await empty(bus, NAMES.workers_bucket)
        await line_of(late, "ready", WITHIN_S)
        w1.end()
        assert await mesh.run("one", {"n": 1}) == 1
        await until(leader, "one worker is left", lambda told: told["workers"] == 1, WITHIN_S)


async def test_of_dead_letters_the_oldest_go(house: House, bus: Bus) -> None:
    leader = await leader_of(house, "dead=65536")
    house.worker("w1")
    for n in range(150):
        await bus.append(NAMES.report, f"{n} ".encode() + b"x" * 1_000)
    await bus.append(NAMES.report, b"the last")
    await lettered(bus, "the last")
    state = await bus.stream_state(NAMES.dead_stream)
    assert state is not None
    assert state.first > 1
    assert state.bytes <= 65_536
    assert state.messages > 20
    numbers = [int(text.split()[0]) for text in (await letters(bus))[:-1]]
    assert numbers == list(range(numbers[0], 150)), "those that are left are the newest, all of them"
    assert leader.output.count("dead letter from") == 151, "the log has said each of them"
    async with Mesh(url=house.server.url) as mesh:
        assert await mesh.run("one", {"n": 1}) == 1
