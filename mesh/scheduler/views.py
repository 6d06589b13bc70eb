"""What readers see of the state: runs, workers, workflows, as JSON values."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from heapq import nsmallest
from typing import Any

from msgspec import Raw, Struct

from mesh.core.core import Core
from mesh.core.graph import Flow
from mesh.core.reach import Reaches, reach_of, state_of
from mesh.core.run import LIVE, Run
from mesh.core.slots import Worker
from mesh.core.step import BROKEN, DELAYED, DONE, HELD, OUT, READY, SKIPPED, Step
from mesh.core.waiting import Wait, admission, has_begun, waiting_for
from mesh.scheduler.listing import Listing
from mesh.scheduler.whole import Whole
from mesh_sdk.protocol.records import CANCELLED, FAILED, NULL, QUEUED, RUNNING, SUCCEEDED, WAITING

LYING_MS = 1_000
"""A worker that runs a step says so within 50 ms; after so long it is sure enough that the assignment waits there."""
NAMED_MAX = 6
"""How many other workers are named to whoever has named one that won't do."""

SLOTS = "slots"
"""What a run may wait for and be merely queued."""

_STEP_STATUS = {READY: QUEUED, DELAYED: WAITING, OUT: RUNNING, HELD: RUNNING, DONE: SUCCEEDED, BROKEN: FAILED, SKIPPED: CANCELLED}


class RunQuery(Struct):
    """What `runs.list` asks for."""

    workflow: str | None = None
    status: str | None = None
    metadata: dict[str, str] | None = None
    worker: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    limit: int = 100
    after: str | None = None


