"""A leader's part for children that stay on their parent's worker: each spawn is assigned there, each end is told."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from mesh_sdk.protocol import records
from mesh_sdk.protocol.records import Done, Finished
from tests.worker.leader import Leader


@asynccontextmanager
async def family(leader: Leader, worker: str) -> AsyncIterator[None]:
    """Every child that is spawned is sent to the private lane of `worker`; when it has finished, its parent hears of it."""
    tasks = [asyncio.ensure_future(_assign_each(leader, worker)), asyncio.ensure_future(_tell_each(leader, worker))]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _assign_each(leader: Leader, worker: str) -> None:
    for count in itertools.count(1):
        spawn = await leader.report(records.Spawn, count=count, timeout=50)
        await leader.send(worker, leader.assign(spawn.workflow, json.loads(bytes(spawn.input)), run=spawn.child))


async def _tell_each(leader: Leader, worker: str) -> None:
    for count in itertools.count(1):
        finished = await leader.report(Finished, count=count, timeout=50)
        leader.end(worker, Done(finished.run, records.SUCCEEDED, finished.output))
