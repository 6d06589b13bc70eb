"""Sticky runs of both kinds with priorities, retries, timeouts and few slots, while a worker and the leader are killed."""

from __future__ import annotations

import asyncio
import random
import time
from itertools import pairwise
from typing import Any

import pytest

from mesh.core import records as facts
from mesh_sdk import Mesh
from mesh_sdk.reads import RunInfo
from mesh_sdk.refs import RunRef
from mesh_sdk.transport.connection import Link
from tests.faults import journal
from tests.faults.fleet import SCHEDULER, Fleet
from tests.faults.sticky_fleet import Span, Sticky, blocked, waiting

RUNS = 48
SLOTS = 2
WITHIN_S = 45.0
SEED = 20
OUTCOMES = {"well": "succeeded", "uneven": "succeeded", "retried": "succeeded", "broken": "failed", "late": "timed_out"}


def wish(kind: str) -> dict[str, Any]:
    """Input of a run that is to end in this way; retries are 2, the timeout 700 ms."""
    wishes: dict[str, dict[str, Any]] = {
        "well": {"ms": 60},
        "uneven": {"ms": {"left": 500, "right": 40}},
        "retried": {"ms": 40, "fails": {"left": 1, "join": 2}},
        "broken": {"ms": 20, "fails": {"right": 9}},
        "late": {"ms": 20, "gates": {"join": "never"}},
    }
    return wishes[kind]


@pytest.mark.timeout(90)
async def test_everything_together(fleet: Fleet, bus: Link) -> None:
    sticky = Sticky(fleet)
    leader, standby = sticky.scheduler, fleet.start(SCHEDULER)
    workers = sticky.workers(w0=SLOTS, w1=SLOTS, w2=SLOTS)
    fleet.ready(standby)
    chance = random.Random(SEED)
    async with Mesh(url=fleet.server.url) as mesh, asyncio.timeout(WITHIN_S):
        order = await _waited_together(sticky, mesh)
        assert order == sorted(order, reverse=True), "high priority before low"
        kinds = [chance.choice(list(OUTCOMES)) for _ in range(RUNS)]
        refs = [
            await mesh.start(("soft_mixed", "hard_mixed")[n % 2], wish(kind), priority=chance.randint(1, 9)) for n, kind in enumerate(kinds)
        ]
        loaded = asyncio.gather(*[mesh.run("busy", {"ms": 50}) for _ in range(RUNS)])
        await _some_ended(mesh, refs, RUNS // 6)
        killed = {workers["w1"].pid: time.monotonic()}
        await asyncio.to_thread(workers["w1"].kill)
        back = sticky.start("w1", SLOTS)
        await _some_ended(mesh, refs, RUNS // 3)
        await asyncio.to_thread(leader.kill)
        await asyncio.to_thread(fleet.ready, back)
        await _some_ended(mesh, refs, RUNS)
        await loaded
        infos = [await mesh.runs.get(ref.run_id) for ref in refs]
    for info, kind in zip(infos, kinds, strict=True):
        assert info.status == OUTCOMES[kind], (kind, info)
    _check_retries(infos, kinds)
    spans = sticky.spans(killed)
    for ref in refs:
        _check_places([span for span in spans if span.begin.run == ref.run_id])
    found = await journal.records(bus)
    journal.check_once(found)
    assert sum(isinstance(record, facts.TermStarted) for record in found) >= 2, "another leader took over"


async def _waited_together(sticky: Sticky, mesh: Mesh) -> list[int]:
    """Priorities of runs that wait for the same worker, in the order in which it began them."""
    await blocked(sticky, mesh, "w0", SLOTS, "together", priority=9)
    refs = {}
    for n, priority in enumerate((1, 9, 5, 2, 8, 3)):
        workflow = ("hard_mixed", "soft_chain")[n == 2]
        refs[priority] = await mesh.start(workflow, {"ms": 60}, sticky_worker="w0", priority=priority)
    for ref in refs.values():
        await waiting(mesh, ref.run_id, "worker w0")
    sticky.open("together")
    for ref in refs.values():
        await ref.result()
    first = {priority: sticky.begun(ref.run_id)[0] for priority, ref in refs.items() if priority != 5}
    assert {seen.worker for seen in first.values()} == {"w0"}
    return [priority for priority, seen in sorted(first.items(), key=lambda item: item[1].at)]


async def _some_ended(mesh: Mesh, refs: list[RunRef[Any]], count: int) -> None:
    """Until so many of the runs have ended."""
    ids = {ref.run_id for ref in refs}
    while True:
        page = await mesh.runs.list(limit=1_000)
        if sum(info.run_id in ids and info.finished_at is not None for info in page) >= count:
            return
        await asyncio.sleep(0.05)


def _check_retries(infos: list[RunInfo], kinds: list[str]) -> None:
    """A run that is tried again used the tries that it was told to fail, and no more were counted."""
    for info, kind in zip(infos, kinds, strict=True):
        if kind == "retried":
            assert info.steps["left"].attempt >= 2
            assert info.steps["join"].attempt >= 3


def _check_places(spans: list[Span]) -> None:
    """HARD is on one worker id; no run has steps live on two workers at once."""
    assert spans
    workers = {span.begin.worker for span in spans}
    if spans[0].begin.workflow == "hard_mixed":
        assert len(workers) == 1
    for worker in workers:
        here = [span for span in spans if span.begin.worker == worker]
        for other in (span for span in spans if span.begin.worker != worker):
            assert not any(span.begin.at < other.until and other.begin.at < span.until for span in here), (here, other)
    for retries in [span.begin.retries for span in spans]:
        assert retries <= 2
    for one, next_one in pairwise(sorted(spans, key=lambda span: span.begin.at)):
        if one.begin.worker != next_one.begin.worker:
            assert next_one.begin.moved
