"""Stopping in order: nothing new, the unstarted goes back, what runs is finished, then goodbye."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from mesh_sdk import Context, Mesh
from mesh_sdk.protocol import records
from mesh_sdk.protocol.records import Accepted, Draining, Finished, Left, Returned
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
