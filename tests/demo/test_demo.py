"""The demo as users run it: it ends well, a real Prometheus can watch it, and nothing is left behind."""

from __future__ import annotations

import json
import re
import secrets
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from urllib.request import urlopen

import pytest

from tests.cli.processes import Running
from tests.prometheus import Prometheus, promtool, queries

pytestmark = pytest.mark.timeout(240)

DASHBOARD = Path(__file__).parents[2] / "deploy/grafana/dashboards/workers.json"
SETTLED_S = 120.0
MARK = "MESH_TEST_MARK"
NAMES = ("scheduler-1", "scheduler-2", "worker-1", "worker-2", "worker-3")

T = TypeVar("T")


def eventually(answer: Callable[[], T], demo: Running) -> T:
    deadline = time.monotonic() + SETTLED_S
    while not (found := answer()):
        assert demo.process.poll() is None, f"the demo has ended:\n{''.join([*demo.output, *demo.errors])}"
        assert time.monotonic() < deadline, f"not within {SETTLED_S:g} s:\n{''.join(demo.output)}"
        time.sleep(0.05)
    return found


def free_ports(count: int) -> int:
    """The first of so many ports in a row that nobody listens on."""
    while True:
        with ExitStack() as held:
            held.enter_context(first := socket.socket()).bind(("127.0.0.1", 0))
            port: int = first.getsockname()[1]
            try:
                for after in range(port + 1, port + count):
                    held.enter_context(socket.socket()).bind(("127.0.0.1", after))
            except (OSError, OverflowError):
                continue
            return port


def said(demo: Running, text: str) -> str | None:
    return next((line for line in list(demo.output) if text in line), None)


