"""The commands on a running mesh: one server, one scheduler, one worker, as processes."""

from __future__ import annotations

import json
import re
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
from mesh_sdk import Context, Mesh

mesh = Mesh()

@mesh.task(on_events=["greet.*"])
async def greet(data: dict, ctx: Context) -> dict:
    return {"hello": data["name"], "worker": ctx.worker.id()}

@mesh.task()
async def refuse(data: dict, ctx: Context) -> dict:
    raise ValueError("this one never works")

@mesh.task()
async def linger(data: dict, ctx: Context) -> dict:
    await asyncio.sleep(600)
    return {}

worker = mesh.worker("cli-tests", slots=4, workflows=[greet, refuse, linger], labels={"zone": "a"})
"""

WORKER = "cli-0"


class Place(NamedTuple):
    """Where commands are run, and the mesh that they meet."""

    folder: Path
    url: str


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("cli")
    (folder / "app.py").write_text(MODULE)
    with EmbeddedServer(folder / "store") as server, Running("scheduler", folder=folder, url=server.url) as scheduler:
        scheduler.line("ready")
        with Running("worker", "app", folder=folder, url=server.url, environment={"MESH_WORKER_ID": WORKER}) as worker:
            worker.line("ready")
            yield Place(folder, server.url)


def _eventually(answer: Callable[[], Any], within_s: float = 10) -> Any:
    deadline = time.monotonic() + within_s
    while not (found := answer()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)
    return found


def test_a_run_is_awaited_and_its_result_printed(place):
    result = json.loads(mesh("run", "greet", '{"name": "Ada"}', "--wait", folder=place.folder, url=place.url))
    assert result == {"hello": "Ada", "worker": WORKER}


def test_an_awaited_run_as_json_tells_its_id(place):
    told = mesh_json("run", "greet", '{"name": "Bob"}', "--wait", folder=place.folder, url=place.url)
    assert told["status"] == "succeeded"
    assert told["output"]["hello"] == "Bob"
    shown = mesh_json("runs", "show", told["run_id"], folder=place.folder, url=place.url)
    assert shown["workflow"] == "greet"
    assert shown["status"] == "succeeded"
    assert shown["waiting"] is None
    (step,) = shown["steps"].values()
    assert step["worker"] == WORKER
    assert step["attempt"] == 1
    assert step["output"]["hello"] == "Bob"
    assert step["error"] is None
    for table in (["runs", "show", told["run_id"]], ["runs", "list"]):
        assert told["run_id"] in mesh(*table, folder=place.folder, url=place.url)


def test_the_input_may_come_from_standard_input(place):
    command = [*COMMAND, "run", "greet", "-", "--wait", "--url", place.url]
    done = subprocess.run(command, input='{"name": "Cy"}', capture_output=True, text=True, timeout=50, check=True)
    assert json.loads(done.stdout)["hello"] == "Cy"


def test_a_published_event_starts_a_run(place):
    mesh("publish", "greet.someone", '{"name": "Eve"}', folder=place.folder, url=place.url)

    def outputs() -> list[str]:
        runs = mesh_json("runs", "list", "--workflow", "greet", "--status", "succeeded", folder=place.folder, url=place.url)
        shown = [mesh_json("runs", "show", run["run_id"], folder=place.folder, url=place.url) for run in runs]
        return [run["steps"]["greet"]["output"]["hello"] for run in shown]

    _eventually(lambda: "Eve" in outputs())


def test_a_failed_run_ends_the_command_with_its_code(place):
    command = [*COMMAND, "run", "refuse", "{}", "--wait", "--url", place.url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 7
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert "this one never works" in done.stderr


def test_a_running_run_is_cancelled(place):
    run_id = mesh("run", "linger", folder=place.folder, url=place.url).strip()
    mesh("runs", "cancel", run_id, "--reason", "seen enough", folder=place.folder, url=place.url)
    ended = _eventually(lambda: _status(place, run_id) == "cancelled")
    assert ended


def _status(place: Place, run_id: str) -> str:
    return mesh_json("runs", "show", run_id, folder=place.folder, url=place.url)["status"]


def test_a_limited_wait_ends_and_the_run_goes_on(place):
    mesh("run", "linger", "--wait", "--timeout", "300ms", "--key", "waited", folder=place.folder, url=place.url, code=8)
    run_id = mesh("run", "linger", "--key", "waited", folder=place.folder, url=place.url).strip()
    assert _status(place, run_id) in ("running", "queued", "waiting")
    mesh("runs", "cancel", run_id, folder=place.folder, url=place.url)


def test_workers_and_their_slots_are_listed(place):
    (worker,) = mesh_json("workers", "list", folder=place.folder, url=place.url)
    assert worker["id"] == WORKER
    assert worker["name"] == "cli-tests"
    assert worker["slots"] == 4
    assert 0 <= worker["used"] <= 4
    assert worker["labels"] == {"zone": "a"}
    assert "greet:greet" in worker["actions"]
    assert worker["pool"]
    assert worker["state"]
    assert WORKER in mesh("workers", "list", folder=place.folder, url=place.url)


def test_workflows_are_listed_and_shown(place):
    names = {workflow["name"] for workflow in mesh_json("workflows", "list", folder=place.folder, url=place.url)}
    assert names == {"greet", "refuse", "linger"}
    shown = mesh_json("workflows", "show", "greet", folder=place.folder, url=place.url)
    assert shown["on_events"] == ["greet.*"]
    assert [step["name"] for step in shown["steps"]] == ["greet"]
    assert "greet" in mesh("workflows", "list", folder=place.folder, url=place.url)
    assert WORKER in mesh("workflows", "show", "greet", folder=place.folder, url=place.url)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["run", "nobody-registered-this", "{}"], 6),
        (["runs", "show", "0" * 32], 6),
        (["workflows", "show", "nobody-registered-this"], 6),
        (["runs", "list", "--status", "happy"], 11),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_what_is_not_there_ends_with_one_line(place, arguments, code):
    done = subprocess.run([*COMMAND, *arguments, "--url", place.url], capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == code
    assert done.stderr.count("\n") == 1
    assert arguments[-1] in done.stderr or arguments[1] in done.stderr


def test_the_doctor_finds_nothing_wrong(place):
    checks = {check["check"]: check for check in mesh_json("doctor", folder=place.folder, url=place.url)}
    assert {check["state"] for check in checks.values()} <= {"ok", "warning"}
    assert checks["leader"]["state"] == "ok"
    assert checks["workers"]["state"] == "ok"
    assert checks["mesh_default_JOURNAL"]["state"] == "ok"
    assert "leader" in mesh("doctor", folder=place.folder, url=place.url)


def test_the_doctor_misses_a_scheduler(place):
    done = subprocess.run(
        [*COMMAND, "doctor", "--json", "--url", place.url, "--namespace", "empty"], capture_output=True, text=True, timeout=50, check=False
    )
    assert done.returncode == 15
    failed = {check["check"]: check for check in json.loads(done.stdout) if check["state"] == "failed"}
    assert "mesh scheduler" in failed["leader"]["advice"]
    assert "mesh_empty_JOURNAL" in failed


def test_several_processes_of_a_worker_have_ids_of_their_own(place):
    with Running(
        "worker", "app:worker", "--processes", "2", folder=place.folder, url=place.url, environment={"MESH_WORKER_ID": "many"}
    ) as many:
        assert many.line("ready") == "ready 2 processes"
        ids = {worker["id"] for worker in mesh_json("workers", "list", folder=place.folder, url=place.url)}
        assert {"many-0", "many-1"} <= ids
        assert many.end() == 0

    def left() -> bool:
        workers = mesh_json("workers", "list", folder=place.folder, url=place.url)
        return not any(re.match("many-", worker["id"]) for worker in workers if worker["state"] not in ("gone", "lost", "left"))

    _eventually(left)


def test_scheduler_and_worker_drain_and_exit_well(tmp_path):
    (tmp_path / "app.py").write_text(MODULE)
    with EmbeddedServer(tmp_path / "store") as server, Running("scheduler", folder=tmp_path, url=server.url) as scheduler:
        scheduler.line("ready")
        with Running("worker", "app", folder=tmp_path, url=server.url) as worker:
            worker.line("ready")
            assert worker.end() == 0
        assert scheduler.end() == 0


def test_without_a_server_the_long_running_ones_end_with_one_line(tmp_path):
    (tmp_path / "app.py").write_text(MODULE)
    for command in (["scheduler"], ["worker", "app"]):
        done = subprocess.run(
            [*COMMAND, *command, "--url", "nats://127.0.0.1:1", "--log-level", "error"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=50,
            check=False,
        )
        assert done.returncode == 4, done.stderr
        assert "nats://127.0.0.1:1" in done.stderr
        assert done.stderr.count("\n") == 1
