from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.examples.programs import scheduled


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Of a server with a scheduler."""
    with scheduled(tmp_path_factory.mktemp("examples")) as url:
        yield url
