"""The lanes live on one server of a cluster: when it dies they are made anew on another, and nothing is lost or done twice."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections import Counter
from pathlib import Path

import pytest

from mesh_sdk import Mesh
from mesh_sdk.protocol.subjects import Subjects
from mesh_sdk.transport.connection import connect
from tests.cluster import Cluster
from tests.faults.fleet import Fleet

LANES = Subjects().lanes_stream
RUNS = 30
WITHIN_S = 60.0


async def home(urls: list[str], stream: str) -> str:
    """Name of the server that leads a stream."""
    bus = await connect(urls, name="test")
    try:
        answer = await bus.request(f"$JS.API.STREAM.INFO.{stream}", b"", 5)
    finally:
        await bus.close()
    name: str = json.loads(answer)["cluster"]["leader"]
    return name


@pytest.mark.timeout(150)
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
async def test_the_server_of_the_lanes_dies(tmp_path: Path, number: signal.Signals) -> None:
    cluster = Cluster(tmp_path / "nats")
    with Fleet(tmp_path, cluster) as fleet:
        fleet.scheduler()
        fleet.scheduler()
        for _ in range(2):
            fleet.worker(slots=4)
        urls = cluster.url.split(",")
        async with Mesh(url=cluster.url) as mesh:
            assert await mesh.run("once", {"n": 6}) == {"n": 6}
            refs = [await mesh.start("Chain", {"n": n, "ms": 200}) for n in range(RUNS)]
            dead = await home(urls, LANES)
            victim = cluster.servers[int(dead.removeprefix("n"))]
            os.kill(victim.pid, number)
            try:
                began = time.monotonic()
                async with asyncio.timeout(WITHIN_S):
                    assert await mesh.run("once", {"n": 7}) == {"n": 7}
                    print(f"{number.name}: a new run's result after {time.monotonic() - began:.1f} s")
                    assert [await ref.result() for ref in refs] == [n + 3 for n in range(RUNS)]
                    assert await home(urls, LANES) != dead
            finally:
                if number == signal.SIGSTOP:
                    os.kill(victim.pid, signal.SIGCONT)
        begun = Counter((run, step, attempt) for run, step, attempt, what, _ in fleet.executions() if what == "start")
        assert max(begun.values()) == 1, "one attempt, one execution"
