"""On a cluster of three servers every stream has three copies, without a setting and whatever clients are told of the others."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from mesh.store import replicas as copies
from mesh.store.replicas import suited
from mesh.store.topology import PRESENCE_TTL_CLUSTER_S, PRESENCE_TTL_S, Topology
from mesh_sdk import Mesh
from mesh_sdk.protocol.subjects import Subjects
from mesh_sdk.transport.bus import Bus
from mesh_sdk.transport.connection import connect
from mesh_sdk.transport.errors import TransportError
from tests.cluster import Cluster
from tests.faults.fleet import SCHEDULER, WORKER, Process


@pytest.mark.timeout(120)
async def test_streams_have_three_copies_and_runs_succeed(tmp_path: Path) -> None:
    started: list[Process] = []
    with Cluster(tmp_path / "nats", advertise=False) as cluster:
        try:
            for name, command in (("scheduler", SCHEDULER), ("standby", SCHEDULER), ("worker", WORKER)):
                given = {"MESH_URL": cluster.url, "FAULTS_EXECUTED": str(tmp_path)}
                started.append(Process(command, tmp_path / f"{name}.log", given))
                started[-1].line("ready", 60)
            async with Mesh(url=cluster.url) as mesh:
                assert await mesh.run("Chain", {"n": 1}) == 4
            bus = await connect(cluster.url.split(","), name="test")
            try:
                assert bus.clustered
                names = Subjects()
                for stream in (names.journal_stream, names.reports_stream):
                    assert await replicas(bus, stream) == 3
                assert await replicas(bus, names.lanes_stream) == 1, "they may be lost, but must not go back to an older state"
            finally:
                await bus.close()
        finally:
            codes = [process.end() for process in reversed(started)]
        assert codes == [0, 0, 0]


@pytest.mark.timeout(60)
async def test_two_servers_hold_one_copy_and_a_third_that_is_down_counts(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copies, "FORMING_S", 0.3)
    with Cluster(tmp_path / "two", size=2) as cluster:
        bus = await connect(cluster.url.split(","), name="test")
        assert await suited(bus, Subjects(), 0) == (1, PRESENCE_TTL_CLUSTER_S)
        assert "fewer than 3 servers" in caplog.text
        await Topology(Subjects()).ensure(bus)
        assert (await suited(bus, Subjects(), 0)).replicas == 1
        assert (await suited(bus, Subjects(), 3)).replicas == 3, "a wish is not questioned"
        assert (await suited(bus, Subjects(), 1)).presence_ttl_s == PRESENCE_TTL_S
        await bus.close()
    with Cluster(tmp_path / "three") as cluster:
        bus = await connect([cluster.servers[0].url], name="test")
        cluster.servers[2].stop()
        async with asyncio.timeout(30):  # until a majority has found its leader again
            while (found := await _asked(bus)) is None:
                await asyncio.sleep(0.1)
        assert found.replicas == 3
        await bus.close()


async def _asked(bus: Bus) -> copies.Copies | None:
    try:
        return await suited(bus, Subjects(), 0)
    except TransportError:
        return None


async def replicas(bus: Bus, stream: str) -> int:
    """How many copies a stream has."""
    answer = await bus.request(f"$JS.API.STREAM.INFO.{stream}", b"", 5)
    copies: int = json.loads(answer)["config"]["num_replicas"]
    return copies
