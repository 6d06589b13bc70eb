"""The shipped server configurations, started for real: only ports, folders and the number of listeners differ."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sysconfig
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import pytest

from mesh.store.topology import Topology
from mesh_sdk.protocol.codec import FRAME_BYTES_MAX
from mesh_sdk.protocol.subjects import Subjects

FOLDER = Path(__file__).parents[2] / "deploy/nats"
SERVER = Path(sysconfig.get_path("scripts")) / "nats-server"
SECONDS_MAX = 30.0
CLUSTER = {
    "MESH_NATS_NAME": "n1",
    "MESH_NATS_STORE": "/data",
    "MESH_NATS_PASSWORD": "secret",
    "MESH_NATS_ROUTES": "[nats://mesh:secret@n1:6222]",
}


def free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]


def get(port: int, path: str) -> Any:
    with urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as response:
        return json.load(response)


@contextmanager
def running(text: str, folder: Path, ports: Mapping[int, int], environment: Mapping[str, str]) -> Iterator[None]:
    """A server with this configuration, on other ports and on loopback."""
    folder.mkdir()
    for port, other in ports.items():
        assert f"0.0.0.0:{port}" in text
        text = text.replace(f"0.0.0.0:{port}", f"127.0.0.1:{other}")
    config = folder / "nats.conf"
    config.write_text(text.replace('"/data"', json.dumps(str(folder / "data"))))
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([SERVER, "-c", config], env={**os.environ, **environment}, stdout=log, stderr=log)
    try:
        wait_for_health(process, ports[8222], folder / "log")
        yield
    finally:
        process.terminate()
        process.wait(SECONDS_MAX)


def wait_for_health(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + SECONDS_MAX
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()
        try:
            if get(port, "/healthz?js-server-only=true")["status"] == "ok":
                return
        except (URLError, ConnectionError, TimeoutError):
            time.sleep(0.05)
    raise AssertionError(f"the server did not become healthy:\n{log.read_text()}")


@pytest.mark.parametrize("name", ["nats.conf", "cluster.conf"])
def test_the_server_accepts_the_file(name: str) -> None:
    checked = subprocess.run([SERVER, "-t", "-c", FOLDER / name], env=CLUSTER, capture_output=True, text=True, timeout=20, check=False)
    assert checked.returncode == 0, checked.stderr


def test_both_files_agree_but_for_what_a_cluster_needs() -> None:
    def settings(name: str) -> set[str]:
        text = (FOLDER / name).read_text().partition("\ncluster {")[0]
        lines = {re.sub(r"\s*#.*", "", line).strip() for line in text.splitlines()}
        return {line for line in lines if line and not re.match("server_name|store_dir", line)}

    assert settings("nats.conf") == settings("cluster.conf")


def test_the_single_server_syncs_every_write_and_has_the_promised_limits(tmp_path: Path) -> None:
    client, monitor = free_ports(2)
    with running((FOLDER / "nats.conf").read_text(), tmp_path / "n", {4222: client, 8222: monitor}, {}):
        jetstream = get(monitor, "/jsz")
        assert jetstream["config"]["sync_always"] is True
        topology = Topology(Subjects())
        assert jetstream["config"]["max_storage"] > 2 * sum(each.max_bytes for each in topology.stored())
        assert jetstream["config"]["max_memory"] > 2 * sum(each.max_bytes for each in (*topology.remembered(), topology.lanes()))
        server = get(monitor, "/varz")
        assert server["max_payload"] == 1024**2
        assert server["max_payload"] > FRAME_BYTES_MAX
        assert server["ping_interval"] == 10 * 10**9
        assert server["ping_max"] == 2


@pytest.mark.timeout(120)
def test_three_servers_from_the_cluster_file_find_each_other_and_elect(tmp_path: Path) -> None:
    text = (FOLDER / "cluster.conf").read_text()
    ports = free_ports(9)
    places = [dict(zip((4222, 8222, 6222), ports[index : index + 3], strict=True)) for index in (0, 3, 6)]
    routes = ", ".join(f"nats://mesh:secret@127.0.0.1:{place[6222]}" for place in places)
    with ExitStack() as stack:
        processes = [
            running(
                text,
                tmp_path / f"n{index}",
                place,
                {
                    **CLUSTER,
                    "MESH_NATS_NAME": f"n{index}",
                    "MESH_NATS_STORE": str(tmp_path / f"s{index}"),
                    "MESH_NATS_ROUTES": f"[{routes}]",
                },
            )
            for index, place in enumerate(places)
        ]
        for each in processes:
            stack.enter_context(each)
        deadline = time.monotonic() + SECONDS_MAX
        while True:
            meta = get(places[0][8222], "/jsz").get("meta_cluster", {})
            if meta.get("leader") and meta.get("cluster_size") == 3:
                break
            assert time.monotonic() < deadline, meta
            time.sleep(0.1)
        assert get(places[1][8222], "/jsz")["config"]["sync_always"] is True
