"""A fleet, and a connection to it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from mesh_sdk.transport.connection import Link, connect
from tests.faults.fleet import Fleet


@pytest.fixture
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """A server, and nothing else yet."""
    with Fleet(tmp_path_factory.mktemp("fleet")) as running:
        yield running


@pytest.fixture
async def bus(fleet: Fleet) -> AsyncIterator[Link]:
    """A stranger's connection to the fleet's server."""
    link = await connect([fleet.server.url], name="stranger")
    yield link
    await link.close()
