"""Sticky children: what the spawn call refuses before anything is written, what the scheduler refuses, and children that move."""

from __future__ import annotations

import asyncio
import itertools
from functools import partial
from typing import Any

import msgspec
import pytest

from mesh.core import records as facts
from mesh_sdk import Mesh, RunNotFound
from mesh_sdk.protocol.records import Spawn
from mesh_sdk.reads import RunInfo
from mesh_sdk.transport.connection import Link
from tests.faults import journal
from tests.faults.fleet import Fleet
from tests.faults.sticky_fleet import ENDED, Seen, Sticky, blocked, released, report, until_true, waiting

NAMES = journal.NAMES
STREAMS = (
    NAMES.events_stream, NAMES.triggers_stream, NAMES.reports_stream, NAMES.journal_stream, NAMES.lanes_stream, NAMES.dead_stream,
)  # fmt: skip
STICKY = {"sticky": True}
QUIET_POLLS = 10
_numbers = itertools.count()


def child_id() -> str:
    """A run id that is free."""
    return f"{0x19A00000000:012x}{next(_numbers):020x}"


async def lasts(bus: Link) -> dict[str, int]:
    """The last sequence of every stream."""
    found = {}
    for name in STREAMS:
        state = await bus.stream_state(name)
        found[name] = state.last if state is not None else 0
    return found


async def quiet(bus: Link) -> dict[str, int]:
    """Until nothing has been written for a while."""
    same, latest = 0, await lasts(bus)
    async with asyncio.timeout(15):
        while same < QUIET_POLLS:
            await asyncio.sleep(0.05)
            now = await lasts(bus)
            same = same + 1 if now == latest else 0
            latest = now
    return latest


async def spawned(sticky: Sticky, run: str, attempt: int = 1) -> Seen:
    """What an attempt of a parent has spawned."""
    (found,) = await sticky.until("the children", lambda: [seen for seen in sticky.seen(run, what="spawned") if seen.attempt == attempt])
    return found


@pytest.mark.timeout(60)
async def test_the_spawn_call_refuses_and_nothing_is_written(fleet: Fleet, bus: Link) -> None:
    sticky = Sticky(fleet)
    here = sticky.start("w0", without="child_hard")
    elsewhere = sticky.start("w1")
    for process in (here, elsewhere):
        fleet.ready(process)
    refused: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
        ("child_free", {}, STICKY),  # declares no strategy
        ("child_hard", {}, STICKY),  # registered on another worker only
        ("nobody", {}, STICKY),  # registered nowhere
        ("child_soft", {}, {"sticky": True, "glue": 1}),  # an option that there is not
    ]
    async with Mesh(url=fleet.server.url) as mesh:
        given = {"children": refused, "first": "spawn", "gate": "go on", "awaits": False}
        parent = await mesh.start("parent_soft", given, sticky_worker="w0")
        await sticky.begins(parent.run_id, worker="w0")
        before = await quiet(bus)
        sticky.open("spawn")
        told = (await spawned(sticky, parent.run_id)).note
        assert await quiet(bus) == before, "nothing was written"
        sticky.open("go on")
        assert await asyncio.wait_for(parent.result(), 10) == {"worker": "w0", "children": []}
    assert told["children"] == []
    kinds = ["StickyChildError"] * 3 + ["SpawnError"]
    assert [told.partition(":")[0] for told in told["refused"]] == kinds
    words = [
        ("parent_soft", "'child_free' declares no sticky strategy", "sticky=StickyStrategy"),
        ("parent_soft", "'child_hard'", "not registered", "'w0'", "workflows="),
        ("parent_soft", "'nobody'", "not registered", "'w0'", "workflows="),
        ("'glue'",),
    ]
    for text, parts in zip(told["refused"], words, strict=True):
        assert all(part in text for part in parts), text


