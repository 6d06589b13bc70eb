"""`mesh.runs`, `mesh.workers`, `mesh.workflows`: what is asked, and what answers become."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from mesh_sdk import InvalidInput, Mesh, MeshError, RunNotFound, UnknownWorkflow
from tests.sdk.scheduler import Scheduler

RUN = {
    "run_id": "0" * 32,
    "workflow": "echo",
    "status": "succeeded",
    "started_at": "2025-01-31T10:00:00.123Z",
    "finished_at": "2025-01-31T10:00:01Z",
    "steps": {"echo": {"status": "succeeded", "worker": "w-1", "attempt": 2, "output": {"a": [1]}, "traceback": "Traceback …"}},
    "waiting": None,
    "metadata": {"tenant": "a"},
    "priority": 3,
    "input": {"x": 1},
    "output": {"a": [1]},
    "something new": 1,
}


async def test_a_run_is_read(mesh: Mesh, scheduler: Scheduler):
    scheduler.answers["runs.get"] = lambda body: {"ok": {**RUN, "run_id": body["run_id"]}}
    run = await mesh.runs.get("1" * 32)
    assert (run.run_id, run.status, run.priority, run.parent_run_id) == ("1" * 32, "succeeded", 3, "")
    assert run.started_at == datetime(2025, 1, 31, 10, 0, 0, 123_000, tzinfo=UTC)
    step = run.steps["echo"]
    assert (step.worker, step.attempt, step.output, step.error, step.started_at) == ("w-1", 2, {"a": [1]}, None, None)
    assert step.traceback == "Traceback …"
    assert await mesh.ref("1" * 32).status() == "succeeded"


async def test_what_a_run_waits_for_is_told_in_words_and_in_parts(mesh: Mesh, scheduler: Scheduler):
    text = "waiting: worker w-1 is away (since 2025-01-31T10:00:00.000Z, moves to another worker at 2025-01-31T10:00:05.000Z)"
    wait = {"kind": "worker", "cause": "worker w-1 is away", "step": "b", "worker": "w-1", "then": "moves to another worker"}
    times = {"since": "2025-01-31T10:00:00Z", "until": "2025-01-31T10:00:05Z"}
    sticky = {"sticky": "SOFT", "worker": "w-1", "moves": 2}
    scheduler.answers["runs.get"] = lambda body: {"ok": {**RUN, **sticky, "status": "waiting", "waiting": text, "wait": wait | times}}
    run = await mesh.runs.get("1" * 32)
    assert "w-1" in str(run.waiting)
    assert (run.sticky, run.worker, run.moves) == ("SOFT", "w-1", 2)
    assert run.wait is not None
    assert (run.wait.kind, run.wait.worker, run.wait.step, run.wait.then) == ("worker", "w-1", "b", "moves to another worker")
    assert (run.wait.since, run.wait.until) == (datetime(2025, 1, 31, 10, tzinfo=UTC), datetime(2025, 1, 31, 10, 0, 5, tzinfo=UTC))
    scheduler.answers["runs.get"] = lambda body: {"ok": RUN}
    run = await mesh.runs.get("1" * 32)
    assert (run.wait, run.sticky, run.worker, run.moves) == (None, "", None, 0)


async def test_runs_are_listed_by_pages(mesh: Mesh, scheduler: Scheduler):
    scheduler.answers["runs.list"] = lambda body: {"ok": {"runs": [RUN, RUN], "next": "cursor"}}
    since = datetime(2025, 1, 31, 11, tzinfo=timezone(timedelta(hours=1)))
    page = await mesh.runs.list(workflow="echo", status="failed", metadata={"a": "b"}, since=since, limit=2)
    assert (len(page), page.next, page[0].workflow, [run.status for run in page]) == (2, "cursor", "echo", ["succeeded"] * 2)
    [(_, body)] = scheduler.calls
    assert body == {
        "workflow": "echo",
        "status": "failed",
        "metadata": {"a": "b"},
        "worker": None,
        "since": "2025-01-31T10:00:00Z",
        "until": None,
        "limit": 2,
        "after": None,
    }


@pytest.mark.parametrize(("filters", "said"), [({"status": "done"}, "'done'"), ({"limit": 0}, "0"), ({"limit": 5_000}, "5000")])
async def test_a_filter_that_cannot_be_is_refused(mesh: Mesh, filters: dict, said: str):
    with pytest.raises(InvalidInput, match=said):
        await mesh.runs.list(**filters)


async def test_errors_of_the_leader_are_raised(mesh: Mesh, scheduler: Scheduler):
    with pytest.raises(RunNotFound):
        await mesh.runs.get("nope")
    scheduler.answers["workflows.get"] = lambda body: {"error": {"type": "UnknownWorkflow", "message": "no nope"}}
    with pytest.raises(UnknownWorkflow, match="no nope"):
        await mesh.workflows.get("nope")
    scheduler.answers["workers.list"] = lambda body: {"ok": {"id": 3}}
    with pytest.raises(MeshError, match=r"answer to workers\.list can't be read"):
        await mesh.workers.list()
    with pytest.raises(MeshError, match="not supported by this version yet"):
        await mesh.runs.replay("nope")


async def test_workers_and_workflows_are_listed(mesh: Mesh, scheduler: Scheduler):
    worker = {"id": "w-1", "name": "n", "pool": "p", "slots": 5, "used": 2, "running": 1, "reserved": 1, "bound": 3, "actions": ["a:b"]}
    scheduler.answers["workers.list"] = lambda body: {"ok": [{**worker, "labels": {"gpu": "a100", "size": 3}, "state": "ready"}]}
    [found] = await mesh.workers.list()
    assert (found.id, found.slots, found.used, found.bound, found.labels) == ("w-1", 5, 2, 3, {"gpu": "a100", "size": 3})
    scheduler.answers["workflows.list"] = lambda body: {"ok": [{"name": "w", "steps": [{"name": "b", "parents": ["a"]}]}]}
    [workflow] = await mesh.workflows.list()
    assert workflow.steps[0].parents == ["a"]
