"""The slot ledger under load: what `workers.list` shows adds up at every moment."""

from __future__ import annotations

import asyncio
import itertools
import json
import time

from mesh_sdk import Mesh
from mesh_sdk.protocol.subjects import Subjects
from mesh_sdk.reads import WorkerInfo
from mesh_sdk.transport.connection import Link
from tests.faults.fleet import Fleet

NAMES = Subjects()
SLOTS = {"w-0": 4, "w-1": 7, "w-2": 10}
LOADED_S = 3.0
SAMPLES_PER_S = 20
WITHIN_S = 10.0
MIRRORED_S = 2.0


async def test_slots_add_up_in_every_sample(fleet: Fleet, bus: Link) -> None:
    fleet.scheduler()
    for id, slots in SLOTS.items():
        fleet.worker(id, slots)
    async with Mesh(url=fleet.server.url) as mesh:
        loaded = asyncio.create_task(_load(mesh))
        samples: list[list[WorkerInfo]] = []
        began = time.monotonic()
        while time.monotonic() - began < LOADED_S:
            due = began + (len(samples) + 1) / (2 * SAMPLES_PER_S)
            samples.append(list(await mesh.workers.list()))
            await asyncio.sleep(max(0.0, due - time.monotonic()))
        assert len(samples) >= SAMPLES_PER_S * LOADED_S
        for sample in samples:
            assert {row.id: row.slots for row in sample} == SLOTS
            assert all(0 <= row.used <= row.slots for row in sample), sample
            assert len({row.pool for row in sample}) == 1
        assert max(sum(row.used for row in sample) for sample in samples) > sum(SLOTS.values()) // 2, "it was loaded"
        await loaded
        await _idle(mesh)
        async with asyncio.timeout(MIRRORED_S):
            while await _mirrored(bus) != {id: (slots, 0) for id, slots in SLOTS.items()}:
                await asyncio.sleep(0.02)

        # Steps that stand still: the ledger, the workers' own count and the bucket say the same.
        refs = [await mesh.start("slow", {"ms": 2_000}) for _ in range(12)]
        async with asyncio.timeout(WITHIN_S):
            while True:
                rows = await mesh.workers.list()
                if sum(row.used for row in rows) == 12 and all(row.used == row.running for row in rows):
                    break
                await asyncio.sleep(0.05)
            while await _mirrored(bus) != {row.id: (row.slots, row.used) for row in rows}:
                await asyncio.sleep(0.05)
        for ref in refs:
            await ref.result()
        await _idle(mesh)


async def _load(mesh: Mesh) -> None:
    numbers = itertools.count()
    until = time.monotonic() + LOADED_S

    async def work() -> None:
        while time.monotonic() < until:
            n = next(numbers)
            match n % 4:
                case 0:
                    await mesh.run("parent", {"children": 3})
                case 1:
                    await mesh.run("Chain", {"n": n, "ms": 150})
                case 2:
                    await mesh.run("slow_sync", {"ms": 200})
                case _:
                    await mesh.run("once", {"n": n})

    await asyncio.gather(*[work() for _ in range(40)])


async def _idle(mesh: Mesh) -> None:
    """Nothing is in flight: nothing is used, by either count."""
    async with asyncio.timeout(WITHIN_S):
        while any(row.used or row.running for row in await mesh.workers.list()):
            await asyncio.sleep(0.05)


async def _mirrored(bus: Link) -> dict[str, tuple[int, int]]:
    """Total and used of each worker, as the slots bucket has them."""
    entries = await bus.bucket(NAMES.slots_bucket).entries()
    rows = {id: json.loads(value) for id, (value, _) in entries.items()}
    return {id: (row["total"], row["used"]) for id, row in rows.items()}
