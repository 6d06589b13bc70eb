from __future__ import annotations

import json
import re
import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mesh_sdk.observe.health import HealthServer
from tests.observe.readings import full_scheduler, full_worker
from tests.observe.test_metrics import SCHEDULER_NAMES, WORKER_NAMES
from tests.prometheus import Prometheus, panels, promtool, queries

GRAFANA = Path(__file__).parents[2] / "deploy/grafana"
FILES = sorted((GRAFANA / "dashboards").glob("*.json"))
DASHBOARDS = {path.name: json.loads(path.read_text()) for path in FILES}
UNITS = {"short", "s", "bytes", "ops", "percentunit"}
SERIES = re.compile(r"(_bucket|_sum|_count)$")


@pytest.fixture(params=list(DASHBOARDS))
def board(request: pytest.FixtureRequest) -> dict[str, Any]:
    loaded: dict[str, Any] = DASHBOARDS[request.param]
    return loaded


def drawn(board: dict[str, Any]) -> list[dict[str, Any]]:
    return [panel for panel in panels(board) if panel["type"] != "row"]


def test_the_files_are_what_the_generator_makes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(GRAFANA)  # as it is for a program that is run
    made = runpy.run_path(str(GRAFANA / "generate.py"))["dashboards"]()
    assert made == {path.name: path.read_text() for path in FILES}, "run: python deploy/grafana/generate.py"


def test_ids_and_titles_are_unique(board: dict[str, Any]) -> None:
    ids = [panel["id"] for panel in panels(board)]
    titles = [panel["title"] for panel in drawn(board) if panel["type"] == "timeseries"]
    assert len(ids) == len(set(ids))
    assert len(titles) == len(set(titles))
    assert len({each["uid"] for each in DASHBOARDS.values()}) == len(DASHBOARDS)


def test_panels_fit_and_do_not_overlap(board: dict[str, Any]) -> None:
    taken: dict[tuple[int, int], str] = {}
    for panel in panels(board):
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24, panel["title"]
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert (x, y) not in taken, f"{panel['title']} lies over {taken[x, y]}"
                taken[x, y] = panel["title"]


def test_every_panel_has_a_unit_a_description_and_the_chosen_datasource(board: dict[str, Any]) -> None:
    for panel in drawn(board):
        assert panel["fieldConfig"]["defaults"]["unit"] in UNITS, panel["title"]
        assert panel["description"].endswith("."), panel["title"]
        assert panel["targets"], panel["title"]
        for each in (panel, *panel["targets"]):
            assert each["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        references = [target["refId"] for target in panel["targets"]]
        assert len(references) == len(set(references))


def test_every_metric_of_a_query_exists(board: dict[str, Any]) -> None:
    known = WORKER_NAMES | SCHEDULER_NAMES | {"process_cpu_seconds_total", "process_resident_memory_bytes"}
    for where, expression in queries(board):
        named = set(re.findall(r"\b(?:mesh|process)_[a-z_]+", expression))
        assert named, where
        assert {SERIES.sub("", name) for name in named} <= known, where


def test_every_metric_but_the_infos_is_on_a_dashboard() -> None:
    shown = " ".join(expression for board in DASHBOARDS.values() for _, expression in queries(board))
    unseen = {name for name in WORKER_NAMES | SCHEDULER_NAMES if not re.search(rf"\b{name}(_bucket)?\b", shown)}
    assert unseen == {"mesh_worker_info", "mesh_scheduler_info"}


def test_every_variable_is_used_and_every_used_one_is_there(board: dict[str, Any]) -> None:
    used = set(re.findall(r"\$\{?([a-z]+)", json.dumps(board["panels"])))
    assert used - {"__rate_interval"} == {each["name"] for each in board["templating"]["list"]}


def test_every_query_parses(board: dict[str, Any], tmp_path: Path) -> None:
    rules = [{"record": f"query{index}", "expr": expression} for index, (_, expression) in enumerate(queries(board))]
    path = tmp_path / "rules.yml"
    path.write_text(json.dumps({"groups": [{"name": "queries", "rules": rules}]}))
    checked = promtool("check", "rules", str(path))
    assert checked.returncode == 0, checked.stderr


@pytest.fixture(scope="module")
def prometheus() -> Iterator[Prometheus]:
    registries = {"mesh-worker": full_worker().registry, "mesh-scheduler": full_scheduler().registry}
    servers = {job: HealthServer(0, each, lambda: (True, ""), lambda: (True, "")) for job, each in registries.items()}
    for server in servers.values():
        assert server.start()
    try:
        with Prometheus({job: [f"127.0.0.1:{server.port}"] for job, server in servers.items()}) as running:
            running.wait_for_scrapes(4)
            yield running
    finally:
        for server in servers.values():
            server.stop()


def test_every_query_answers_on_a_real_scrape(board: dict[str, Any], prometheus: Prometheus) -> None:
    empty = [where for where, expression in queries(board) if not prometheus.query(expression)]
    assert not empty


def test_the_scraped_values_are_the_counted_ones(prometheus: Prometheus) -> None:
    assert prometheus.value("sum(mesh_worker_slots)") == 5
    assert prometheus.value('mesh_steps_finished_total{action="index:read",outcome="succeeded"}') == 1
    assert prometheus.value("mesh_journal_records_total") == 12
    assert prometheus.value('histogram_quantile(1, mesh_step_execution_seconds_bucket{action="index:read"})') == 0.25


def test_the_documented_queries_answer(prometheus: Prometheus) -> None:
    text = (GRAFANA.parents[1] / "docs/metrics.md").read_text()
    documented = re.findall(r"^\| [^`|]+ \| `([^`]+)` \|$", text.partition("## Asking")[2], re.MULTILINE)
    assert len(documented) >= 5
    for expression in documented:
        assert prometheus.query(expression), expression
