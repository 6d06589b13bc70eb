"""Examples run as programs, and what the mesh tells of them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from mesh.server import EmbeddedServer
from tests.cli.processes import Running, mesh_json

EXAMPLES = Path(__file__).parents[2] / "examples"
WITHIN_S = 20.0

Answer = TypeVar("Answer")


@contextmanager
def scheduled(folder: Path) -> Iterator[str]:
    """The address of a server with a scheduler."""
    with EmbeddedServer(folder / "nats") as server, Running("scheduler", folder=folder, url=server.url) as scheduler:
        scheduler.line("ready")
        yield server.url


def program(path: str, *arguments: str, url: str, code: int = 0) -> str:
    """Run an example as a program to its end; what it printed, or what it complained of."""
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / path), *arguments], env=os.environ | {"MESH_URL": url}, capture_output=True, text=True, timeout=40
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stderr if code else done.stdout


@contextmanager
def worker_program(path: str | Path, *, url: str, id: str = "") -> Iterator[subprocess.Popen[bytes]]:
    """An example that starts its worker, as a process; it drains at the end and ends with 0."""
    known = {worker["id"] for worker in workers(url)}
    environment = os.environ | {"MESH_URL": url} | ({"MESH_WORKER_ID": id} if id else {})
    process = subprocess.Popen([sys.executable, str(EXAMPLES / path)], env=environment)
    try:
        eventually(lambda: process.poll() is not None or {worker["id"] for worker in workers(url)} - known)
        assert process.poll() is None, f"{path} ended at once, with {process.returncode}"
        yield process
        process.terminate()
        assert process.wait(WITHIN_S) == 0
    finally:
        process.kill()
        process.wait()


def eventually(answer: Callable[[], Answer]) -> Answer:
    """What `answer()` gives once that is anything."""
    deadline = time.monotonic() + WITHIN_S
    while not (found := answer()):
        assert time.monotonic() < deadline, f"nothing within {WITHIN_S:g} s"
        time.sleep(0.05)
    return found


def workers(url: str) -> list[Any]:
    """The workers that the references declare."""
    return [worker for worker in mesh_json("workers", "list", folder=EXAMPLES, url=url) if worker["name"] == "test-worker"]


def runs(workflow: str, url: str) -> list[Any]:
    """Those that have succeeded."""
    return [run for run in mesh_json("runs", "list", "--workflow", workflow, folder=EXAMPLES, url=url) if run["status"] == "succeeded"]
