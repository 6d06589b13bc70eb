"""Reading the mesh: `mesh.runs`, `mesh.workers`, `mesh.workflows`. The leader answers from its state.

The wire: a request on `subjects.api(call)` with a JSON object, answered by `{"ok": …}` or
`{"error": {"type": "RunNotFound", "message": "…"}}` (`type` is a class of `mesh_sdk.errors`). Field names are the
attribute names below; a field may be missing where a default stands below, unknown ones are ignored. Times are
ISO 8601 text with a zone (`2025-01-31T10:00:00.123Z`) or null, durations integers of milliseconds.

    runs.get        {"run_id": id}                                     -> RunInfo
    runs.list       {"workflow": text|null, "status": text|null, "metadata": {text: text}|null, "worker": id|null,
                     "since": time|null, "until": time|null, "limit": int, "after": cursor|null}
                                                                       -> {"runs": [RunInfo…], "next": cursor|null}
                                                                          newest first; `next` is null at the end
    workers.list    {}                                                 -> [WorkerInfo…]
    workers.binding see `binding`
    workflows.list  {}                                                 -> [WorkflowInfo…]
    workflows.get   {"name": text}                                     -> WorkflowInfo, or the error UnknownWorkflow

    RunInfo      run_id, workflow, status, started_at, finished_at, steps: {step name: StepInfo}, waiting: text|null,
                 wait: Wait|null, sticky: text, worker: id|null, moves: int,
                 metadata: {text: text}, priority, parent_run_id: id|"", input, output: any JSON, error: text|null
    Wait         kind: text, cause: text, step: name|"", worker: id|null, since: time|null, until: time|null, then: text
    StepInfo     status, worker: id|null, attempt: int (0: never assigned), output: any JSON, error: text|null,
                 started_at, finished_at, traceback: text (of the failed attempt; "" when there is none, and in lists)
    WorkerInfo   id, name, pool, slots, used, running, reserved, bound, actions: [text], labels: {text: text|number},
                 state: text, incarnation, host, pid
    WorkflowInfo name, version, digest, steps: [{"name": text, "parents": [step names]}], on_events: [text], sticky: text,
                 priority, workers: [ids of live workers that registered it]

A run's status is one of `queued running waiting succeeded failed cancelled timed_out`.

Rule: a read has no effect, so it is asked again until a leader answers, for up to `client.FAILOVER_S`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar, overload

import msgspec
from msgspec import Struct, field

from mesh_sdk.cancelling import cancel_run
from mesh_sdk.errors import InvalidInput, MeshError

if TYPE_CHECKING:
    from mesh_sdk.clients import Clients

STATUSES = ("queued", "running", "waiting", "succeeded", "failed", "cancelled", "timed_out")
LIST_LIMIT_MAX = 1_000

T = TypeVar("T")


class StepInfo(Struct, frozen=True, kw_only=True):
    """One step of a run, as of its latest attempt. `traceback` is told of a single run, not in lists, which it would bloat."""

    status: str
    worker: str | None = None
    attempt: int = 0
    output: Any = None
    error: str | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    traceback: str = ""


class Wait(Struct, frozen=True, kw_only=True):
    """What a run waits for, for programs; `RunInfo.waiting` says the same in words.

    Attributes:
        kind: `worker` (the one that the run is bound to; or any, where none that could run it takes work), `slots` (a free one, of any
            worker), `labels` (or slots that no worker has), `group` (a place in a concurrency group), `rate`, `key` (a key function's
            answer), `delay` (of its start) or `retry`.
        cause: what keeps it, e.g. `worker w-3 is away`.
        step: that waits, "" when it is the whole run.
        worker: that is waited for, None when any would do.
        since: when it began to wait.
        until: when the waiting ends at the latest; None for never.
        then: what happens at `until`, e.g. `moves to another worker`; "" for nothing.
    """

    kind: str
    cause: str
    step: str = ""
    worker: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    then: str = ""


class RunInfo(Struct, frozen=True, kw_only=True):
    """One run.

    Attributes:
        waiting: what it waits for in words, None when it does not wait.
        wait: the same in its parts.
        sticky: its workflow's strategy, "" when it has none.
        worker: whom a sticky run is bound to, None before its first assignment.
        moves: how often it was bound to another worker.
    """

    run_id: str
    workflow: str
    status: str
    started_at: datetime | None = None
    finished_at: datetime | None = None
    steps: dict[str, StepInfo] = field(default_factory=dict)
    waiting: str | None = None
    wait: Wait | None = None
    sticky: str = ""
    worker: str | None = None
    moves: int = 0
    metadata: dict[str, str] = field(default_factory=dict)
    priority: int = 1
    parent_run_id: str = ""
    input: Any = None
    output: Any = None
    error: str | None = None


class WorkerInfo(Struct, frozen=True, kw_only=True):
    """One worker that the leader knows. `used` is what the leader has charged to it, `running` its own count, `bound` its sticky runs."""

    id: str
    name: str = ""
    pool: str = ""
    slots: int = 0
    used: int = 0
    running: int = 0
    reserved: int = 0
    bound: int = 0
    actions: list[str] = field(default_factory=list)
    labels: dict[str, str | int | float] = field(default_factory=dict)
    state: str = ""
    incarnation: str = ""
    host: str = ""
    pid: int = 0


class StepOutline(Struct, frozen=True, kw_only=True):
    """A step of a registered workflow, with the names of its parents."""

    name: str
    parents: list[str] = field(default_factory=list)


class WorkflowInfo(Struct, frozen=True, kw_only=True):
    """One registered workflow, and the live workers that can run it."""

    name: str
    version: str = ""
    digest: str = ""
    steps: list[StepOutline] = field(default_factory=list)
    on_events: list[str] = field(default_factory=list)
    sticky: str = ""
    priority: int = 1
    workers: list[str] = field(default_factory=list)


class _Page(Struct, frozen=True):
    runs: list[RunInfo]
    next: str | None = None


class RunList(Sequence[RunInfo]):
    """Runs, newest first. `next` is what `after=` takes for the following page, None at the end."""

    def __init__(self, runs: list[RunInfo], next: str | None) -> None:
        self._runs = runs
        self.next = next

    @overload
    def __getitem__(self, index: int) -> RunInfo: ...
    @overload
    def __getitem__(self, index: slice) -> list[RunInfo]: ...
    def __getitem__(self, index: int | slice) -> RunInfo | list[RunInfo]:
        """The run, or runs, of this place."""
        return self._runs[index]

    def __len__(self) -> int:
        """How many runs this page has."""
        return len(self._runs)

    def __iter__(self) -> Iterator[RunInfo]:
        """Go over the runs of this page."""
        return iter(self._runs)

    def __repr__(self) -> str:
        return f"RunList({self._runs!r}, next={self.next!r})"


async def read(clients: Clients, call: str, body: Mapping[str, Any], kind: type[T]) -> T:
    """Ask the leader and read its answer.

    Args:
        clients: of the mesh.
        call: e.g. `runs.get`.
        body: the request.
        kind: what the answer is.

    Raises:
        MeshError: as the leader answered.
        Unavailable: nobody answered.
    """
    answer = await clients.here().call(call, body)
    try:
        return msgspec.json.decode(answer, type=kind)
    except msgspec.MsgspecError as error:
        raise MeshError(f"the scheduler's answer to {call} can't be read: {error}: are both of one version?") from error


class RunReads:
    """`mesh.runs`: what happened to runs, and the end of them."""

    def __init__(self, clients: Clients) -> None:
        self._clients = clients

    async def get(self, run_id: str) -> RunInfo:
        """One run.

        Raises:
            RunNotFound: when no run of this id is known.
            Unavailable: when no scheduler answers.
        """
        return await read(self._clients, "runs.get", {"run_id": run_id}, RunInfo)

    def get_sync(self, run_id: str) -> RunInfo:
        """`get` for code without an event loop."""
        return self._clients.block(lambda: self.get(run_id), "mesh.runs.get")

    async def list(
        self,
        *,
        workflow: str | None = None,
        status: str | None = None,
        metadata: Mapping[str, str] | None = None,
        worker: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int = 100,
        after: str | None = None,
    ) -> RunList:
        """Runs that match all of these, newest first.

        Args:
            workflow: the workflow's name.
            status: one of `STATUSES`.
            metadata: has all of these.
            worker: a step of it is or was on this worker.
            since: started at this time or later.
            until: started before this time.
            limit: how many, at most `LIST_LIMIT_MAX`.
            after: `.next` of the page before.

        Raises:
            InvalidInput: for a filter that can't be.
            Unavailable: when no scheduler answers.
        """
        if status is not None and status not in STATUSES:
            raise InvalidInput(f"status is {status!r}: use one of {', '.join(STATUSES)}")
        if isinstance(limit, bool) or not 1 <= limit <= LIST_LIMIT_MAX:
            raise InvalidInput(f"limit is {limit!r}: use 1 to {LIST_LIMIT_MAX}")
        body = {
            "workflow": workflow,
            "status": status,
            "metadata": None if metadata is None else dict(metadata),
            "worker": worker,
            "since": _utc(since),
            "until": _utc(until),
            "limit": limit,
            "after": after,
        }
        page = await read(self._clients, "runs.list", body, _Page)
        return RunList(page.runs, page.next)

    def list_sync(
        self,
        *,
        workflow: str | None = None,
        status: str | None = None,
        metadata: Mapping[str, str] | None = None,
        worker: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int = 100,
        after: str | None = None,
    ) -> RunList:
        """`list` for code without an event loop."""
        return self._clients.block(
            lambda: self.list(
                workflow=workflow,
                status=status,
                metadata=metadata,
                worker=worker,
                since=since,
                until=until,
                limit=limit,
                after=after,
            ),
            "mesh.runs.list",
        )

    async def cancel(self, run_id: str, reason: str = "cancelled by a client") -> None:
        """Ask for the end of a run. It is stored, and the leader asked whether there is such a run; one that has ended stays as it is.

        Without a leader it returns after the time that reads take, and the next one sees to it.

        Raises:
            RunNotFound: when no run of this id is known.
            Unavailable: when it could not be stored.
        """
        await cancel_run(self._clients.here(), run_id, reason)

    def cancel_sync(self, run_id: str, reason: str = "cancelled by a client") -> None:
        """`cancel` for code without an event loop."""
        self._clients.block(lambda: self.cancel(run_id, reason), "mesh.runs.cancel")

    async def replay(self, run_id: str) -> None:
        """Start a run again.

        Raises:
            MeshError: always; this version can't yet.
        """
        raise MeshError(f"replay of run {run_id!r} is not supported by this version yet: start the workflow again with the same input")


Workflows = list[WorkflowInfo]


class WorkflowReads:
    """`mesh.workflows`: what workers have registered."""

    def __init__(self, clients: Clients) -> None:
        self._clients = clients

    async def list(self) -> Workflows:
        """Every registered workflow.

        Raises:
            Unavailable: when no scheduler answers.
        """
        return await read(self._clients, "workflows.list", {}, Workflows)

    def list_sync(self) -> Workflows:
        """`list` for code without an event loop."""
        return self._clients.block(self.list, "mesh.workflows.list")

    async def get(self, name: str) -> WorkflowInfo:
        """One registered workflow.

        Raises:
            UnknownWorkflow: when no worker ever registered it.
            Unavailable: when no scheduler answers.
        """
        return await read(self._clients, "workflows.get", {"name": name}, WorkflowInfo)

    def get_sync(self, name: str) -> WorkflowInfo:
        """`get` for code without an event loop."""
        return self._clients.block(lambda: self.get(name), "mesh.workflows.get")


def _utc(time: datetime | None) -> datetime | None:
    """The same time in UTC; one without a zone is taken as local time, as Python does."""
    return None if time is None else time.astimezone(UTC)
