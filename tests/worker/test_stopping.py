"""Stopping in order: nothing new, the unstarted goes back, what runs is finished, then goodbye."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from mesh_sdk import Context, Mesh, StickyStrategy
from mesh_sdk.protocol import records
from mesh_sdk.protocol.records import DRAIN, Accepted, Assign, Done, Draining, Finished, Left, Origin, Returned, Spawn, Steered
from tests.worker.conftest import running
from tests.worker.leader import Leader

PROGRAM = """
import asyncio
from mesh_sdk import Context, Mesh

mesh = Mesh()

@mesh.task()
async def nap(seconds: float, ctx: Context) -> str:
    await asyncio.sleep(seconds)
    return "rested"

@mesh.task()
def work(seconds: float, ctx: Context) -> str:
    import time
    time.sleep(seconds)
    return "done"

worker = mesh.worker("clerk", slots=2, workflows=[nap, work], id="w-1")
if __name__ == "__main__":
    import logging
    logging.basicConfig(level=logging.INFO)
    worker.start()
    print("ended", flush=True)
"""


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "program.py"
    path.write_text(PROGRAM)
    return path


async def _start(program: Path, leader: Leader) -> asyncio.subprocess.Process:
    environment = {**os.environ, "MESH_URL": leader.url, "MESH_NAMESPACE": leader.subjects.namespace}
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(program), env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    await leader.report(records.Register, timeout=20)
    return process


async def test_sigterm_drains_and_exits_with_0(leader: Leader, program: Path):
    process = await _start(program, leader)
    running_ = [leader.assign("nap", 0.8), leader.assign("work", 0.8)]
    await leader.share("w-1", *running_)
    await leader.report(Accepted, count=2)
    waiting = leader.assign("nap", 0)
    await leader.send("w-1", waiting)
    await leader.bus.request(leader.subjects.control("w-1"), b"", 5)
    process.send_signal(signal.SIGTERM)
    output, errors = await asyncio.wait_for(process.communicate(), 20)
    assert process.returncode == 0, errors.decode()
    assert output == b"ended\n"
    returned = await leader.last_of(waiting.token)
    assert isinstance(returned, Returned)
    assert returned.reason == records.RETURNED_DRAINING
    for order in running_:
        assert isinstance(await leader.last_of(order.token), Finished)
    await leader.report(Left)
    kinds = [type(each.record) for each in leader.reports]
    assert kinds.index(Draining) < kinds.index(Left) == len(kinds) - 1
    assert "registered nap, work" in errors.decode()
    assert "2 slots" in errors.decode()


async def test_an_order_to_drain_ends_the_process_with_0(leader: Leader, program: Path):
    """And a first signal after it is a first signal: what runs is finished."""
    process = await _start(program, leader)
    order = leader.assign("nap", 0.8)
    await leader.share("w-1", order)
    await leader.report(Accepted)
    await leader.send("w-1", Steered(DRAIN))
    await leader.report(Draining)
    process.send_signal(signal.SIGTERM)
    output, errors = await asyncio.wait_for(process.communicate(), 20)
    assert process.returncode == 0, errors.decode()
    assert output == b"ended\n"
    assert "an operator has the worker drain" in errors.decode()
    assert isinstance(await leader.last_of(order.token), Finished)
    await leader.report(Left)


async def test_a_second_signal_tells_running_steps_to_stop(leader: Leader, program: Path):
    process = await _start(program, leader)
    order = leader.assign("nap", 60)
    await leader.share("w-1", order)
    await leader.report(Accepted)
    process.send_signal(signal.SIGTERM)
    await leader.report(Draining)
    process.send_signal(signal.SIGTERM)
    _, errors = await asyncio.wait_for(process.communicate(), 20)
    assert process.returncode == 0, errors.decode()
    assert (await leader.last_of(order.token)).reason == records.RETURNED_DRAINING


async def test_grace_ends_what_does_not(leader: Leader, mesh: Mesh):
    @mesh.task()
    async def endless(ctx: Context) -> None:
        await asyncio.Event().wait()

    order = leader.assign("endless")
    async with running(mesh.worker("clerk", slots=1, workflows=[endless], id="w-1"), grace="100ms") as end:
        await leader.share("w-1", order)
        await leader.report(Accepted)
        await end()
    assert (await leader.last_of(order.token)).reason == records.RETURNED_DRAINING
    await leader.report(Left)


async def test_stop_ends_serve_and_the_worker_can_serve_again(leader: Leader, mesh: Mesh):
    @mesh.task()
    async def work(ctx: Context) -> int:
        return 1

    worker = mesh.worker("clerk", workflows=[work], id="w-1")
    for _ in range(2):
        async with running(worker):
            order = leader.assign("work")
            await leader.share("w-1", order)
            assert isinstance(await leader.last_of(order.token), Finished)
            await worker.stop()


async def test_a_cancelled_serve_says_goodbye(leader: Leader, mesh: Mesh):
    @mesh.task()
    async def endless(ctx: Context) -> None:
        await asyncio.Event().wait()

    ready = asyncio.Event()
    serving = asyncio.ensure_future(mesh.worker("clerk", workflows=[endless], id="w-1").serve(on_ready=lambda _: ready.set()))
    await ready.wait()
    order = leader.assign("endless")
    await leader.share("w-1", order)
    await leader.report(Accepted)
    serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await serving
    assert (await leader.last_of(order.token)).reason == records.RETURNED_DRAINING
    await leader.report(Left)


def _of(parent: Assign) -> Origin:
    return Origin({}, parent.run)


async def test_a_draining_worker_begins_the_hard_children_of_what_runs_there(leader: Leader, mesh: Mesh):
    """They can run nowhere else, and their parent may wait for them. Others are for others."""
    spawn = asyncio.Event()

    @mesh.task(sticky=StickyStrategy.HARD)
    async def hard(ctx: Context) -> int:
        return 7

    @mesh.task(sticky=StickyStrategy.SOFT)
    async def soft(ctx: Context) -> None: ...

    @mesh.task()
    async def parent(ctx: Context) -> int:
        await spawn.wait()
        return int(await ctx.spawn_workflow("hard", None, options={"sticky": True}).result())

    async with running(mesh.worker("clerk", slots=1, workflows=[parent, hard, soft], id="w-1"), grace="20s") as end:
        order = leader.assign("parent")
        await leader.share("w-1", order)
        await leader.report(Accepted)
        ending = asyncio.ensure_future(end())
        await leader.report(Draining)
        spawn.set()
        child = leader.assign("hard", run=(await leader.report(Spawn)).child, origin=_of(order))
        others = [leader.assign("soft", origin=_of(order)), leader.assign("hard"), leader.assign("hard", origin=_of(child))]
        await leader.send("w-1", *others, child)
        for other in others:
            assert (await leader.last_of(other.token)).reason == records.RETURNED_DRAINING
        finished = await leader.last_of(child.token)
        assert isinstance(finished, Finished), finished
        leader.end("w-1", Done(child.run, records.SUCCEEDED, finished.output))
        last = await leader.last_of(order.token)
        assert isinstance(last, Finished), last
        assert bytes(last.output) == b"7"
        await asyncio.wait_for(ending, 10)


@pytest.mark.parametrize("grace", ["20s", "100ms"])
async def test_a_child_in_line_goes_back_when_its_parent_ends(leader: Leader, mesh: Mesh, grace: str):
    """The parent keeps the only slot until its own end, or that of the grace."""
    go_on = asyncio.Event()

    @mesh.task(sticky=StickyStrategy.HARD)
    async def hard(ctx: Context) -> None: ...

    @mesh.task()
    async def parent(ctx: Context) -> None:
        ctx.spawn_workflow("hard", None, options={"sticky": True})
        await go_on.wait()

    async with running(mesh.worker("clerk", slots=1, workflows=[parent, hard], id="w-1"), grace=grace) as end:
        order = leader.assign("parent")
        await leader.share("w-1", order)
        child = leader.assign("hard", run=(await leader.report(Spawn)).child, origin=_of(order))
        await leader.send("w-1", child)
        await leader.bus.request(leader.subjects.control("w-1"), b"", 5)
        ending = asyncio.ensure_future(end())
        await leader.report(Draining)
        if grace == "20s":
            assert not leader.of(child.token)
            go_on.set()
        assert (await leader.last_of(child.token)).reason == records.RETURNED_DRAINING
        await leader.last_of(order.token)
        await asyncio.wait_for(ending, 10)


async def test_what_lies_in_the_lane_of_a_draining_worker_is_handed_back(leader: Leader, mesh: Mesh):
    """It had no room for it; nobody else may be left in its pool, while workers of other pools could run it."""
    go_on = asyncio.Event()

    @mesh.task()
    async def long(ctx: Context) -> None:
        await go_on.wait()

    async with running(mesh.worker("clerk", slots=1, workflows=[long], id="w-1"), grace="20s") as end:
        order, *lying = (leader.assign("long") for _ in range(4))
        await leader.share("w-1", order)
        await leader.report(Accepted)
        for each in lying:
            await leader.share("w-1", each)
        ending = asyncio.ensure_future(end())
        for each in lying:
            assert (await leader.last_of(each.token)).reason == records.RETURNED_DRAINING
        go_on.set()
        assert isinstance(await leader.last_of(order.token), Finished)
        await asyncio.wait_for(ending, 10)
