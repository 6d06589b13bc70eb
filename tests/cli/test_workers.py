"""`mesh workers`: one is shown, pauses, goes on and drains as it is told; real processes."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from mesh.server import EmbeddedServer
from tests.cli.processes import COMMAND, Running, mesh, mesh_json

MODULE = """
import asyncio
import pathlib

from mesh_sdk import Context, Mesh

mesh = Mesh()

@mesh.task()
async def greet(data: dict, ctx: Context) -> str:
    return ctx.worker.id()

@mesh.task()
async def wait_for(name: str, ctx: Context) -> None:
    while not pathlib.Path(name).exists():
        await asyncio.sleep(0.02)

worker = mesh.worker("steered", slots=2, workflows=[greet, wait_for], labels={"zone": "a"})
"""
WITHIN_S = 15.0


class Place(NamedTuple):
    """Where commands are run, and the mesh that they meet."""

    folder: Path
    url: str

    def json(self, *arguments: str) -> Any:
        return mesh_json(*arguments, folder=self.folder, url=self.url)

    def run(self, *arguments: str) -> str:
        return mesh(*arguments, folder=self.folder, url=self.url)

    def worker(self, id: str, *arguments: str) -> Running:
        return Running("worker", "app", *arguments, folder=self.folder, url=self.url, environment={"MESH_WORKER_ID": id})

    def states(self) -> dict[str, str]:
        return {worker["id"]: worker["state"] for worker in self.json("workers", "list")}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("steering")
    (folder / "app.py").write_text(MODULE)
    with EmbeddedServer(folder / "store") as server, Running("scheduler", folder=folder, url=server.url) as scheduler:
        scheduler.line("ready")
        yield Place(folder, server.url)


def _eventually(holds: Callable[[], object]) -> None:
    deadline = time.monotonic() + WITHIN_S
    while not holds():
        assert time.monotonic() < deadline, f"it did not happen within {WITHIN_S:g} s"
        time.sleep(0.05)


def test_one_worker_is_shown(place: Place):
    with place.worker("shown") as worker:
        worker.line("ready")
        shown = place.json("workers", "show", "shown")
        assert (shown["id"], shown["slots"], shown["labels"], shown["state"]) == ("shown", 2, {"zone": "a"}, "active")
        text = place.run("workers", "show", "shown")
        assert "greet:greet" in text
        assert "zone=a" in text


def test_a_paused_worker_gets_nothing_until_it_goes_on(place: Place):
    with place.worker("paused") as worker:
        worker.line("ready")
        assert place.run("workers", "pause", "paused").strip() == "worker paused is paused"
        assert place.states()["paused"] == "paused"
        run = place.run("run", "greet", "{}").strip()
        shown = place.json("runs", "show", run)
        assert shown["status"] in ("queued", "waiting")
        assert shown["waiting"], "somebody who looks must be told why it does not begin"
        assert place.json("workers", "resume", "paused") == {"id": "paused", "state": "active"}
        _eventually(lambda: place.json("runs", "show", run)["status"] == "succeeded")
        assert place.states()["paused"] == "active"


def test_a_drained_worker_ends_well(place: Place):
    with place.worker("drained") as worker:
        worker.line("ready")
        assert place.run("workers", "drain", "drained").strip() == "worker drained is draining"
        assert worker.process.wait(WITHIN_S) == 0
    _eventually(lambda: "drained" not in place.states())


def test_a_worker_that_drains_can_not_be_had_to_do_anything_else(place: Place):
    """What is printed is what is true: it goes on draining."""
    with place.worker("drains") as worker:
        worker.line("ready")
        run = place.run("run", "wait_for", '"the-end"').strip()
        _eventually(lambda: place.json("runs", "show", run)["status"] == "running")
        place.run("workers", "drain", "drains")
        for what in ("resume", "pause"):
            done = subprocess.run([*COMMAND, "workers", what, "drains", "--url", place.url], capture_output=True, text=True, check=False)
            assert (done.returncode, done.stdout) == (1, "")
            assert f"worker 'drains' is draining and its process will end: it can't {what} any more" in done.stderr
        assert place.states()["drains"] == "draining"
        (place.folder / "the-end").touch()
        assert worker.process.wait(WITHIN_S) == 0


def test_a_drained_process_of_several_is_not_started_again(place: Place):
    with place.worker("many", "--processes", "2") as many:
        many.line("ready 2")
        place.run("workers", "drain", "many-0")
        _eventually(lambda: "many-0" not in place.states())
        assert place.json("run", "greet", "{}", "--wait")["output"] == "many-1"
        assert many.process.poll() is None
        place.run("workers", "drain", "many-1")
        assert many.process.wait(WITHIN_S) == 0, "none is left: it has nothing more to do"
        assert sum("ready worker" in line for line in many.output) == 2


@pytest.mark.parametrize("what", ["show", "pause", "resume", "drain"])
def test_a_worker_that_is_not_there_is_said_in_one_line(place: Place, what: str):
    command = [*COMMAND, "workers", what, "nobody", "--url", place.url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 6
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert "there is no worker 'nobody'" in done.stderr


def test_what_it_is_told_may_be_told_twice(place: Place):
    with place.worker("twice") as worker:
        worker.line("ready")
        for what, state in (("pause", "paused"), ("pause", "paused"), ("resume", "active"), ("resume", "active")):
            assert json.loads(place.run("workers", what, "twice", "--json")) == {"id": "twice", "state": state}
