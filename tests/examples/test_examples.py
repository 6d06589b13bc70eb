"""Every example is run as its own text says, against a real server and scheduler, and does what it says."""

from __future__ import annotations

import ast
import asyncio
import sys
from pathlib import Path

import nats
import pytest

from mesh.cli.modules import load_worker
from mesh_sdk import Mesh
from tests.cli.processes import Running, mesh, mesh_json
from tests.examples.programs import EXAMPLES, eventually, program, runs, worker_program, workers

LINES_MAX = 100


def test_hello(url: str) -> None:
    with Running("worker", "hello", folder=EXAMPLES, url=url) as worker:
        worker.line("ready")
        mesh("publish", "user:create", '{"name": "Ada"}', folder=EXAMPLES, url=url)
        run = eventually(lambda: runs("hello", url))[0]
        found = mesh_json("runs", "show", run["run_id"], folder=EXAMPLES, url=url)
        assert found["output"] == {"hello": "Ada", "from": "greeter"}
        assert mesh_json("run", "hello", "{}", "--wait", folder=EXAMPLES, url=url)["output"] == {"hello": "world", "from": "greeter"}
        assert worker.end() == 0


def test_a_client_starts_awaits_and_reads(url: str) -> None:
    with Running("worker", "hello", folder=EXAMPLES, url=url) as worker:
        worker.line("ready")
        first, second, listed = program("client.py", url=url).splitlines()
        assert first == "{'hello': 'Lin', 'from': 'greeter'}"
        assert second.endswith("{'hello': 'Joan', 'from': 'greeter'}")
        assert listed.startswith("hello succeeded greeter-")
        readme = (EXAMPLES.parent / "README.md").read_text()
        assert (EXAMPLES / "client.py").read_text().partition("\n\n")[2].rstrip() in readme


def test_hello_under_dev(tmp_path: Path) -> None:
    (tmp_path / "examples").symlink_to(EXAMPLES)
    with Running("dev", "examples/hello.py", "--store", str(tmp_path / "store"), folder=tmp_path) as dev:
        dev.line("ready")
        assert mesh_json("run", "hello", '{"name": "Grace"}', "--wait", folder=tmp_path)["output"]["hello"] == "Grace"
        assert dev.end() == 0


def test_typed_dag(url: str) -> None:
    with Running("worker", "typed_dag.py", folder=EXAMPLES, url=url) as worker:
        worker.line("ready")
        assert program("typed_dag.py", url=url) == "order 12 charged 12.0 and shipped from shelf-5\n"


def test_fan_out_needs_no_more_slots_than_it_has(url: str) -> None:
    with Running("worker", "fan_out", folder=EXAMPLES, url=url) as worker:
        worker.line("ready")
        lines = program("fan_out.py", "3", "4", "5", "20", url=url).splitlines()
        assert [line.rpartition(" ")[2] for line in lines] == ["5", "14", "30", "2470"]


def test_on_event_starts_each_listener_once(url: str) -> None:
    with Running("worker", "on_event", folder=EXAMPLES, url=url) as worker:
        worker.line("ready")
        assert program("on_event.py", url=url).endswith("is stored, once: True\n")
        for workflow, output in {
            "reserve": "order 7 reserved",
            "audit": "order 7 seen by audit, from an event: True",
        }.items():
            [run] = eventually(lambda workflow=workflow: runs(workflow, url))
            assert mesh_json("runs", "show", run["run_id"], folder=EXAMPLES, url=url)["output"] == output


def test_any_nats_client_publishes_events(url: str) -> None:
    async def publish() -> None:
        client = await nats.connect(url)
        await client.publish("mesh.default.events.order.paid", b'{"id": 8}')
        await client.drain()

    with Running("worker", "on_event", folder=EXAMPLES, url=url) as worker:
        worker.line("ready")
        before = len(runs("audit", url))
        asyncio.run(publish())
        eventually(lambda: len(runs("audit", url)) == before + 1)


def test_flow_control(url: str) -> None:
    with Running("worker", "flow_control.py", folder=EXAMPLES, url=url) as worker:
        worker.line("ready")
        served, *searches, mails = program("flow_control.py", url=url).splitlines()
    order = served.removeprefix("served: ").split()
    assert (order.count("big"), order.count("small")) == (12, 3)
    assert order[-3:] == ["big"] * 3, "in the order of their starts the small one's come last"
    replaced = "search: cancelled: a newer run of group ada took its place (CANCEL_IN_PROGRESS, max_runs 1)"
    assert searches == [replaced, replaced, "search: results for 'nat'"]
    assert 0.4 <= float(mails.removeprefix("14 mails took ").removesuffix(" s")) < 5
    readme = (EXAMPLES.parent / "README.md").read_text()
    text = (EXAMPLES / "flow_control.py").read_text()
    assert text[text.index("@mesh.task") : text.index("worker = ")].rstrip() in readme
    assert "\n".join(searches) in readme


@pytest.mark.parametrize(
    ("path", "workflow", "slots"),
    [("reference/declaring_a_worker.py", "simple", 100), ("reference/registering_workflows.py", "MyWorkflow", 4)],
)
def test_reference_programs_start_their_worker(path: str, workflow: str, slots: int, url: str) -> None:
    with worker_program(path, url=url):
        [worker] = workers(url)
        assert worker["slots"] == slots
        assert mesh_json("run", workflow, "{}", "--wait", folder=EXAMPLES, url=url)["output"] == {"worker": "test-worker"}
    eventually(lambda: not workers(url))


@pytest.mark.parametrize("name", sorted(path.name for path in EXAMPLES.glob("*.py") if path.name != "client.py"))  # a program, no worker
def test_an_example_holds_one_worker_and_starts_nothing_when_imported(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(EXAMPLES)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(Mesh, "start", None)
    assert load_worker(name).name
    monkeypatch.delitem(sys.modules, name.removesuffix(".py"))


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_an_example_is_short_and_says_how_to_try_it(path: Path) -> None:
    text = path.read_text()
    assert "mesh dev examples/" in (ast.get_docstring(ast.parse(text)) or "")
    assert len(text.splitlines()) <= LINES_MAX
