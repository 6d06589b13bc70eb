"""One client for each loop, thread and process; the `_sync` twins; what happens at the end of a program."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mesh_sdk import Mesh, MeshError
from tests.contract.servers import Server
from tests.sdk.conftest import until
from tests.sdk.scheduler import Scheduler


class Background:
    """A scripted scheduler on a thread of its own, for tests that block theirs."""

    def __init__(self, url: str, namespace: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.scheduler = asyncio.run_coroutine_threadsafe(Scheduler(url, namespace).start(), self._loop).result(20)

    def close(self) -> None:
        asyncio.run_coroutine_threadsafe(self.scheduler.close(), self._loop).result(20)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@pytest.fixture
def background(server: Server, namespace: str) -> Iterator[Background]:
    running = Background(server.url, namespace)
    yield running
    running.close()


@pytest.fixture
def plain_mesh(server: Server, namespace: str, background: Background) -> Iterator[Mesh]:
    mesh = Mesh(url=server.url, namespace=namespace)
    yield mesh
    mesh.close_sync()


def test_sync_twins_need_no_loop(plain_mesh: Mesh, background: Background):
    mesh = plain_mesh
    assert mesh.run_sync("echo", 1) == 1
    ref = mesh.start_sync("echo", {"a": 2}, priority=3)
    assert ref.result_sync(timeout=5) == {"a": 2}
    assert ref.accepted_sync() == ref.run_id
    assert mesh.run_many_sync("echo", [1, 2, 3]) == [1, 2, 3]
    ref = mesh.start_nowait("held", 1)
    ref.cancel_sync("why")
    with pytest.raises(TimeoutError):
        ref.result_sync(timeout=0.05)
    keyed = mesh.start_sync("echo", 5, key="k")
    assert keyed.result_sync() == 5


async def test_sync_twins_on_a_running_loop_name_the_awaitable(mesh: Mesh):
    ref = await mesh.start("echo", 1)
    for twin, awaitable in (
        (lambda: mesh.run_sync("echo", 1), "await mesh.run("),
        (ref.result_sync, "await ref.result("),
        (lambda: mesh.events.publish_sync("a"), "await mesh.events.publish("),
        (lambda: mesh.runs.get_sync("a"), "await mesh.runs.get("),
        (mesh.close_sync, "await mesh.close("),
    ):
        with pytest.raises(MeshError) as refused:
            twin()
        assert awaitable in str(refused.value)


def test_loops_one_after_another_and_threads_side_by_side(plain_mesh: Mesh):
    mesh = plain_mesh

    async def ask(number: int) -> object:
        try:
            return await mesh.run("echo", number)
        finally:
            await mesh.clients.here().close()

    assert [asyncio.run(ask(number)) for number in range(3)] == [0, 1, 2]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda number: asyncio.run(ask(number)), range(8))) == list(range(8))
        assert list(pool.map(lambda number: mesh.run_sync("echo", number), range(8))) == list(range(8))


async def test_a_reference_works_on_another_loop(mesh: Mesh, scheduler: Scheduler):
    ref = await mesh.start("held", 4)

    def elsewhere() -> object:
        async def wait() -> object:
            return await ref.result(timeout=10)

        return asyncio.run(wait())

    waiting = asyncio.ensure_future(asyncio.to_thread(elsewhere))
    sync = asyncio.ensure_future(asyncio.to_thread(ref.result_sync, 10))
    await until(lambda: bool(scheduler.starts))
    scheduler.release()
    assert await waiting == 4
    assert await sync == 4


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_has_a_client_of_its_own(plain_mesh: Mesh):
    mesh = plain_mesh
    assert mesh.run_sync("echo", 1) == 1
    child = os.fork()
    if child == 0:
        try:
            os._exit(0 if mesh.run_sync("echo", 2) == 2 else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert mesh.run_sync("echo", 3) == 3


LEAVE_AT_ONCE = """
import asyncio, sys
from mesh_sdk import Mesh
mesh = Mesh(url=sys.argv[1], namespace=sys.argv[2])
async def main():
    for number in range(100):
        print(mesh.start_nowait("echo", number).run_id)
if sys.argv[3] == "loop":
    asyncio.run(main())
else:
    for number in range(100):
        print(mesh.start_nowait("echo", number).run_id)
"""


def _program(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "ignore", "-c", LEAVE_AT_ONCE, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=40, cwd=Path(__file__).parent)


@pytest.mark.parametrize("style", ["loop", "plain"])
def test_pending_starts_are_stored_when_the_program_ends(server: Server, namespace: str, background: Background, style: str):
    done = _program(server.url, namespace, style)
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    deadline = 200
    wanted = done.stdout.split()
    while {start.run for _, start in background.scheduler.starts} != set(wanted) and deadline:
        deadline -= 1
        threading.Event().wait(0.02)
    assert [start.run for _, start in background.scheduler.starts] == wanted


def test_what_was_not_stored_is_logged(own_server: Server):
    own_server.kill()
    done = _program(own_server.url, "nobody", "plain")
    assert done.returncode == 0
    assert done.stderr.count("start_nowait: run ") == 100
    assert done.stdout.split()[0] in done.stderr