@pytest.mark.timeout(60)
async def test_the_scheduler_refuses_the_same_of_a_report_made_by_hand(fleet: Fleet, bus: Link) -> None:
    sticky = Sticky(fleet)
    here = sticky.start("w0", without="child_hard")
    elsewhere = sticky.start("w1")
    for process in (here, elsewhere):
        fleet.ready(process)
    async with Mesh(url=fleet.server.url) as mesh:
        parent = await mesh.start("parent_soft", {"gate": "go on"}, sticky_worker="w0")
        await spawned(sticky, parent.run_id)
        (out,) = await released(bus, parent.run_id)
        incarnation = next(row.incarnation for row in await mesh.workers.list() if row.id == "w0")
        cases = {"child_free": "declares no sticky strategy", "child_hard": "worker 'w0'", "nobody": "nobody"}
        children = {name: child_id() for name in (*cases, "child_soft")}
        for name, child in children.items():
            spawn = Spawn(out.run, out.step, out.attempt, out.token, f"{name}#0", "d", child, name, msgspec.Raw(b"{}"), True)
            await report(bus, "w0", incarnation, spawn)
        runs = {name: await until_true(name, partial(_over, mesh, child)) for name, child in children.items()}
        stranger = child_id()
        wrong = Spawn(out.run, out.step, out.attempt, "0" * len(out.token), "x#0", "d", stranger, "child_soft", msgspec.Raw(b"{}"), True)
        await report(bus, "w0", incarnation, wrong)
        sticky.open("go on")
        await asyncio.wait_for(parent.result(), 10)
    refused = {record.run: record.error for record in await journal.records(bus) if isinstance(record, facts.RunRefused)}
    for name, told in cases.items():
        run = runs[name]
        assert run is not None
        assert run.status == "failed"
        assert told in str(run.error)
        assert refused[children[name]] == ("UnknownWorkflow" if name == "nobody" else "StickyChildError")
        assert await released(bus, children[name]) == [], "nothing is assigned"
    good = runs["child_soft"]
    assert good is not None
    assert (good.status, good.steps["only"].worker) == ("succeeded", "w0")
    known = {record.run for record in await journal.records(bus) if isinstance(record, facts.RunStarted)}
    assert stranger not in known, "a token that is not the attempt's"


async def _over(mesh: Mesh, run: str) -> RunInfo | None:
    """The run, if it is known by now and has ended."""
    try:
        found = await mesh.runs.get(run)
    except RunNotFound:
        return None
    return found if found.status in ENDED else None


@pytest.mark.timeout(60)
async def test_children_that_wait_move_with_their_soft_parent(fleet: Fleet, bus: Link) -> None:
    """Its worker is killed while they wait for a slot there; they are the same children when the parent runs again.

    The HARD one too: no worker had ever had anything of it.
    """
    sticky = Sticky(fleet)
    bound = sticky.workers(w0=1, w1=2, w2=2)["w0"]
    async with Mesh(url=fleet.server.url) as mesh:
        wanted = ["child_slow", "child_slow", "child_slow", "child_hard"]
        given = {"children": [[name, {"n": n}, STICKY] for n, name in enumerate(wanted)], "gate": "parent"}
        parent = await mesh.start("parent_soft", given, sticky_worker="w0")
        children = (await spawned(sticky, parent.run_id)).note["children"]
        assert len(set(children)) == len(wanted)
        for child in children:
            await waiting(mesh, child, "worker w0")
        await asyncio.to_thread(bound.kill)
        again = await spawned(sticky, parent.run_id, 2)
        assert again.note == {"children": children, "refused": []}, "once per position"
        sticky.open("parent")
        result: Any = await asyncio.wait_for(parent.result(), 15)
        assert [len(await mesh.runs.list(workflow=name)) for name in ("child_slow", "child_hard")] == [3, 1]
    assert again.worker in ("w1", "w2")
    assert result == {"worker": again.worker, "children": [{"worker": again.worker}] * len(wanted)}
    for child in children:
        (begun,) = sticky.begun(child)
        assert begun.worker == again.worker
        assert begun.attempt == 1, "it had waited: nothing was lost"
    journal.check_once(await journal.records(bus))


