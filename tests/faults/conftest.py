"""A fleet for each module of fault tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults.fleet import Fleet


@pytest.fixture
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """A server, and nothing else yet."""
    with Fleet(tmp_path_factory.mktemp("fleet")) as running:
        yield running
