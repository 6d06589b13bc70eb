"""The consumers of the pools' shared lanes: one durable each, deleted when the pool's last worker has gone.

Rule: a consumer that is made delivers all that its lane holds as if nobody had seen it, so a lane without one holds nothing
that anybody has seen. Whatever takes a consumer away empties the lane before.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection

from mesh_sdk.protocol.subjects import Subjects
from mesh_sdk.transport.bus import Bus

ACK_WAIT_S = 1.0
"""A lane message that nobody has answered for this long goes to another worker, which hands it back."""


class PoolConsumers:
    """Knows which consumers are there. Pools are passed as they are at any moment: they come and go meanwhile."""

    def __init__(self, bus: Bus, subjects: Subjects) -> None:
        self._bus = bus
        self._subjects = subjects
        self._there: set[str] = set()
        self._fence = 0
        self._turn = asyncio.Lock()
        """One at a time: a consumer is not deleted for whoever saw its pool gone while somebody makes it anew."""

    async def take_over(self, pools: Collection[str], fence: int) -> set[str]:
        """See which consumers these lanes have, and have one for each pool.

        Args:
            pools: those that have workers.
            fence: the sequence of the fence that was just taken. What lies before it in the lane of a pool without a
                consumer is removed: who has seen it can't be told.

        Returns:
            Those that had none.
        """
        async with self._turn:
            self._fence = fence
            self._there = set(map(self._subjects.consumer_pool, await self._bus.consumers(self._subjects.lanes_stream))) - {""}
            missing = set(pools) - self._there
            await self._make(pools)
            return missing

    async def have(self, pools: Collection[str]) -> None:
        """Have a consumer for each of these pools."""
        async with self._turn:
            await self._make(pools)

    async def _make(self, pools: Collection[str]) -> None:
        names, stream = self._subjects, self._subjects.lanes_stream
        for pool in sorted(set(pools) - self._there):
            await self._bus.purge(stream, subject=names.shared_lane(pool), before=self._fence + 1)
            await self._bus.ensure_consumer(stream, names.pool_consumer(pool), names.shared_lane(pool), ack_wait_s=ACK_WAIT_S, memory=True)
            self._there.add(pool)

    async def missing(self) -> set[str]:
        """Pools whose consumers were made and are not there."""
        async with self._turn:
            return self._there - set(map(self._subjects.consumer_pool, await self._bus.consumers(self._subjects.lanes_stream)))

    async def drop(self, pools: Collection[str], written: Callable[[], Awaitable[int | None]]) -> None:
        """Delete the consumers of pools that have no workers any more.

        Args:
            pools: those that have.
            written: waits until what was to be written by now is; the lanes' last sequence then, None when it can't be told.
                Without it consumers stay: they do no harm, and the next worker that registers has this tried again.
        """
        names, stream = self._subjects, self._subjects.lanes_stream
        async with self._turn:
            gone = sorted(self._there.difference(pools))
            if not gone or (last := await written()) is None:
                return
            for pool in gone:
                if pool not in pools:
                    await self._bus.purge(stream, subject=names.shared_lane(pool), before=last + 1)
                if pool not in pools:  # not even by now: what it is given from here on is stored after its consumer is gone
                    self._there.discard(pool)  # also when the answer is lost: it is made again, if it's there or not
                    await self._bus.delete_consumer(stream, names.pool_consumer(pool))
