"""The cluster of the tests itself: replicated streams from the moment it has started."""

from __future__ import annotations

import asyncio

import nats

from tests.cluster import Cluster


async def test_a_started_cluster_takes_a_replicated_stream(tmp_path):
    cluster = Cluster(tmp_path)
    await asyncio.to_thread(cluster.start)
    try:
        connection = await nats.connect(cluster.url.split(","))
        info = await connection.jetstream(timeout=20).add_stream(name="R3", subjects=["r3"], num_replicas=3)
        await connection.close()
        assert info.config.num_replicas == 3
    finally:
        cluster.stop()
