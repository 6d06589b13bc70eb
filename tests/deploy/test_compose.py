"""There may be no Docker engine where tests run: the files are checked for what they say."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from mesh.cli.app import root

ROOT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = ("scheduler-1", "scheduler-2", "worker-1", "worker-2")
METRICS_PORT = "9464"


def test_the_promised_services_are_there() -> None:
    assert set(SERVICES) == {"nats", *OURS, "prometheus", "grafana"}


def test_compose_itself_finds_nothing_wrong() -> None:
    compose = shutil.which("docker-compose")
    if compose is None:
        return  # what it would check, the tests below check as far as this file needs it
    checked = subprocess.run(
        [compose, "-f", str(ROOT / "docker-compose.yml"), "config", "--quiet"], capture_output=True, text=True, timeout=60, check=False
    )
    assert checked.returncode == 0, checked.stderr


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_restarts_and_is_watched(name: str) -> None:
    service = SERVICES[name]
    assert service["restart"] == "unless-stopped"
    assert service["healthcheck"]["test"][0] == "CMD"
    assert re.search(r":v?\d+\.\d+", service["image"]) or "build" in service, "an image of ours, or a fixed version"


def mounts() -> list[tuple[str, str, str]]:
    return [(name, *each.split(":")[:2]) for name, service in SERVICES.items() for each in service.get("volumes", [])]


@pytest.mark.parametrize(("name", "source", "target"), mounts())
def test_what_is_mounted_exists(name: str, source: str, target: str) -> None:
    if source.startswith("."):
        assert (ROOT / source).exists(), f"{name} mounts {source}"
    else:
        assert source in COMPOSE["volumes"], f"{name} mounts the volume {source}"
    assert target.startswith("/")


def test_files_that_commands_name_are_mounted() -> None:
    assert SERVICES["nats"]["command"] == ["--config", "/etc/nats/nats.conf"]
    assert "./deploy/nats/nats.conf:/etc/nats/nats.conf:ro" in SERVICES["nats"]["volumes"]
    home = SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    folder = next(source for _, source, target in mounts() if target == str(Path(home).parent))
    assert (ROOT / folder / Path(home).name).exists()


def test_dependencies_are_services_with_a_healthcheck() -> None:
    for name, service in SERVICES.items():
        for other, condition in service.get("depends_on", {}).items():
            assert condition == {"condition": "service_healthy"}, name
            assert SERVICES[other]["healthcheck"]


@pytest.mark.parametrize("name", OURS)
def test_our_processes_find_nats_and_serve_their_metrics(name: str) -> None:
    service = SERVICES[name]
    assert service["environment"]["MESH_URL"] == "nats://nats:4222"
    assert service["environment"]["MESH_METRICS_HOST"] == "0.0.0.0"
    assert service["command"][-2:] == ["--metrics-port", METRICS_PORT]
    assert f":{METRICS_PORT}/healthz" in " ".join(service["healthcheck"]["test"])


@pytest.mark.parametrize("name", OURS)
def test_commands_are_ones_that_the_command_line_takes(name: str) -> None:
    command, *arguments = SERVICES[name]["command"]
    found = root.get_command(click.Context(root), command)
    assert found is not None
    assert found.make_context(command, arguments).params["metrics_port"] == int(METRICS_PORT)


def test_workers_have_a_module_an_id_and_time_to_drain() -> None:
    for name in ("worker-1", "worker-2"):
        assert (ROOT / "examples" / f"{SERVICES[name]['command'][1]}.py").exists()
        assert SERVICES[name]["environment"]["MESH_WORKER_ID"] == name
        assert SERVICES[name]["stop_grace_period"] == "60s"


def test_prometheus_scrapes_every_process_of_ours() -> None:
    config = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())
    targets = {target for job in config["scrape_configs"] for each in job["static_configs"] for target in each["targets"]}
    assert {f"{name}:{METRICS_PORT}" for name in OURS} <= targets
    assert {job["job_name"] for job in config["scrape_configs"]} == {"mesh-scheduler", "mesh-worker", "prometheus"}


def test_grafana_finds_prometheus_and_the_dashboards() -> None:
    provisioning = ROOT / "deploy/grafana/provisioning"
    (source,) = yaml.safe_load((provisioning / "datasources/prometheus.yml").read_text())["datasources"]
    assert source["url"] == "http://prometheus:9090"
    (provider,) = yaml.safe_load((provisioning / "dashboards/mesh.yml").read_text())["providers"]
    assert provider["options"]["path"] in {target for name, _, target in mounts() if name == "grafana"}


def test_ports_are_published_on_loopback_only() -> None:
    assert all(port.startswith("127.0.0.1:") for service in SERVICES.values() for port in service.get("ports", []))


def test_the_image_is_made_from_files_that_exist_and_are_not_ignored() -> None:
    text = (ROOT / "deploy/Dockerfile").read_text()
    kept = re.findall(r"^!(\S+)", (ROOT / "deploy/Dockerfile.dockerignore").read_text(), re.MULTILINE)
    copied = [source for line in re.findall(r"^COPY (?!--from)(.+)$", text, re.MULTILINE) for source in line.split()[:-1]]
    assert set(copied) == set(kept)
    for source in copied:
        assert (ROOT / source).exists(), source
    assert text.count("FROM python:") == 2
    assert 'ENTRYPOINT ["mesh"]' in text
    assert "USER mesh" in text
    assert "STOPSIGNAL SIGTERM" in text
    assert METRICS_PORT in text
