"""How many copies of its streams a mesh has, and how long a worker's presence lives there.

Rule: MESH_REPLICAS decides where it is set. Else only the cluster knows how many servers it has; what a server tells every
client of the others' addresses may be hidden (`no_advertise`), and one that is down for now is still one.
"""

from __future__ import annotations

import asyncio
import logging
import os
from typing import NamedTuple

from mesh.store.topology import PRESENCE_TTL_CLUSTER_S, PRESENCE_TTL_S, Topology
from mesh_sdk.errors import ConfigurationError
from mesh_sdk.protocol.subjects import Subjects
from mesh_sdk.transport.backoff import Backoff
from mesh_sdk.transport.bus import Bus
from mesh_sdk.transport.errors import TooFewServers

log = logging.getLogger(__name__)

CLUSTER_REPLICAS = 3
FORMING_S = 3.0
"""So long a cluster that has no mesh yet may take to know all its servers."""


def wished() -> int:
    """MESH_REPLICAS, 0 when it is not set.

    Raises:
        ConfigurationError: it is nothing that can be.
    """
    text = os.environ.get("MESH_REPLICAS", "").strip()
    if text and text not in ("1", "3", "5"):
        raise ConfigurationError(f"MESH_REPLICAS is {text!r}: use 1, 3 or 5, or leave it away")
    return int(text or 0)


class Copies(NamedTuple):
    """What suits the servers."""

    replicas: int
    presence_ttl_s: float
    """As workers have it, who can't see how many copies there are: by the wish, else by whether there is a cluster."""


async def suited(bus: Bus, subjects: Subjects, wish: int) -> Copies:
    """As many copies as wished, else as the servers can hold.

    Args:
        wish: the number of copies; 0 for none in particular.

    Raises:
        TransportError: the servers don't say now.
    """
    cluster = wish > 1 if wish else bus.clustered
    replicas = wish or (await _possible(bus, subjects) if cluster else 1)
    return Copies(replicas, PRESENCE_TTL_CLUSTER_S if cluster else PRESENCE_TTL_S)


async def _possible(bus: Bus, subjects: Subjects) -> int:
    journal = await bus.stream_state(subjects.journal_stream)
    if journal is not None and journal.replicas > 1:
        return journal.replicas
    loop = asyncio.get_running_loop()
    until = loop.time() + (FORMING_S if journal is None else 0)
    smallest = min(Topology(subjects, CLUSTER_REPLICAS).stored(), key=lambda settings: settings.max_bytes)
    backoff = Backoff(0.1, 1.0)
    while True:
        try:
            await bus.ensure_stream(smallest)
            return CLUSTER_REPLICAS
        except TooFewServers as error:
            if loop.time() >= until:
                log.warning("every stream has one copy: this cluster has fewer than %d servers (%s)", CLUSTER_REPLICAS, error)
                return 1
        await backoff.wait(asyncio.Event())
