"""The consumers of the pools' shared lanes: one durable each, deleted when the pool's last worker has gone."""

from __future__ import annotations

from collections.abc import Iterable

from mesh_sdk.protocol.subjects import Subjects
from mesh_sdk.transport.bus import Bus

ACK_WAIT_S = 1.0
"""A lane message that nobody has answered for this long goes to another worker, which hands it back."""


class PoolConsumers:
    """Knows which consumers are there."""

    def __init__(self, bus: Bus, subjects: Subjects) -> None:
        self._bus = bus
        self._subjects = subjects
        self._there: set[str] | None = None
        """None: not looked yet; an older leader may have left consumers of pools that are gone."""

    async def follow(self, pools: Iterable[str], fence: int) -> None:
        """Have a consumer for each of these pools, and no other.

        Args:
            pools: those that have workers now.
            fence: a sequence of the lanes as of now; what comes after it may be for a pool that has come back meanwhile.
        """
        names, stream = self._subjects, self._subjects.lanes_stream
        wanted = list(pools)
        if self._there is None:
            self._there = set(map(names.consumer_pool, await self._bus.consumers(stream))) - {""}
        for pool in sorted(self._there.difference(wanted)):
            await self._bus.delete_consumer(stream, names.pool_consumer(pool))
            await self._bus.purge(stream, subject=names.shared_lane(pool), before=fence + 1)
            self._there.discard(pool)
        for pool in wanted:
            if pool not in self._there:
                await self._bus.ensure_consumer(
                    stream, names.pool_consumer(pool), names.shared_lane(pool), ack_wait_s=ACK_WAIT_S, memory=True
                )
                self._there.add(pool)

    def forget(self) -> None:
        """The stream was lost, and its consumers with it."""
        self._there = set()
