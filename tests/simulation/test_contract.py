"""The simulated server under the contract of real ones: the tests of `tests/contract`, over it and its clock.

Left out: what needs a frozen server or a hole in the network, which simulations make in their own way.
"""

from __future__ import annotations

import asyncio
import inspect
import random
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from mesh_sdk.transport.bus import Bus
from mesh_sdk.transport.connection import connect
from tests.contract import test_append, test_buckets, test_core_messages, test_frames, test_lanes, test_reader, test_streams
from tests.simulation.loop import SimulatedLoop
from tests.simulation.network import Network
from tests.simulation.seams import simulated
from tests.simulation.server import Server

MODULES = (test_append, test_buckets, test_core_messages, test_frames, test_lanes, test_reader, test_streams)
REAL_ONLY = (".hole", ".refuse", ".freeze", "subprocess", "settings=", ".pause(")
"""In the source of a test that can only be run on a real network and server."""


class Stand:
    """What the contract's tests know as a server, and as a proxy in front of one."""

    port = 0

    def __init__(self, server: Server, url: str) -> None:
        self._server = server
        self.url = url

    def kill(self) -> None:
        self._server.stop()

    def start(self) -> None:
        self._server.start()

    def cut(self) -> None:
        for connection in tuple(self._server.connections):
            if connection.client.servers == [self.url]:
                connection.cut()


def _cases() -> Iterator[Any]:
    for module in MODULES:
        for name, function in vars(module).items():
            if name.startswith("test_") and inspect.iscoroutinefunction(function):
                marks = [mark for mark in getattr(function, "pytestmark", ()) if mark.name == "parametrize"]
                yield from _cases_of(f"{module.__name__.rpartition('.')[2]}.{name}", function, marks)


def _cases_of(id: str, function: Callable[..., Any], marks: list[Any]) -> Iterator[Any]:
    known = {"bus", "name", "make_bus", "server", "own_server", "proxy", "caplog"}
    given = {mark.args[0] for mark in marks}
    source = inspect.getsource(function)
    if any(word in source for word in REAL_ONLY) or set(inspect.signature(function).parameters) - known - given:
        return
    values: list[dict[str, Any]] = [{}]
    for mark in marks:
        values = [{**before, mark.args[0]: value} for before in values for value in mark.args[1]]
    for value in values:
        yield pytest.param(function, value, id="-".join([id, *map(str, value.values())]))


@pytest.mark.parametrize(("function", "values"), tuple(_cases()))
def test_contract(function: Callable[..., Awaitable[None]], values: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    loop = SimulatedLoop()
    server = Server(Network(loop, random.Random("contract")), lone=True, lanes_bytes_max=1 << 40)
    with simulated(server, random.Random("ids"), snapshot_frames=1_000):
        try:
            loop.run_until_complete(_run(function, values, server, caplog))
        finally:
            loop.end()


async def _run(function: Callable[..., Awaitable[None]], values: dict[str, Any], server: Server, caplog: object) -> None:
    buses: list[Bus] = []

    async def make_bus(url: str, **settings: Any) -> Bus:
        buses.append(await connect([url], name="contract"))
        return buses[-1]

    stand, proxy = Stand(server, "nats://simulated"), Stand(server, "nats://proxy")
    known = {"make_bus": make_bus, "server": stand, "own_server": stand, "proxy": proxy, "name": "contract", "caplog": caplog}
    wanted = inspect.signature(function).parameters
    if "bus" in wanted:
        known["bus"] = await make_bus(stand.url)
    async with asyncio.timeout(120):
        await function(**{name: value for name, value in {**known, **values}.items() if name in wanted})
    for bus in buses:
        await bus.close()
