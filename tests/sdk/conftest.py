"""A server of the module, a scripted scheduler in a namespace of the test, a mesh on both."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from mesh_sdk import Mesh
from tests.contract.servers import Server
from tests.sdk.scheduler import Scheduler

_names = itertools.count(1)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    running = Server(tmp_path_factory.mktemp("nats")).start()
    yield running
    running.kill()


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[Server]:
    """A server that the test may kill."""
    running = Server(tmp_path).start()
    yield running
    running.kill()


@pytest.fixture
def namespace() -> str:
    return f"sdk{next(_names)}"


@pytest.fixture
async def scheduler(server: Server, namespace: str) -> AsyncIterator[Scheduler]:
    running = await Scheduler(server.url, namespace).start()
    yield running
    await running.close()


@pytest.fixture
async def mesh(server: Server, namespace: str, scheduler: Scheduler) -> AsyncIterator[Mesh]:
    made = Mesh(url=server.url, namespace=namespace)
    yield made
    await made.close()


async def until(condition: Callable[[], bool], timeout: float = 15.0) -> None:
    """Poll until the condition holds."""
    deadline = asyncio.get_running_loop().time() + timeout
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, "it did not come to pass"
        await asyncio.sleep(0.005)
