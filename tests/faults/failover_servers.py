"""Kills of a cluster's server, and two clocks from each: until the cluster accepts the mesh's writes, until a new run has its result.

Whether writes are accepted is asked by a client of its own, connected to the servers that live: a write that expects a sequence which no
stream has is refused as wrong by a stream that would take a right one, and left unanswered by one that can't. Rule: nothing is written.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time

from mesh_sdk import Mesh
from mesh_sdk.protocol.subjects import Subjects
from mesh_sdk.transport.connection import Link, connect
from mesh_sdk.transport.errors import TransportError, WrongSequence
from tests.cluster import Cluster

NAMES = Subjects()
WRITTEN = (NAMES.journal, NAMES.trigger(5), NAMES.report)
"""A subject of each stream with copies that a run needs."""
NO_SEQUENCE = 1 << 50
ASK_S = 0.3
AGAIN_S = 0.02
WITHIN_S = 60.0
PATIENCE_S = 5.0


class ServerDeaths:
    """On one cluster with a mesh on it.

    Args:
        cluster: what is killed; started.
        mesh: starts the runs.
    """

    def __init__(self, cluster: Cluster, mesh: Mesh) -> None:
        self._cluster = cluster
        self._mesh = mesh

    async def kill(self, lanes: bool) -> tuple[float, float]:
        """Kill the server that leads the journal, and start it again.

        Args:
            lanes: whether it is to be the one that holds the lanes, too.

        Returns:
            Seconds until writes were accepted, and until a run that was started after the kill had its result.
        """
        async with asyncio.timeout(2 * WITHIN_S):
            dead = await self._arrange(lanes)
            server = self._cluster.servers[int(dead.removeprefix("n"))]
            living = [each.url for each in self._cluster.servers if each is not server]
            bus = await connect(living, name="failover")
            began = time.monotonic()
            os.kill(server.pid, signal.SIGKILL)
            asking = [asyncio.create_task(_accepted(bus, subject, began)) for subject in WRITTEN]
            assert await self._mesh.run("once", {"n": 7}) == {"n": 7}
            took = time.monotonic() - began
            accepted = max(await asyncio.gather(*asking))
            await bus.close()
            server.kill()
            await asyncio.to_thread(server.restart)
            return accepted, took

    async def _arrange(self, lanes: bool) -> str:
        """Have the journal led by the server that holds the lanes, or by another; that server's name."""
        bus = await connect(self._cluster.url.split(","), name="failover arranges")
        try:
            while True:
                held = await _leader(bus, NAMES.lanes_stream)
                leads = await _leader(bus, NAMES.journal_stream)
                if held and leads and (held == leads) is lanes and await _whole(bus):
                    await self._mesh.run("once", {"n": 1})
                    return leads
                await asyncio.sleep(ASK_S)
                if held and leads and (held == leads) is not lanes:
                    await _move(bus, held if lanes else next(f"n{index}" for index in range(3) if f"n{index}" != held))
        finally:
            await bus.close()


async def _accepted(bus: Link, subject: str, began: float) -> float:
    """Until the stream of a subject takes writes, in seconds since then."""
    while True:
        try:
            await bus.append(subject, b"", expect=NO_SEQUENCE, timeout=ASK_S)
        except WrongSequence:
            return time.monotonic() - began
        except TransportError:
            await asyncio.sleep(AGAIN_S)


async def _ask(bus: Link, what: str, data: bytes = b"") -> dict[str, object]:
    try:
        answer: dict[str, object] = json.loads(await bus.request(f"$JS.API.{what}", data, PATIENCE_S))
    except TransportError:
        return {}
    return answer


async def _leader(bus: Link, stream: str) -> str:
    """Name of the server that leads a stream, "" when nobody says so."""
    cluster = (await _ask(bus, f"STREAM.INFO.{stream}")).get("cluster")
    return str(cluster.get("leader", "")) if isinstance(cluster, dict) else ""


async def _whole(bus: Link) -> bool:
    """Whether every copy of the journal, the starts and the reports is up to date."""
    for stream in (NAMES.journal_stream, NAMES.triggers_stream, NAMES.reports_stream):
        cluster = (await _ask(bus, f"STREAM.INFO.{stream}")).get("cluster")
        replicas = cluster.get("replicas", []) if isinstance(cluster, dict) else []
        if len(replicas) != 2 or not all(each.get("current") and not each.get("lag") for each in replicas):
            return False
    return True


async def _move(bus: Link, to: str) -> None:
    """Ask the journal's leader to hand over."""
    await _ask(bus, f"STREAM.LEADER.STEPDOWN.{NAMES.journal_stream}", json.dumps({"placement": {"preferred": to}}).encode())
