"""What a Bus is tested with: a server of the module, and buses on it. A simulated one joins by its own factory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from mesh_sdk.transport.bus import Bus, StreamSettings
from mesh_sdk.transport.connection import connect
from mesh_sdk.transport.settings import ConnectionSettings
from tests.contract.proxy import Proxy
from tests.contract.servers import Server

MIB = 1024 * 1024
FAST = ConnectionSettings(ping_interval_s=0.3, reconnect_wait_s=0.02)

Until = Callable[..., Awaitable[None]]
MakeBus = Callable[..., Awaitable[Bus]]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The server of the module's tests; each uses stream names of its own."""
    running = Server(tmp_path_factory.mktemp("nats")).start()
    yield running
    running.kill()


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[Server]:
    """A server that the test may kill."""
    running = Server(tmp_path).start()
    yield running
    running.kill()


@pytest.fixture(params=["nats"])
async def make_bus(request: pytest.FixtureRequest) -> AsyncIterator[MakeBus]:
    """Opens buses and closes them at the end."""
    async with AsyncExitStack() as opened:

        async def make(url: str) -> Bus:
            bus = await connect([url], name="contract", settings=FAST)
            opened.push_async_callback(bus.close)
            return bus

        yield make


@pytest.fixture
async def bus(make_bus: MakeBus, server: Server) -> Bus:
    """A bus on the module's server."""
    return await make_bus(server.url)


@pytest.fixture
async def proxy(server: Server) -> AsyncIterator[Proxy]:
    """A proxy in front of the module's server."""
    running = await Proxy(server.port).start()
    yield running
    await running.close()


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A stream name and first subject token that no other test has."""
    return "".join(letter if letter.isalnum() else "_" for letter in request.node.name)


async def until(condition: Callable[[], bool], timeout: float = 15.0) -> None:
    """Poll until the condition holds.

    Raises:
        AssertionError: it did not, in time.
    """
    deadline = asyncio.get_running_loop().time() + timeout
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, "it did not come to pass"
        await asyncio.sleep(0.005)


def stream(name: str, **more: object) -> StreamSettings:
    """A small stream `name` over `name.>`."""
    settings: dict[str, object] = {"max_bytes": 16 * MIB, "direct": True, **more}
    return StreamSettings(name=name, subjects=(f"{name}.>",), **settings)  # type: ignore[arg-type]


def lanes(name: str) -> StreamSettings:
    """A lanes stream: memory, atomic, republished to `<name>.push.>`."""
    return StreamSettings(
        name=name,
        subjects=(f"{name}.lane.>",),
        max_bytes=16 * MIB,
        memory=True,
        atomic=True,
        direct=True,
        republish=(f"{name}.lane.worker.>", f"{name}.push.>"),
    )
