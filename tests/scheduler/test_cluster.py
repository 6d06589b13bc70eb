"""On a cluster of three servers every stream has three copies, without a setting."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mesh_sdk import Mesh
from mesh_sdk.protocol.subjects import Subjects
from mesh_sdk.transport.bus import Bus
from mesh_sdk.transport.connection import connect
from tests.cluster import Cluster
from tests.faults.fleet import SCHEDULER, WORKER, Process


@pytest.mark.timeout(120)
async def test_streams_have_three_copies_and_runs_succeed(tmp_path: Path) -> None:
    started: list[Process] = []
    with Cluster(tmp_path / "nats") as cluster:
        try:
            for name, command in (("scheduler", SCHEDULER), ("standby", SCHEDULER), ("worker", WORKER)):
                given = {"MESH_URL": cluster.url, "FAULTS_EXECUTED": str(tmp_path)}
                started.append(Process(command, tmp_path / f"{name}.log", given))
                started[-1].line("ready", 60)
            async with Mesh(url=cluster.url) as mesh:
                assert await mesh.run("Chain", {"n": 1}) == 4
            bus = await connect(cluster.url.split(","), name="test")
            try:
                assert bus.cluster_size == 3
                names = Subjects()
                for stream in (names.journal_stream, names.reports_stream):
                    assert await replicas(bus, stream) == 3
                assert await replicas(bus, names.lanes_stream) == 1, "they may be lost, but must not go back to an older state"
            finally:
                await bus.close()
        finally:
            codes = [process.end() for process in reversed(started)]
        assert codes == [0, 0, 0]


async def replicas(bus: Bus, stream: str) -> int:
    """How many copies a stream has."""
    answer = await bus.request(f"$JS.API.STREAM.INFO.{stream}", b"", 5)
    copies: int = json.loads(answer)["config"]["num_replicas"]
    return copies
