"""What every test can use: a server of its module, clean settings, processes that find the packages."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SETTINGS = ("MESH_URL", "NATS_URL", "MESH_NAMESPACE", "MESH_WORKER_ID", "MESH_REPLICAS", "MESH_NATS_SERVER_BIN")


@pytest.fixture(scope="session", autouse=True)
def _clean_environment() -> Iterator[None]:
    """Settings of the developer's shell must not leak in; processes that tests start find `mesh`, `mesh_sdk` and `tests`."""
    with pytest.MonkeyPatch.context() as patch:
        for name in SETTINGS:
            patch.delenv(name, raising=False)
        patch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(ROOT / "sdk")]))
        yield


@pytest.fixture(scope="session", autouse=True)
def _interruptible() -> None:
    """A shell that starts the tests in the background has them ignore SIGINT, and so would every process that they start and interrupt."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