class Views:
    """Looks at one core's state.

    Args:
        core: whose state it is.
        running: a worker's own count of used slots, by its id.
        now_ms: core time.
    """

    def __init__(self, core: Core, running: Callable[[str], int | None], now_ms: Callable[[], int]) -> None:
        self._now_ms = now_ms
        self._core = core
        self._state = core.state
        self._running = running
        self._reaches: Reaches = {}
        """Found at this look: of 100,000 runs that want the same, one costs a look at all workers."""

    def run(self, id: str) -> dict[str, Any] | None:
        """One run."""
        self._reaches.clear()
        run = self._state.find(id)
        return self._run(run, self._step_in_full) if run is not None else None

    def runs(self, query: RunQuery, max_payload: int) -> Listing:
        """Begin a page of runs, newest first, of at most so many bytes."""
        return Listing(self._state, query, self._status, self._listed, max_payload, self._reaches)

    def _listed(self, run: Run) -> dict[str, Any]:
        return self._run(run, self._step)

    def _status(self, run: Run) -> str:
        if run.status != LIVE:
            return run.status
        if run.start_at:
            return WAITING
        if not has_begun(run):
            return WAITING
        states = {step.state for step in run.steps if not step.is_key}
        if HELD in states or any(step.state is OUT and not self._lies(step) for step in run.steps):
            return RUNNING
        if states & {OUT, DELAYED} or any(step.state is READY and not self._wants_slot(step) for step in run.steps):
            return WAITING
        return RUNNING if DONE in states else QUEUED

    def _wants_slot(self, step: Step) -> bool:
        """Whether all that a ready step waits for is a free slot, of any worker."""
        return not (step.parked or step.run.worker) and reach_of(self._state, step, self._reaches).kind == SLOTS

    def _lies(self, step: Step) -> bool:
        """The step's assignment lies in its worker's lane: one that had begun would have been reported."""
        return bool(step.state is OUT and step.run.flow.sticky and self._now_ms() - step.started_at > LYING_MS)

    def _wait(self, run: Run) -> tuple[str | None, dict[str, Any] | None]:
        """What the run waits for: in words, and in its parts."""
        if run.status != LIVE:
            return None, None
        if run.start_at:
            text = f"waiting: starts at {_time(run.start_at)}"
            return text, _parts("delay", "its start is delayed", run.started_at, run.start_at, "starts")
        first = admission(self._state, run, self._reaches)
        if first is not None:
            return _in_words(first), _parts(first.kind, first.cause, first.since, first.until, first.then, worker=first.worker)
        step = self._first_waiting(run)
        if step is None:
            return None, None
        if step.state is DELAYED:
            text = f"waiting: step {step.name} is tried again at {_time(step.again_at)}"
            return text, _parts("retry", "it is tried again", step.finished_at, step.again_at, "tried again", step.name)
        wait = waiting_for(self._state, step, self._reaches)
        return _in_words(wait), _parts(wait.kind, wait.cause, wait.since, wait.until, wait.then, step.name, wait.worker)

    def _first_waiting(self, run: Run) -> Step | None:
        """The step that tells what its run waits for: one that waits for no more than a slot only where there is no other."""
        waiting = [step for step in run.steps if step.state in (READY, DELAYED) or self._lies(step)]
        more = (step for step in waiting if step.state is not READY or not self._wants_slot(step))
        return next(more, waiting[0] if waiting else None)

    def _run(self, run: Run, told: Callable[[Step], dict[str, Any]]) -> dict[str, Any]:
        waiting, wait = self._wait(run)
        return {
            "run_id": run.id,
            "workflow": run.flow.name,
            "status": self._status(run),
            "started_at": _time(run.started_at),
            "finished_at": _time(run.finished_at),
            "steps": {step.name: told(step) for step in run.steps if not step.is_key},
            "waiting": waiting,
            "wait": wait,
            "sticky": run.flow.sticky,
            "worker": run.worker or None,
            "moves": run.moves,
            "metadata": run.metadata or {},
            "priority": run.priority,
            "parent_run_id": run.parent[0] if run.parent else "",
            "input": run.input,
            "output": Raw(run.output()) if run.status == SUCCEEDED else None,
            "error": run.reason or _errors(run),
        }

    def _step(self, step: Step) -> dict[str, Any]:
        return {
            "status": _STEP_STATUS.get(step.state, QUEUED),
            "worker": step.worker or None,
            "attempt": step.attempt,
            "output": step.output if step.state is DONE else NULL,
            "error": f"{step.error.type}: {step.error.message}" if step.error is not None and step.state is not DONE else None,
            "started_at": _time(step.started_at),
            "finished_at": _time(step.finished_at or (step.run.finished_at if step.state is SKIPPED and step.started_at else 0)),
        }

    def _step_in_full(self, step: Step) -> dict[str, Any]:
        """With the traceback: a page of a thousand runs could not carry them."""
        return self._step(step) | {"traceback": step.error.traceback if step.error is not None and step.state is not DONE else ""}

    def workers(self, max_payload: int) -> Whole:
        """Every worker that registered and is not gone."""
        return Whole("workers", map(self._worker, list(self._state.workers.values())), max_payload)

    def _worker(self, worker: Worker) -> dict[str, Any]:
        running = self._running(worker.id)
        return {
            "id": worker.id,
            "name": worker.name,
            "pool": worker.pool.id,
            "slots": worker.slots,
            "used": worker.used,
            "running": worker.used if running is None else running,
            "reserved": len(worker.reserved),
            "bound": worker.bound,
            "actions": sorted(worker.pool.actions),
            "labels": worker.labels,
            "state": state_of(worker),
            "incarnation": worker.incarnation,
            "host": worker.host,
            "pid": worker.pid,
        }

    def binding(self, worker: str, workflow: str) -> dict[str, Any] | None:
        """Whether runs of this workflow can be bound to this worker (see `mesh_sdk/binding.py`); None for an unknown workflow."""
        flow = self._state.flows.get(workflow)
        if flow is None:
            return None
        known = self._state.workers.get(worker)
        here = known is not None and known.takes_work
        lacks = [action for action in flow.actions if here and known is not None and action not in known.pool.actions]
        others, have_it = ([], False) if here and not lacks else self._others(flow)
        return {
            "sticky": flow.sticky,
            "here": here,
            "known": known is not None,
            "lacks": lacks,
            "others": others,
            "others_have_it": have_it,
        }

    def _others(self, flow: Flow) -> tuple[list[str], bool]:
        """Some workers, for whoever has named one that won't do: of those that have the workflow, where there are any."""
        there = [worker for worker in self._state.workers.values() if worker.takes_work]
        able = [worker.id for worker in there if worker.pool.actions.issuperset(flow.actions)]
        return nsmallest(NAMED_MAX, able or [worker.id for worker in there]), bool(able)

    def workflows(self, max_payload: int) -> Whole:
        """Every workflow that was ever registered, as its newest definition."""
        workers: dict[str, list[str]] = {}
        for worker in self._state.workers.values():
            for name, _ in worker.workflows:
                workers.setdefault(name, []).append(worker.id)
        flows = list(self._state.flows.values())
        return Whole("workflows", (self._workflow(flow, workers.get(flow.name, [])) for flow in flows), max_payload)

    def workflow(self, name: str) -> dict[str, Any] | None:
        """One workflow."""
        flow = self._state.flows.get(name)
        if flow is None:
            return None
        return self._workflow(flow, [w.id for w in self._state.workers.values() if any(name == known for known, _ in w.workflows)])

    def _workflow(self, flow: Flow, workers: list[str]) -> dict[str, Any]:
        definition = flow.definition
        return {
            "name": flow.name,
            "version": definition.version,
            "digest": flow.digest,
            "steps": [{"name": s.name, "parents": [flow.step_names[p] for p in s.parents]} for s in flow.steps],
            "on_events": definition.on_events,
            "sticky": definition.sticky,
            "priority": definition.priority,
            "workers": workers,
        }


def _errors(run: Run) -> str | None:
    """What failed, step by step."""
    found = [f"{step.name}: {step.error.type}: {step.error.message}" for step in run.broken_steps() if step.error is not None]
    return "; ".join(found) or None


def _in_words(wait: Wait) -> str:
    end = f", {wait.then} at {_time(wait.until)}" if wait.until else ""
    return f"waiting: {wait.cause} (since {_time(wait.since)}{end})"


def _parts(kind: str, cause: str, since: int, until: int, then: str, step: str = "", worker: str = "") -> dict[str, Any]:
    times = {"since": _time(since), "until": _time(until), "then": then if until else ""}
    return {"kind": kind, "cause": cause, "step": step, "worker": worker or None} | times


def _time(ms: int) -> str | None:
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds") if ms else None