@pytest.mark.timeout(60)
async def test_a_worker_that_comes_back_without_the_childs_action(fleet: Fleet, bus: Link) -> None:
    """SOFT is placed anew; HARD waits, and its time runs out."""
    sticky = Sticky(fleet)
    bound = sticky.workers(w0=2, w1=4)["w0"]
    async with Mesh(url=fleet.server.url) as mesh:
        await blocked(sticky, mesh, "w0", 1, "blocker")
        given = {"children": [["child_slow", {}, STICKY], ["child_brief", {}, STICKY]], "gate": "parent", "awaits": False}
        parent = await mesh.start("parent_hard", given, sticky_worker="w0")
        soft, brief = (await spawned(sticky, parent.run_id)).note["children"]
        for child in (soft, brief):
            await waiting(mesh, child, "worker w0")
        await asyncio.to_thread(bound.kill)
        back = await asyncio.to_thread(sticky.start, "w0", 2, "child_slow,child_brief")
        await asyncio.to_thread(fleet.ready, back)
        sticky.open("blocker", "parent")
        assert (await sticky.begins(soft)).worker == "w1"
        await _times_out(mesh, brief, "worker w0")
    await _never_sent(bus, brief)
    assert {seen.worker for seen in sticky.seen(soft)} == {"w1"}
    assert not sticky.seen(brief)


@pytest.mark.timeout(60)
async def test_the_same_incarnation_registers_anew_without_the_childs_action(fleet: Fleet, bus: Link) -> None:
    """The children were validated and wait for a slot when it does; the record is made by hand."""
    sticky = Sticky(fleet)
    sticky.workers(w0=1, w1=4)
    async with Mesh(url=fleet.server.url) as mesh:
        given = {"children": [["child_slow", {}, STICKY], ["child_brief", {}, STICKY]], "gate": "parent", "awaits": False}
        parent = await mesh.start("parent_hard", given, sticky_worker="w0")
        soft, brief = (await spawned(sticky, parent.run_id)).note["children"]
        for child in (soft, brief):
            await waiting(mesh, child, "worker w0")
        incarnation, record = await _registration(bus, "w0", ("child_slow", "child_brief"))
        await report(bus, "w0", incarnation, record)
        assert (await sticky.begins(soft)).worker == "w1"
        await waiting(mesh, brief, "worker w0 does not register child_brief:only")
        sticky.open("parent")
        await asyncio.wait_for(parent.result(), 10)
        await _times_out(mesh, brief, "worker w0 does not register child_brief:only")
    await _never_sent(bus, brief)
    assert [out.worker for out in await released(bus, soft)] == ["w1"]


async def _times_out(mesh: Mesh, run: str, told: str) -> None:
    async with asyncio.timeout(15):
        while (info := await mesh.runs.get(run)).status != "timed_out":
            assert info.status == "waiting", info
            await asyncio.sleep(0.02)
    assert "schedule timeout" in str(info.error)
    assert told in str(info.error)


async def _never_sent(bus: Link, run: str) -> None:
    """Nothing of the run went to any worker, and no worker had to say that it does not know an action."""
    assert await released(bus, run) == []
    assert not any(_unknown(record) for record in await journal.records(bus))


def _unknown(record: facts.Fact) -> bool:
    return isinstance(record, facts.StepFailed) and record.error.type == "WorkerLost" and "does not know" in record.error.message


async def _registration(bus: Link, worker: str, without: tuple[str, ...]) -> tuple[str, list[Any]]:
    """The worker's incarnation, and what it registered, less some workflows."""
    found = await journal.records(bus)
    known = [record for record in found if isinstance(record, facts.WorkerRegistered) and record.worker == worker][-1]
    definitions = {record.definition.digest: record.definition for record in found if isinstance(record, facts.WorkflowDefined)}
    kept = [definitions[digest] for name, digest in known.workflows if name not in without]
    return known.incarnation, ["register", known.name, known.slots, kept, known.labels, known.client, known.host, known.pid]
