"""Workers of one slot, and sticky children whose parents await them there: all of them end, and no slot is ever given twice."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest

from mesh_sdk import Mesh
from mesh_sdk.transport.connection import Link
from tests.faults import journal
from tests.faults.fleet import Fleet
from tests.faults.sticky_fleet import Seen, Sticky

NAMES = journal.NAMES
STICKY = {"sticky": True}
SAMPLE_S = 0.01
SAMPLES_PER_S = 20
GENERATIONS = [("parent_soft", "child_soft"), ("parent_soft", "child_hard"), ("parent_hard", "child_soft"), ("parent_hard", "child_hard")]
ROUNDS = 5


def nested(parent: str, child: str) -> dict[str, Any]:
    """A parent that awaits two children, one of which awaits one of its own."""
    inner = {"children": [[child, {"ms": 30}, STICKY]]}
    return {"children": [[parent, inner, STICKY], [child, {"ms": 30}, STICKY]]}


@pytest.mark.timeout(60)
async def test_parents_of_sticky_children_on_workers_of_one_slot_end(fleet: Fleet, bus: Link) -> None:
    """Async ones lend their slot; a sync one keeps it, so its wait is refused, and its child runs there when it has ended."""
    sticky = Sticky(fleet)
    sticky.workers(w0=1, w1=1, w2=1)
    samples: list[dict[str, tuple[int, int]]] = []
    async with Mesh(url=fleet.server.url) as mesh, asyncio.timeout(45):
        began = time.monotonic()
        sampling = asyncio.create_task(_sample(mesh, bus, samples))
        sync = await mesh.start("parent_sync", {"child": "child_hard"}, sticky_worker="w2")
        await sticky.begins(sync.run_id, worker="w2")
        runs = [mesh.run(parent, nested(parent, child)) for parent, child in GENERATIONS for _ in range(ROUNDS)]
        runs += [mesh.run("busy", {"ms": 30}) for _ in range(10 * ROUNDS)]
        results: list[Any] = await asyncio.gather(*runs)
        said = str(await sync.result())
        (end,) = sticky.seen(sync.run_id, what="end")
        assert (await sticky.begins(end.note)).worker == "w2"
        alone = await mesh.start("parent_hard", nested("parent_hard", "child_hard"), sticky_worker="w0")
        assert _places(await alone.result()) == {"w0"}
        took = time.monotonic() - began
        sampling.cancel()
    assert said.startswith("SpawnError: "), said
    assert "child_hard" in said
    assert "slot" in said
    for result in results[: ROUNDS * len(GENERATIONS)]:
        assert _places(result) <= {"w0", "w1", "w2"}
        assert len(result["children"]) == 2
    hard = results[3 * ROUNDS : 4 * ROUNDS]
    assert all(len(_places(result)) == 1 for result in hard), "where all are HARD, all are where the first one was bound"
    print(f"{len(samples)} samples in {took:.1f} s")
    assert len(samples) >= SAMPLES_PER_S * took
    over = [sample for sample in samples if any(used > slots for used, slots in sample.values())]
    assert not over, over[:3]
    assert _most_at_once(sticky.seen()) == {"w0": 1, "w1": 1, "w2": 1}, "by the steps' own clocks"
    journal.check_once(await journal.records(bus))


async def _sample(mesh: Mesh, bus: Link, samples: list[dict[str, tuple[int, int]]]) -> None:
    """What the ledger says, what its mirror in the bucket says, and what the workers count themselves: (in use, slots)."""
    bucket = bus.bucket(NAMES.slots_bucket)
    while True:
        sample = {}
        for row in await mesh.workers.list():
            sample[f"ledger {row.id}"] = (row.used, row.slots)
            sample[f"worker {row.id}"] = (row.running, row.slots)
        for id, (value, _) in (await bucket.entries()).items():
            told = json.loads(value)
            sample[f"bucket {id}"] = (told["used"], told["total"])
        samples.append(sample)
        await asyncio.sleep(SAMPLE_S)


def _places(result: dict[str, Any]) -> set[str]:
    """Every worker that a step of the run, or of its children, was on."""
    return {result["worker"]}.union(*[_places(child) for child in result.get("children", [])])


def _most_at_once(seen: list[Seen]) -> dict[str, int]:
    """How many steps at most were neither over nor waiting for children, at the same moment on the same worker."""
    steps = {"begin": 1, "resumes": 1, "awaits": -1, "end": -1, "fail": -1}
    now: dict[str, int] = {}
    most: dict[str, int] = {}
    for one in seen:
        now[one.worker] = now.get(one.worker, 0) + steps.get(one.what, 0)
        most[one.worker] = max(most.get(one.worker, 0), now[one.worker])
    return most
