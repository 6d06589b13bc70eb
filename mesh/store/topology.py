"""Every stream and bucket of a namespace with its limits, and what happens at each limit.

Rule: nothing is made elsewhere. Streams refuse new messages when they are full (the sender is told and keeps what it
has); only the leader removes, and only what it has decided. `ensure` creates what is missing and updates what differs;
a server's own limits that are too small for it are an error that says so.
"""

from __future__ import annotations

import logging

import msgspec
from msgspec import Struct

from mesh_sdk.errors import ServerUnsuitable
from mesh_sdk.protocol.subjects import Subjects
from mesh_sdk.transport.bus import Bus, StreamSettings
from mesh_sdk.transport.errors import Busy, Refused, StreamFull, StreamMissing
from mesh_sdk.transport.kv import bucket_stream
from mesh_sdk.transport.objects import object_stream

MIB = 1024 * 1024
PRESENCE_TTL_S = 5.0
"""How long a worker's presence lives without a heartbeat on one server."""
PRESENCE_TTL_CLUSTER_S = 15.0
"""The same on three servers, which pause writes for seconds when a stream's leader dies."""


SMALLER = (1, 4, 16, 64)
"""Parts of the limits that are tried in turn on a server whose own storage limits are smaller than all streams together."""

log = logging.getLogger(__name__)


class Limits(Struct, frozen=True):
    """Bytes that each stream may hold."""

    events: int = 1024 * MIB
    triggers: int = 1024 * MIB
    reports: int = 512 * MIB
    journal: int = 1024 * MIB
    dead: int = 64 * MIB
    lanes: int = 256 * MIB
    snapshots: int = 1024 * MIB
    buckets: int = 32 * MIB


class Topology:
    """The streams and buckets of one namespace.

    Args:
        subjects: the namespace's names.
        replicas: 1, or 3 on a cluster.
        limits: bytes for each stream.
        presence_ttl_s: how long a worker's presence lives without a heartbeat.
    """

    def __init__(
        self, subjects: Subjects, replicas: int = 1, limits: Limits | None = None, *, presence_ttl_s: float = PRESENCE_TTL_S
    ) -> None:
        self.subjects = subjects
        self.replicas = replicas
        self.limits = limits or Limits()
        self.presence_ttl_s = presence_ttl_s

    def stored(self) -> list[StreamSettings]:
        """What survives a restart of the server."""
        names, limits, replicas = self.subjects, self.limits, self.replicas
        return [
            StreamSettings(
                names.events_stream, (names.all_events,), limits.events, replicas=replicas, description="events that users publish"
            ),
            StreamSettings(
                names.triggers_stream, (names.all_triggers,), limits.triggers, replicas=replicas, description="starts and cancels"
            ),
            StreamSettings(
                names.reports_stream, (names.all_reports,), limits.reports, replicas=replicas, description="what workers report"
            ),
            StreamSettings(
                names.journal_stream, (names.all_journals,), limits.journal, replicas=replicas, description="the scheduler's decisions"
            ),
            StreamSettings(
                names.dead_stream, (names.all_dead,), limits.dead, replicas=replicas, discard_old=True, description="what could not be read"
            ),
            bucket_stream(names.workflows_bucket, max_bytes=limits.buckets, replicas=replicas),
            bucket_stream(names.leader_bucket, max_bytes=MIB, replicas=replicas),
            object_stream(names.snapshots_bucket, max_bytes=limits.snapshots, replicas=replicas),
        ]

    def remembered(self) -> list[StreamSettings]:
        """Buckets in memory: filled again by heartbeats and by the leader when they are lost."""
        names = self.subjects
        return [
            bucket_stream(names.workers_bucket, max_bytes=self.limits.buckets, replicas=self.replicas, memory=True),
            bucket_stream(names.slots_bucket, max_bytes=self.limits.buckets, replicas=self.replicas, memory=True),
        ]

    def lanes(self) -> StreamSettings:
        """The lanes: only the leader makes them. One copy, on a cluster too: lanes may be lost, but must not go back (decision 8)."""
        names = self.subjects
        return StreamSettings(
            names.lanes_stream, (names.all_lanes,), self.limits.lanes, memory=True, direct=True, atomic=True,
            republish=(names.all_worker_lanes, names.all_pushes), description="assignments on their way",
        )  # fmt: skip

    async def ensure(self, bus: Bus) -> None:
        """Have everything but the lanes there.

        Raises:
            ServerUnsuitable: the server refuses a stream, e.g. because its storage limits are too small.
            TransportError: it can't be made now, perhaps later.
        """
        for settings in (*self.stored(), *self.remembered()):
            await self._ensure(bus, settings)

    async def ensure_remembered(self, bus: Bus) -> None:
        """Have the buckets in memory there, after a server has lost them."""
        for settings in self.remembered():
            await self._ensure(bus, settings)

    async def _ensure(self, bus: Bus, settings: StreamSettings) -> None:
        """Have one stream there, smaller than wished where the server has not enough to give."""
        refusal: Refused | None = None
        for part in SMALLER:
            smaller = msgspec.structs.replace(settings, max_bytes=settings.max_bytes // part)
            try:
                await bus.ensure_stream(smaller)
            except StreamFull as error:
                refusal = error
                continue
            except (Busy, StreamMissing):
                raise  # nobody leads, or answers, for now
            except Refused as error:
                refusal = error
                break
            if part > 1:
                log.warning(
                    "stream %s holds %d MiB at most: the server has no more storage to give", settings.name, smaller.max_bytes // MIB
                )
            return
        raise ServerUnsuitable(
            f"the server refuses stream {settings.name} of {settings.max_bytes // MIB} MiB: {refusal}; "
            "give it more storage (max_file_store, max_memory_store) or use fewer replicas (MESH_REPLICAS)"
        ) from refusal
