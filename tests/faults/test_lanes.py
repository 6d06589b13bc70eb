"""The lanes' stream is deleted, emptied or full while everything else goes on: work goes on too, and nobody writes behind a fence."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable
from contextlib import suppress

import msgspec
import pytest

from mesh.store.topology import Topology
from mesh_sdk import Mesh
from mesh_sdk.protocol import codec
from mesh_sdk.protocol.codec import encode
from mesh_sdk.protocol.definitions import StepDefinition, WorkflowDefinition
from mesh_sdk.protocol.records import VERSION, Assign, Left, Register, ReportFrame
from mesh_sdk.transport.connection import Link
from mesh_sdk.transport.errors import StreamFull
from tests.faults import journal
from tests.faults.fleet import LEADER, SCHEDULER, Fleet, Process, await_that

NAMES = journal.NAMES
WITHIN_S = 20.0
REMADE = "the lanes were lost and made again"


async def delete(bus: Link, stream: str) -> None:
    await bus.request(f"$JS.API.STREAM.DELETE.{stream}", b"", WITHIN_S)


async def empty(bus: Link, stream: str) -> None:
    await bus.purge(stream)


async def said(process: Process, text: str) -> None:
    await asyncio.to_thread(await_that, f"{text!r}", lambda: text in process.output, WITHIN_S)


async def fenced(bus: Link) -> None:
    """A leader is ready before it has its lanes."""
    async with asyncio.timeout(WITHIN_S):
        while (state := await bus.stream_state(NAMES.lanes_stream)) is None or not state.messages:
            await asyncio.sleep(0.01)


async def fill(bus: Link) -> None:
    with suppress(StreamFull):
        while True:
            await bus.append(NAMES.worker_lane("nobody", "nowhere"), b"x" * 10)


@pytest.mark.parametrize("lose", [delete, empty])
async def test_lost_lanes_are_noticed_with_nothing_to_write(fleet: Fleet, bus: Link, lose: Callable[[Link, str], Awaitable[None]]) -> None:
    """No connection breaks, no worker is there to write to: without its lane none could ever register."""
    scheduler = fleet.scheduler()
    await fenced(bus)
    await lose(bus, NAMES.lanes_stream)
    await asyncio.to_thread(fleet.worker, "w-0")
    await said(scheduler, REMADE)
    async with Mesh(url=fleet.server.url) as mesh:
        async with asyncio.timeout(WITHIN_S):
            assert await mesh.run("once", {"n": 1}) == {"n": 1}


async def test_a_pool_gets_the_consumer_back_that_somebody_has_deleted(fleet: Fleet, bus: Link) -> None:
    scheduler = fleet.scheduler()
    fleet.worker("w-0")
    async with Mesh(url=fleet.server.url) as mesh:
        assert await mesh.run("once", {"n": 1}) == {"n": 1}
        (consumer,) = await bus.consumers(NAMES.lanes_stream)
        await bus.delete_consumer(NAMES.lanes_stream, consumer)
        async with asyncio.timeout(WITHIN_S):
            assert await mesh.run("once", {"n": 2}) == {"n": 2}
        await said(scheduler, REMADE)
    journal.check_once(await journal.records(bus))
    journal.check_executions(fleet.executions())


async def test_a_successor_goes_on_where_the_lanes_are_full(fleet: Fleet, bus: Link) -> None:
    leader = fleet.scheduler()
    fleet.worker("w-0")
    async with Mesh(url=fleet.server.url) as mesh:
        assert await mesh.run("once", {"n": 1}) == {"n": 1}
        await bus.ensure_stream(msgspec.structs.replace(Topology(NAMES).lanes(), max_bytes=4_000))
        await fill(bus)
        leader.kill()
        successor = await asyncio.to_thread(fleet.scheduler)
        async with asyncio.timeout(WITHIN_S):
            assert await mesh.run("once", {"n": 2}) == {"n": 2}
        await said(successor, REMADE)
    journal.check_once(await journal.records(bus))


async def test_a_leader_that_was_paused_writes_nothing_into_lanes_that_were_made_anew(fleet: Fleet, bus: Link) -> None:
    """It holds the first fence of the old lanes, and its successor the first of the new ones."""
    paused = fleet.ready(fleet.start(LEADER))
    fleet.worker("w-0")
    successor = fleet.scheduler()
    async with Mesh(url=fleet.server.url) as mesh:
        paused.tell("stop start journal")
        await asyncio.to_thread(paused.line, "armed", WITHIN_S)
        ref = await mesh.start("once", {"n": 1})  # decided and journaled; its assignment is not written
        await asyncio.to_thread(paused.line, "stopped at journal", WITHIN_S)
        async with asyncio.timeout(WITHIN_S):
            assert await ref.result() == {"n": 1}
        await delete(bus, NAMES.lanes_stream)
        await said(successor, REMADE)
        before = await orders(bus)
        paused.send(signal.SIGCONT)
        await said(paused, " is over: another scheduler")
        assert await orders(bus) == before
        async with asyncio.timeout(WITHIN_S):
            assert await mesh.run("once", {"n": 2}) == {"n": 2}
    journal.check_once(await journal.records(bus))
    journal.check_executions(fleet.executions())


async def orders(bus: Link) -> list[int]:
    """Sequences of the lane messages."""
    return [stored.sequence for stored in await bus.read(NAMES.lanes_stream, NAMES.all_lanes) if stored.subject != NAMES.lane_fence]


async def test_a_successor_that_is_stopped_before_it_reads_its_inputs_hands_over(fleet: Fleet, bus: Link) -> None:
    leader = fleet.scheduler()
    successor = fleet.scheduler()
    resigned: list[str] = []
    heard = asyncio.Event()

    def hear(subject: str, reply: str, data: bytes) -> None:
        beat = codec.decode_leader_beat(data)
        if beat.resigned:
            resigned.append(beat.holder)
            heard.set()

    subscription = await bus.subscribe(NAMES.leader_beat, hear)
    await delete(bus, NAMES.events_stream)  # the last of its inputs to be opened
    leader.kill()
    own = successor.line("ready").split()[1]
    await said(successor, f"scheduler {own} leads in term ")
    assert await asyncio.to_thread(successor.end) == 0
    async with asyncio.timeout(WITHIN_S):
        await heard.wait()
    await subscription.close()
    assert resigned == [own]
    assert "has broken" not in successor.output


RUNS = 3


async def report(bus: Link, worker: str, record: Register | Left) -> None:
    """As the worker of this name says it, which is its incarnation too."""
    await bus.append(NAMES.report, encode(ReportFrame(VERSION, worker, worker, [record])))


async def given_out(bus: Link) -> list[str]:
    """Tokens of the attempts that lie in shared lanes, in order."""
    found = await bus.read(NAMES.lanes_stream, NAMES.shared_lane("*"))
    return [order.token for message in found for order in codec.lane_frames.decode(message.data)[0].records if type(order) is Assign]


@pytest.mark.parametrize("takeover", [False, True], ids=["", "takeover"])
async def test_what_the_last_of_a_pool_left_in_its_lane_is_not_delivered_to_the_next(fleet: Fleet, bus: Link, takeover: bool) -> None:
    """It was handed back, and is given out anew: whoever came before the consumer was deleted would run it twice, both at once."""
    leader = fleet.scheduler()
    once = [WorkflowDefinition("once", [StepDefinition("once")])]
    told = {worker: asyncio.Event() for worker in ("last", "next")}
    for worker, event in told.items():
        await bus.subscribe(NAMES.done(worker), lambda subject, reply, data, event=event: event.set())
    await report(bus, "last", Register("last", 10, once, {}, "last"))
    async with Mesh(url=fleet.server.url) as mesh, asyncio.timeout(WITHIN_S):
        await told["last"].wait()
        for n in range(RUNS):
            await mesh.start("once", {"n": n})
        while len(before := await given_out(bus)) < RUNS:
            await asyncio.sleep(0.01)
        if takeover:
            leader.kill()
            fleet.start(SCHEDULER)
        await asyncio.gather(report(bus, "last", Left()), report(bus, "next", Register("next", 10, once, {}, "next")))
        await told["next"].wait()
        while len(after := await given_out(bus)) < RUNS:
            await asyncio.sleep(0.01)
    assert not set(before) & set(after)
