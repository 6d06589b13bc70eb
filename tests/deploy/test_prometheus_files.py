from __future__ import annotations

import re
from pathlib import Path

import yaml

from tests.observe.test_metrics import SCHEDULER_NAMES, WORKER_NAMES
from tests.prometheus import promtool

ROOT = Path(__file__).parents[2]
PROMETHEUS = ROOT / "deploy/prometheus"


def alerts() -> list[dict[str, object]]:
    groups = yaml.safe_load((PROMETHEUS / "rules.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def test_the_configuration_is_valid() -> None:
    checked = promtool("check", "config", str(PROMETHEUS / "prometheus.yml"))
    assert checked.returncode == 0, checked.stderr


def test_the_alerts_fire_when_they_should() -> None:
    tested = promtool("test", "rules", str(PROMETHEUS / "rules_test.yml"))
    assert tested.returncode == 0, tested.stdout + tested.stderr


def test_every_alert_has_a_case_that_fires_and_one_that_does_not() -> None:
    cases = [each for test in yaml.safe_load((PROMETHEUS / "rules_test.yml").read_text())["tests"] for each in test["alert_rule_test"]]
    names = {rule["alert"] for rule in alerts()}
    assert {each["alertname"] for each in cases if each.get("exp_alerts")} == names
    assert {each["alertname"] for each in cases if not each.get("exp_alerts")} == names


def test_every_alert_has_its_runbook_and_every_runbook_its_alert() -> None:
    sections = re.findall(r"^## (\w+)$", (ROOT / "docs/runbooks.md").read_text(), re.MULTILINE)
    assert sections == [rule["alert"] for rule in alerts()]
    for rule in alerts():
        annotations = rule["annotations"]
        assert isinstance(annotations, dict)
        assert annotations["runbook_url"] == f"docs/runbooks.md#{str(rule['alert']).lower()}"


def test_every_metric_of_an_alert_exists() -> None:
    for rule in alerts():
        named = set(re.findall(r"\bmesh_[a-z_]+", str(rule["expr"])))
        assert {re.sub("_bucket$", "", name) for name in named} <= WORKER_NAMES | SCHEDULER_NAMES