def marked(mark: str) -> list[str]:
    """Processes that carry the mark: the demo's, and whatever they started."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                if f"{MARK}={mark}".encode() in (folder / "environ").read_bytes():
                    found.append((folder / "cmdline").read_bytes().replace(b"\0", b" ").decode())
            except OSError:  # gone meanwhile, or another user's
                continue
    return found


@contextmanager
def a_demo(folder: Path, *arguments: str) -> Iterator[tuple[Running, str]]:
    mark = secrets.token_hex(8)
    with Running("demo", *arguments, folder=folder, environment={MARK: mark, "TMPDIR": str(folder)}) as demo:
        yield demo, mark


@dataclass
class Watched:
    demo: Running
    mark: str
    folder: Path
    ports: dict[str, int]
    prometheus: Prometheus


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """A demo that a Prometheus watches from its beginning, told its verdict, its processes still there."""
    folder = tmp_path_factory.mktemp("demo")
    ports = dict(zip(NAMES, range(first := free_ports(len(NAMES)), first + len(NAMES)), strict=True))
    targets = {f"mesh-{kind}": [f"127.0.0.1:{ports[name]}" for name in NAMES if name.startswith(kind)] for kind in ("scheduler", "worker")}
    with Prometheus(targets) as prometheus, a_demo(folder, "--linger", "200s", "--metrics-port", str(first)) as (demo, mark):
        eventually(lambda: said(demo, "lingering"), demo)
        yield Watched(demo, mark, folder, ports, prometheus)


def living(watched: Watched, kind: str) -> int:
    """The port of a process of this kind that was not killed."""
    killed = {match[1] for line in watched.demo.output if (match := re.search(r"SIGKILL (\S+)", line))}
    return next(port for name, port in watched.ports.items() if name.startswith(kind) and name not in killed)


def test_the_story_is_told(watched: Watched) -> None:
    text = "".join(watched.demo.output)
    assert len(re.findall(r"SIGKILL worker-\d \(pid \d+\)", text)) == 1
    assert len(re.findall(r"SIGKILL scheduler-\d \(pid \d+\), the leading scheduler", text)) == 1
    assert re.search(r"scheduler-\d leads, \d+\.\d s after the kill", text)
    assert re.search(r"every file is indexed exactly once: (\d+) files, \1 runs", text)
    assert re.search(r"\d+ steps were retried because of the deaths of worker-\d and scheduler-\d", text)
    assert re.search(r"\d+ sticky runs: [\d,]+ steps on worker-\d and worker-\d found their file in memory, \d+ did not\n", text)
    assert re.search(r"\d+ runs? moved to another worker because of the death of worker-\d\n", text)
    assert re.search(r"✓ every file's steps ran on one worker(, but for the \d+ runs? that moved .*)?\n", text)
    assert text.count("✓") == 7
    assert "✗" not in text


def test_every_query_of_the_dashboard_returns_data(watched: Watched) -> None:
    board = json.loads(DASHBOARD.read_text())
    empty = [where for where, expression in queries(board, rate_interval="30s") if not watched.prometheus.query(expression)]
    assert not empty


def test_prometheus_saw_the_deaths(watched: Watched) -> None:
    saw = watched.prometheus
    # those that were killed may have lived for less than a scrape interval: that they are gone is sure, that they were seen is not
    saw.wait_for(lambda: (saw.value("count(up == 0)"), saw.value("count(up == 1)")) == (2, 3), "two dead and three living targets")
    assert saw.value("sum(mesh_scheduler_leader and on(instance) (up == 1))") == 1
    assert saw.value("max(mesh_scheduler_term)") > 1
    indexed = saw.value('sum(max_over_time(mesh_steps_finished_total{action="index-file:summarise",outcome="succeeded"}[10m]))')
    assert indexed > 300


def test_prometheus_saw_sticky_runs(watched: Watched) -> None:
    saw = watched.prometheus
    steps = "sum(max_over_time(mesh_worker_sticky_steps_total{{{}}}[10m]))"
    ended = saw.value('sum(max_over_time(mesh_runs_finished_total{workflow="index-file",outcome="succeeded"}[10m]))')
    hits, misses = saw.value(steps.format('result="hit"')), saw.value(steps.format('result="miss"'))
    assert hits > ended, "a run that stays has three"
    assert misses < hits / 10
    kept = "sum(mesh_worker_sticky_runs and on(instance) (up == 1)) + max(sum by (instance) (mesh_worker_sticky_evictions_total))"
    saw.wait_for(lambda: [float(each["value"][1]) for each in saw.query(kept)] == [0.0], "no entry kept, none evicted")


def test_no_slot_stays_taken(watched: Watched) -> None:
    query = watched.prometheus.query
    busy = "sum(mesh_worker_slots_used and on(instance) (up == 1)) + sum(mesh_pool_slots_used) + sum(mesh_runs_in_progress)"
    watched.prometheus.wait_for(lambda: [float(each["value"][1]) for each in query(busy)] == [0.0], "all slots free, no run in progress")


@pytest.mark.parametrize("kind", ["worker", "scheduler"])
def test_live_metrics_are_clean(watched: Watched, kind: str) -> None:
    with urlopen(f"http://127.0.0.1:{living(watched, kind)}/metrics", timeout=10) as response:
        text = response.read().decode()
    checked = promtool("check", "metrics", input=text)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


@pytest.mark.parametrize("kind", ["worker", "scheduler"])
@pytest.mark.parametrize("page", ["healthz", "readyz"])
def test_what_lives_is_healthy_and_ready(watched: Watched, kind: str, page: str) -> None:
    with urlopen(f"http://127.0.0.1:{living(watched, kind)}/{page}", timeout=10) as response:
        assert response.status == 200


def test_the_processes_have_the_chosen_ports(watched: Watched) -> None:
    line = said(watched.demo, "metrics on 127.0.0.1:") or ""
    assert line.split("127.0.0.1: ")[1].split() == [f"{name}={port}" for name, port in watched.ports.items()]


def test_it_ends_well_and_leaves_nothing(watched: Watched) -> None:
    assert watched.demo.end(signal.SIGTERM) == 0
    assert "all that was left drained on SIGTERM" in watched.demo.output[-1]
    assert not marked(watched.mark)
    assert not list(watched.folder.glob("mesh-demo-*"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_a_signal_in_the_middle_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    with a_demo(tmp_path) as (demo, mark):
        eventually(lambda: said(demo, "published"), demo)
        assert len(marked(mark)) == 7
        assert demo.end(number) == 130
        assert not marked(mark)
        assert not list(tmp_path.glob("mesh-demo-*"))


def test_its_own_kill_leaves_no_process(tmp_path: Path) -> None:
    with a_demo(tmp_path) as (demo, mark):
        eventually(lambda: said(demo, "are ready"), demo)
        assert demo.end(signal.SIGKILL) == -signal.SIGKILL
        deadline = time.monotonic() + 20
        while marked(mark):
            assert time.monotonic() < deadline, marked(mark)
            time.sleep(0.05)
