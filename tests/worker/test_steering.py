"""What operators have a worker do: pause, go on, drain."""

from __future__ import annotations

import asyncio

import pytest

from mesh_sdk import Context, Mesh
from mesh_sdk.protocol import records
from mesh_sdk.protocol.codec import decode_worker_beat
from mesh_sdk.protocol.records import Accepted, Draining, Finished, Left, Register, Registered, Returned, Steered
from mesh_sdk.worker.demand import MESSAGES_ASKED_MAX, PAUSED_LOOKS, Demand
from mesh_sdk.worker.worker import Worker
from tests.worker.conftest import running
from tests.worker.leader import Leader

PAUSE, RESUME, DRAIN = (Steered(what) for what in (records.PAUSE, records.RESUME, records.DRAIN))


def _clerk(mesh: Mesh, go_on: asyncio.Event) -> Worker:
    @mesh.task()
    async def work(ctx: Context) -> None: ...

    @mesh.task()
    async def wait(ctx: Context) -> None:
        await go_on.wait()

    return mesh.worker("clerk", slots=4, workflows=[work, wait], id="w-1")


async def _paused(leader: Leader, paused: bool) -> None:
    """Return when the worker's beats say so."""
    said = asyncio.Event()

    def hear(_subject: str, _reply: str, data: bytes) -> None:
        if decode_worker_beat(data).paused is paused:
            said.set()

    beats = await leader.bus.subscribe(leader.subjects.worker_beat("w-1"), hear)
    async with asyncio.timeout(10):
        await said.wait()
    await beats.close()


async def test_a_paused_worker_finishes_what_it_has_and_begins_its_own(leader: Leader, mesh: Mesh):
    go_on = asyncio.Event()
    worker = _clerk(mesh, go_on)
    async with running(worker):
        order = leader.assign("wait")
        await leader.share("w-1", order)
        await leader.report(Accepted)
        await leader.send("w-1", PAUSE, PAUSE)
        await _paused(leader, True)
        assert worker._runtime is not None
        assert worker._runtime.readiness() == (False, "paused")
        own = leader.assign("work")
        await leader.send("w-1", own)
        assert isinstance(await leader.last_of(own.token), Finished)
        lying = leader.assign("work")
        await leader.share("w-1", lying)  # others of its pool, or other pools, may run it
        returned = await leader.last_of(lying.token)
        assert isinstance(returned, Returned)
        assert returned.reason == records.RETURNED_PAUSED
        go_on.set()
        assert isinstance(await leader.last_of(order.token), Finished)
        await leader.send("w-1", RESUME)
        await _paused(leader, False)
        assert worker._runtime.readiness() == (True, "ready")
        shared = leader.assign("work")
        await leader.share("w-1", shared)
        assert isinstance(await leader.last_of(shared.token), Finished)


async def test_a_worker_that_was_paused_and_given_up_comes_back_paused(leader: Leader, mesh: Mesh):
    worker = _clerk(mesh, asyncio.Event())
    async with running(worker):
        first = leader.workers["w-1"]
        assert not first.record.paused
        await leader.send("w-1", PAUSE)
        await _paused(leader, True)
        leader.notify(first.record.client, Registered("w-1", first.incarnation, "unknown"))
        await leader.report(Register, lambda record: record.paused)
        await _paused(leader, True)
        await leader.send("w-1", RESUME)
        shared = leader.assign("work")
        await leader.share("w-1", shared)
        assert isinstance(await leader.last_of(shared.token), Finished)


def test_a_paused_worker_stops_asking_after_a_while():
    demand = Demand()
    demand.hand_back(PAUSED_LOOKS)
    asked = [demand.returnable]
    for _ in range(PAUSED_LOOKS + 2):
        demand.look()
        asked.append(demand.returnable)
    assert asked == [MESSAGES_ASKED_MAX] * (PAUSED_LOOKS + 1) + [0, 0]


def test_a_draining_worker_asks_to_its_end():
    demand = Demand()
    demand.hand_back()
    for _ in range(1_000):
        demand.came(1)
        demand.look()
        assert demand.returnable == MESSAGES_ASKED_MAX


@pytest.mark.parametrize("paused", [False, True])
async def test_a_worker_that_is_told_to_drain_ends(leader: Leader, mesh: Mesh, paused: bool):
    """As after a first signal, however often it is told: what runs is finished."""
    go_on = asyncio.Event()
    worker = _clerk(mesh, go_on)
    serving = asyncio.ensure_future(worker.serve(stop=asyncio.Event(), grace="20s"))
    await leader.report(Register)
    order = leader.assign("wait")
    await leader.share("w-1", order)
    await leader.report(Accepted)
    if paused:
        await leader.send("w-1", PAUSE)
    await leader.send("w-1", DRAIN)
    await leader.report(Draining)
    await leader.send("w-1", DRAIN, PAUSE, RESUME)
    late = leader.assign("work")
    await leader.send("w-1", late)
    assert (await leader.last_of(late.token)).reason == records.RETURNED_DRAINING
    assert not serving.done()
    go_on.set()
    async with asyncio.timeout(10):
        await serving
    assert isinstance(await leader.last_of(order.token), Finished)
    await leader.report(Left)
