"""Which worker: required labels, weights between two, and sticky runs that stay where their labels are; a leader is killed amid it."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from pathlib import Path
from typing import Any

from mesh_sdk import Mesh, WorkerLabel
from mesh_sdk.refs import RunRef
from tests.faults.fleet import Fleet
from tests.faults.flow_fleet import Flow, Show

WORKERS: dict[str, dict[str, str]] = {
    "w0": {"zone": "north", "size": "big"},
    "w1": {"zone": "east", "disk": "ssd"},
    "w2": {"zone": "south", "disk": "ssd"},
    "w3": {"zone": "near"},
}
SLOTS = 4
SEED = 6


async def affinity(folder: Path, runs: int = 200, others: int = 40) -> Show:
    """Runs with required labels each on its own; weights; sticky runs with labels."""
    show = Show(f"affinity: 4 workers, {runs} runs with a required label, {others} by weight, {others} sticky with a required label")
    with Fleet(folder) as fleet:
        flow = Flow(fleet)
        for process in [flow.start(id, SLOTS, **labels) for id, labels in WORKERS.items()]:
            fleet.ready(process)
        async with Mesh(url=fleet.server.url) as mesh:
            await _required(show, flow, mesh, runs)
            await _weighed(show, flow, mesh, others)
            await _bound(show, flow, mesh, others)
    return show


async def _start(mesh: Mesh, worker: str, **input: Any) -> RunRef[str]:
    """A run that requires what only this worker has."""
    wanted = {"zone": WorkerLabel(WORKERS[worker]["zone"], required=True)}
    return await mesh.start("in_order", {"ms": 5, **input}, desired_worker_labels=wanted)


async def _required(show: Show, flow: Flow, mesh: Mesh, runs: int) -> None:
    order = [*WORKERS] * (runs // len(WORKERS))
    random.Random(SEED).shuffle(order)
    refs = []
    for number, worker in enumerate(order):
        if number == runs // 2:
            await flow.kill_leader()
        refs.append((worker, await _start(mesh, worker)))
    where = Counter([(worker, await ref.result()) for worker, ref in refs])
    show.tell(f"{'required':<22}" + "".join(f"{worker:>6}" for worker in WORKERS))
    for worker, labels in WORKERS.items():
        show.tell(f"{'zone = ' + labels['zone']:<22}" + "".join(f"{where[worker, other]:>6}" for other in WORKERS))
    own = sum(count for (wanted, got), count in where.items() if wanted == got)
    show.claim(own == len(refs), f"{own} of {len(refs)} on the worker that has their label, the leader killed after the first half")


async def _weighed(show: Show, flow: Flow, mesh: Mesh, runs: int) -> None:
    """`choosy` wants size = big with weight 10, which w0 has, and zone = near with weight 1, which w3 has."""
    alone = Counter([await mesh.run("choosy", {"ms": 1}) for _ in range(runs)])
    full = [await _start(mesh, "w0", gate="full") for _ in range(SLOTS)]
    for ref in full:
        await flow.begins(ref.run_id, worker="w0")
    second = Counter([await mesh.run("choosy", {"ms": 1}) for _ in range(runs)])
    flow.open("full")
    await asyncio.gather(*[ref.result() for ref in full])
    for name, found in (("weights 10 and 1", alone), ("… with the first full", second)):
        show.tell(f"{name:<22}" + "".join(f"{found[worker]:>6}" for worker in WORKERS))
    show.claim(alone == {"w0": runs}, "the worker whose labels weigh most, one run after the other")
    show.claim(second == {"w3": runs}, "the next best when that one is full")


async def _bound(show: Show, flow: Flow, mesh: Mesh, runs: int) -> None:
    refs = [await mesh.start("bound", {"ms": 5}) for _ in range(runs // 2)]
    await flow.kill_leader()
    refs += [await mesh.start("bound", {"ms": 5}) for _ in range(runs - len(refs))]
    await asyncio.gather(*[ref.result() for ref in refs])
    homes: list[str] = []
    astray = []
    for ref in refs:
        begun = flow.begun(ref.run_id)
        homes.append(begun[0].worker)
        if len({seen.worker for seen in begun}) > 1 or [seen.step for seen in begun] != ["a", "b", "c"]:
            astray.append([f"{seen.step} on {seen.worker}" for seen in begun])
    found = Counter(homes)
    show.tell(f"{'sticky, disk = ssd':<22}" + "".join(f"{found[worker]:>6}" for worker in WORKERS))
    show.claim(not astray, f"each of {runs} sticky runs of three steps on one worker {astray[:2] or ''}")
    show.claim(found.keys() <= {"w1", "w2"}, "on one that has what their second step requires, from the first step on")
