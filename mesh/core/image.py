"""The state as one value: for snapshots, and for a digest that a leader, a standby and a cold replay must agree on.

What follows from the rest (queues, timers, ledgers) is not in the image; `load` builds it anew in the same order. New
fields come last and have a default, so that an older image can be loaded.
"""

from __future__ import annotations

from hashlib import blake2b
from itertools import chain
from operator import attrgetter

import msgspec
from msgspec import Raw, Struct

from mesh.core.run import LIVE, Run
from mesh.core.run_keys import RunKeys
from mesh.core.slots import Worker
from mesh.core.state import State
from mesh.core.step import Attempt, Step
from mesh_sdk.protocol.definitions import ConcurrencyDefinition, LabelDefinition, WorkflowDefinition
from mesh_sdk.protocol.records import StepError

IMAGE_VERSION = 1


class StepImage(Struct, array_like=True, gc=False):
    state: str
    needs: int
    attempt: int
    retries: int
    losses: int
    mark: int
    waits: int
    again_at: int
    ready_at: int
    sticky_at: int
    started_at: int
    finished_at: int
    worker: str
    avoid_full: bool
    last_token: str
    output: Raw
    error: StepError | None
    error_kind: str
    children: dict[str, tuple[str, str]] | None


class RunImage(Struct, array_like=True, gc=False):
    id: str
    workflow: str
    digest: str
    input: Raw
    priority: int
    number: int
    started_at: int
    left: int
    status: str
    reason: str
    client: str
    also: list[str] | None
    key: str
    event: str
    worker: str
    moved: bool
    start_at: int
    finished_at: int
    refused: tuple[str, str] | None
    parent: tuple[str, int, str, str] | None
    metadata: dict[str, str] | None
    spawned: list[str] | None
    steps: list[StepImage]
    loose: bool = False
    tied: bool = False
    begun: bool = False
    moves: int = 0
    labels: list[LabelDefinition] | None = None
    keyed: RunKeys | None = None
    admitted: bool = False
    """It has, or had to its end, its places in concurrency groups."""
    wanted_at: int = 0


STEP_FIELDS = tuple(name for name in StepImage.__struct_fields__ if name not in ("state", "needs", "output"))
RUN_FIELDS: tuple[str, ...] = ("reason", "client", "also", "key", "event", "worker", "loose", "tied", "begun", "moves")
RUN_FIELDS += ("start_at", "finished_at", "refused", "parent", "metadata", "spawned", "labels", "keyed", "wanted_at")
step_values = attrgetter(*STEP_FIELDS)
run_values = attrgetter(*RUN_FIELDS)


class WorkerImage(Struct, array_like=True, gc=False):
    id: str
    incarnation: str
    name: str
    slots: int
    labels: dict[str, str | int | float]
    workflows: list[tuple[str, str]]
    client: str
    host: str
    pid: int
    draining: bool
    steered: str = ""


class AttemptImage(Struct, array_like=True, gc=False):
    token: str
    run: str
    step: int
    number: int
    pool: str
    worker: str
    held: bool
    lent: bool
    until: int
    counts: bool
    recalled: bool = False


class StateImage(Struct, array_like=True, gc=False):
    version: int
    now: int
    term: int
    holder: str
    number: int
    mark: int
    event: tuple[int, str, Raw]
    lanes_until: int
    unclaimed: list[str]
    current: list[tuple[str, str]]
    definitions: list[WorkflowDefinition]
    workers: list[WorkerImage]
    pools: list[list[str]]
    runs: list[RunImage]
    finished: list[RunImage]
    kept: list[RunImage]
    forgotten: list[str]
    forgotten_before: list[str]
    horizon: str
    repeats: dict[str, str]
    awaited: list[tuple[str, str, int]]
    attempts: list[AttemptImage]
    full: list[tuple[str, str, int]]
    orphans: list[RunImage] = []
    """Runs that have ended and are forgotten, while an attempt of theirs still has its slot; without their steps."""
    rates: list[tuple[str, int]] = []
    """(key, when its bucket is empty again) of every rate whose bucket is not."""
    owed: list[tuple[str, int]] = []
    """(key, nanoseconds) of every rate that makes up for a time without a leader."""
    limits: list[ConcurrencyDefinition] = []
    limited: list[tuple[str, str, int, int]] = []
    """(limit's name, key, number of the newest start that came with a limit, which of `limits` that is) of groups whose limit is
    not the only one of its name."""


