"""Every test of the core runs with the machines of step and run under watch."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from tests.core.moves import watched

settings.register_profile("bounded", derandomize=True, deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))
settings.register_profile("long", deadline=None, max_examples=2000, suppress_health_check=list(HealthCheck))
settings.load_profile(os.environ.get("MESH_HYPOTHESIS", "bounded"))


@pytest.fixture(autouse=True, scope="session")
def _moves_of_the_tables() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch, watched(patch):
        yield
