"""A server of the module, a scripted leader in a namespace of the test, and workers that end with it."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from mesh_sdk import Mesh
from mesh_sdk.worker.worker import Worker
from tests.contract.servers import Server
from tests.worker.leader import Leader

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
    return f"test{next(_names)}"


@pytest.fixture
async def leader(server: Server, namespace: str) -> AsyncIterator[Leader]:
    running = await Leader(server.url, namespace).start()
    yield running
    await running.close()


@pytest.fixture
async def mesh(server: Server, namespace: str) -> AsyncIterator[Mesh]:
    made = Mesh(url=server.url, namespace=namespace)
    yield made
    await made.close()


@asynccontextmanager
async def running(worker: Worker, **more: Any) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    """A worker that is ready; gives a function that drains it and waits for its end."""
    stop, ready = asyncio.Event(), asyncio.Event()
    serving = asyncio.ensure_future(worker.serve(stop=stop, on_ready=lambda _: ready.set(), **more))

    async def end() -> None:
        stop.set()
        await serving

    waiting = asyncio.ensure_future(ready.wait())
    try:
        async with asyncio.timeout(15):
            await asyncio.wait([serving, waiting], return_when=asyncio.FIRST_COMPLETED)
        if serving.done():
            serving.result()
        yield end
    finally:
        waiting.cancel()
        if not serving.done():
            await end()