def image(state: State) -> StateImage:
    """The state as a value. Takes time in proportion to everything that is remembered."""
    return StateImage(
        IMAGE_VERSION, state.now, state.term, state.holder, state.number, state.mark, state.event, state.lanes_until,
        list(state.unclaimed),
        [(flow.name, flow.digest) for flow in state.flows.values()],
        [flow.definition for flow in state.versions.values()],
        [_worker_image(worker) for worker in state.workers.values()],
        [sorted(pool.actions) for pool in state.pools.values()],
        [_run_image(run) for run in state.runs.values()],
        [_run_image(run) for run in state.finished],
        [_run_image(run) for run in state.finished.kept.values()],
        list(state.finished.forgotten),
        list(state.finished.forgotten_before),
        state.finished.horizon,
        state.repeats,
        [(run, reason, at) for run, (reason, at) in state.awaited.items()],
        [_attempt_image(attempt) for attempt in state.attempts.values()],
        [(pool.id, step.run.id, step.index) for pool in state.pools.values() for step in pool.full if step.run.status is LIVE],
        [msgspec.structs.replace(_run_image(run), steps=[]) for run in _orphans(state)],
        *state.limits.rates.image(state.now),
        *_limited(state),
    )  # fmt: skip


def _limited(state: State) -> tuple[list[ConcurrencyDefinition], list[tuple[str, str, int, int]]]:
    """Which limits groups have, and since which start, as far as that doesn't follow from who is in them."""
    groups = state.limits.groups
    sole = _sole_limits(state) if len(groups) else {}
    found = sorted(
        (*group.id, group.limited_by, group.limit)
        for group in groups
        if sole.get(group.id[0]) != group.limit
        or group.limited_by > max((ticket.order for ticket in chain(group.placed, group.pending)), default=-1)
    )
    places: dict[bytes, int] = {}
    table: list[ConcurrencyDefinition] = []
    entries = []
    for name, key, order, limit in found:
        place = places.setdefault(msgspec.json.encode(limit), len(table))
        if place == len(table):
            table.append(limit)
        entries.append((name, key, order, place))
    return table, entries


def _sole_limits(state: State) -> dict[str, ConcurrencyDefinition | None]:
    """Limits by their names; None where definitions have several of one name."""
    found: dict[str, ConcurrencyDefinition | None] = {}
    for flow in state.versions.values():
        for name, limit in chain(flow.limits, *flow.step_limits):
            known = found.setdefault(name, limit)
            if known is not limit and known != limit:
                found[name] = None
    return found


def _orphans(state: State) -> list[Run]:
    forgotten = {attempt.step.run.id: attempt.step.run for attempt in state.attempts.values() if state.find(attempt.step.run.id) is None}
    return list(forgotten.values())


def encode_image(value: StateImage) -> bytes:
    """Bytes of an image."""
    return msgspec.json.encode(value)


def digest(state: State) -> str:
    """What two states that are equal agree on."""
    return blake2b(encode_image(image(state)), digest_size=16).hexdigest()


def _worker_image(worker: Worker) -> WorkerImage:
    return WorkerImage(
        worker.id, worker.incarnation, worker.name, worker.slots, worker.labels, worker.workflows, worker.client, worker.host,
        worker.pid, worker.draining, worker.steered,
    )  # fmt: skip


def _run_image(run: Run) -> RunImage:
    return RunImage(
        run.id, run.flow.name, run.flow.digest, run.input, run.priority, run.number, run.started_at, run.left, run.status, run.reason,
        run.client, run.also, run.key, run.event, run.worker, run.moves > 0, run.start_at, run.finished_at,
        run.refused, run.parent, run.metadata, run.spawned, [_step_image(step) for step in run.steps], run.loose, run.tied, run.begun,
        run.moves, run.labels, run.keyed, run.ticket is not None and run.ticket.placed, run.wanted_at,
    )  # fmt: skip


def _step_image(step: Step) -> StepImage:
    return StepImage(
        step.state, step.needs, step.attempt, step.retries, step.losses, step.mark, step.waits, step.again_at, step.ready_at,
        step.sticky_at, step.started_at, step.finished_at, step.worker, step.avoid_full, step.last_token, step.output, step.error,
        step.error_kind, step.children,
    )  # fmt: skip


def _attempt_image(attempt: Attempt) -> AttemptImage:
    step = attempt.step
    return AttemptImage(
        attempt.token, step.run.id, step.index, attempt.number, attempt.pool.id if attempt.pool else "",
        attempt.worker.id if attempt.worker else "", attempt.held, attempt.lent, attempt.until, step.current is attempt,
        attempt.recalled,
    )  # fmt: skip
