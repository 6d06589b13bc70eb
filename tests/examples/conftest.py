from __future__ import annotations

from collections.abc import Iterator

import pytest

from mesh.server import EmbeddedServer
from tests.cli.processes import Running


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Of a server with a scheduler."""
    folder = tmp_path_factory.mktemp("examples")
    with EmbeddedServer(folder / "nats") as server, Running("scheduler", folder=folder, url=server.url) as scheduler:
        scheduler.line("ready")
        yield server.url
