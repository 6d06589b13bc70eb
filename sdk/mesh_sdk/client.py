"""One client: a connection on one event loop, the starts it stores, and the ends of runs it waits for.

`clients.Clients` makes one for each loop and process. A worker uses one too, for its children and its registration:
`client_id`, `wait_for(run_id)`, `on_notice(kind, callback)`.

Rule: a notice only makes waiting shorter; what is waited for is asked for (`missed`) until it is known.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import secrets
from collections import deque
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
from msgspec import Struct

from mesh_sdk import clock
from mesh_sdk.awaited import Awaited
from mesh_sdk.binding import objection
from mesh_sdk.config import Settings
from mesh_sdk.errors import MeshError, Unavailable
from mesh_sdk.failures import error_of
from mesh_sdk.keyed import Keyed
from mesh_sdk.known import KnownWorkflows
from mesh_sdk.leader import Leader
from mesh_sdk.missed import Missed
from mesh_sdk.protocol import codec, ids
from mesh_sdk.protocol.definitions import WorkflowDefinition
from mesh_sdk.protocol.records import REFUSED, Cancel, Done, Notice, Start, Started, Steer
from mesh_sdk.protocol.subjects import Subjects
from mesh_sdk.silence import Silence
from mesh_sdk.transport.errors import TransportError
from mesh_sdk.unstored import Unstored, UnstoredStarts, until_stored

if TYPE_CHECKING:
    from mesh_sdk.transport.bus import Bus
    from mesh_sdk.triggers import Triggers

CLOSE_S = 5.0

Record = TypeVar("Record", bound=Struct)

_log = logging.getLogger("mesh.client")


class Client:
    """A connection and what is waited for on it; belongs to one event loop.

    Args:
        settings: where the mesh is.
        loop: its event loop.
        wall_ms: milliseconds since 1970, for new run ids.
    """

    def __init__(self, settings: Settings, loop: asyncio.AbstractEventLoop, wall_ms: Callable[[], int] = clock.wall_ms) -> None:
        self.settings = settings
        self.loop = loop
        self.client_id = secrets.token_hex(8)
        self.subjects = Subjects(settings.namespace)
        self.leader = Leader(self.bus, self.subjects)
        self.awaited = Awaited(loop)
        self.keyed = Keyed(loop)
        self.unstored = UnstoredStarts(loop)
        self.missed = Missed(loop, self.leader, self.awaited, self.keyed, self._on_notice, wall_ms)
        self.silence = Silence(loop, self._pending, self._could_be_led, self._where)
        self._workflows = KnownWorkflows(loop, self.leader, self.bus, self.subjects, settings.servers)
        self._known = self._workflows.definitions
        self._wall_ms = wall_ms
        self._unique = secrets.token_bytes(6)
        self._count = itertools.count()
        self._bus: Bus | None = None
        self._triggers: Triggers | None = None
        self._opening: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._lines: dict[str, deque[Unstored]] = {}
        """By workflow, what `start_nowait` has to hold back until it may be stored: the order of the starts stays."""
        self._closed = False
        self._term = 0
        self._lossy = False
        """A notice may have been lost some time: a result that nobody waited for then has to be asked for."""
        self._callbacks: dict[type, Callable[[Any], None]] = {}

    # ---- the connection -------------------------------------------------------------------------------------------

    async def bus(self) -> Bus:
        """The open connection; the first call opens it.

        Raises:
            ConnectionFailed: no server within the connect timeout.
            MeshError: this client was closed.
        """
        while self._bus is None:
            if self._closed:
                raise _closed()
            if self._opening is None:
                self._opening = self.loop.create_task(self._open(), name="mesh client opens")
                self._opening.add_done_callback(self._opened)
            await asyncio.shield(self._opening)
        return self._bus

    def _opened(self, task: asyncio.Task[None]) -> None:
        self._opening = None
        if not task.cancelled():
            task.exception()  # whoever waits gets it; by now nobody may

    async def _open(self) -> None:
        from mesh_sdk.transport.connection import connect
        from mesh_sdk.triggers import Triggers

        settings = self.settings
        bus = await connect(settings.servers, name=f"mesh client {self.client_id}", connect_timeout=settings.connect_timeout_s)
        try:
            await bus.subscribe(self.subjects.done(self.client_id), self._on_notices)
            await bus.subscribe(self.subjects.leader_beat, self._on_beat)
        except TransportError as error:
            await bus.close()
            raise Unavailable(f"{', '.join(settings.servers)} went away while connecting: {error}") from error
        bus.on_connection(self._on_connection)
        self._triggers = Triggers(bus, self.subjects, self.client_id, self._on_refused)
        self._bus = bus

    def _on_connection(self, up: bool) -> None:
        if up:
            self.silence.heard()
            self._disturbed()

    def _disturbed(self) -> None:
        """Notices may have been lost."""
        self._lossy = True
        self.leader.news.set()
        self.missed.ask_all()

    def _on_beat(self, subject: str, reply: str, data: bytes) -> None:
        try:
            beat = codec.decode_leader_beat(data)
        except msgspec.MsgspecError as error:
            _log.warning("a beat of the leader can't be read: %s", error)
            return
        self.silence.heard()
        if beat.term != self._term:
            self._term = beat.term
            self._disturbed()

    async def close(self) -> None:
        """End the client: pending starts get up to CLOSE_S to be stored, whoever waits for a run gets an error."""
        if not await self.unstored.flush(CLOSE_S):
            self.log_unstored()
        self._closed = True
        self.missed.close()
        self.silence.close()
        for task in (self._opening, *self._tasks):
            if task is not None:
                task.cancel()
        self.awaited.fail(self.awaited.runs(), lambda: MeshError("the client was closed while this run was waited for; the run goes on"))
        for requested in self.keyed.requests():
            self.keyed.fail(requested, MeshError("the client was closed while this start was waited for"))
        triggers, self._triggers = self._triggers, None
        bus, self._bus = self._bus, None
        if triggers is not None:
            await triggers.close()
        if bus is not None:
            await bus.close()

    def log_unstored(self) -> None:
        """Say which starts are given up."""
        for start in self.unstored.take():
            _log.error("start_nowait: run %s of %r was not stored in time and is lost", start.record.run, start.record.workflow)

    # ---- starting -------------------------------------------------------------------------------------------------

    def new_run_id(self) -> str:
        """An id for a run to be started. Callable on any thread."""
        return ids.run_id(self._wall_ms(), self._unique, next(self._count))

    def knows(self, workflow: str) -> bool:
        """Whether a start of this workflow can be put now, without `prepare`."""
        return workflow in self._known and self._triggers is not None and not self._triggers.full

    def definition(self, workflow: str) -> WorkflowDefinition | None:
        """The workflow as registered, once `prepare` has looked it up."""
        return self._known.get(workflow)

    async def prepare(self, workflow: str) -> None:
        """Open the connection, make sure that some worker has registered the workflow, and wait for room.

        Raises:
            UnknownWorkflow: none ever has. A yes is remembered, a no is not.
            Unavailable: no scheduler ever ran here, or the server is away.
        """
        await self.bus()
        if workflow not in self._known:
            await self._workflows.look_up(workflow)
        if self._triggers is not None and self._triggers.full:
            await self._triggers.wait_room()

    def put(self, record: Start, size: int, priority: int) -> asyncio.Future[int]:
        """Have a start stored; `prepare` has been awaited. The future is shared: shield it."""
        if self._triggers is None:
            raise _closed()
        return self._triggers.start(record, size, priority)

    def run(self, record: Start, size: int, priority: int) -> asyncio.Future[Done]:
        """Have a start without a key stored; `prepare` has been awaited. The future is the run's end."""
        future = self.awaited.expect_only(record.run)
        self.put(record, size, priority)
        self._watch()
        return future

    def put_soon(self, start: Unstored) -> None:
        """Have a start of `unstored` stored; `accepted` tells when, or why it can't be."""
        record = start.record
        line = self._lines.get(record.workflow)
        if line is not None:
            line.append(start)
        elif self.knows(record.workflow) and not record.worker:
            self._put_unstored(start)
        else:
            self._lines[record.workflow] = deque([start])
            task = self.loop.create_task(self._prepare_line(record.workflow), name="mesh start_nowait")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _prepare_line(self, workflow: str) -> None:
        line = self._lines[workflow]
        refusals: dict[str, MeshError | None] = {"": None}
        try:
            await self.prepare(workflow)
            while line:
                worker = line[0].record.worker
                if worker not in refusals:
                    refusals[worker] = await objection(self, workflow, worker)
                refusal = refusals[worker]
                if refusal is None:
                    self._put_unstored(line[0])
                else:
                    self._on_refused([line[0].record.run], refusal)
                line.popleft()
        except (MeshError, TransportError) as error:
            told = error if isinstance(error, MeshError) else Unavailable(f"{workflow!r} can't be started now: {error}")
            self._on_refused([start.record.run for start in line], told)
        finally:
            del self._lines[workflow]

    def _put_unstored(self, start: Unstored) -> None:
        def ended(frame: asyncio.Future[int]) -> None:
            if not frame.cancelled() and frame.exception() is None:
                self.unstored.stored(start.record.run)

        self.put(start.record, start.size, start.priority).add_done_callback(ended)

    def _on_refused(self, runs: list[str], error: MeshError) -> None:
        self.awaited.fail(runs, lambda: type(error)(*error.args))
        for run in runs:
            self.keyed.fail(run, type(error)(*error.args))
            self.unstored.refused(run, error)

    async def control(self, record: Cancel | Steer, what: str) -> None:
        """Have a request to cancel a run or to steer a worker stored; `what` names it in errors."""
        await self.bus()
        if self._triggers is None:
            raise _closed()
        await until_stored(self._triggers.control(record), what)

    # ---- waiting --------------------------------------------------------------------------------------------------

    async def accepted(self, requested: str, keyed: bool) -> str:
        """Wait until a start is stored and, with a key, answered; gives the run's id.

        Raises:
            MeshError: the start was refused.
        """
        await self.unstored.wait(requested)
        if not keyed:
            return requested
        future = self.keyed.expect(requested)
        if not future.done():
            self._watch()
        return await future

    def wait_for(self, run: str, *, ask: bool = False) -> asyncio.Future[Done]:
        """A future of the run's end. Cancelling it disturbs nobody else.

        Args:
            run: its id.
            ask: it may have ended without this client's knowledge: ask the leader right away.
        """
        future = self.awaited.expect(run)
        if not future.done():
            if ask:
                self.missed.ask([run])
            self._watch()
        return future

    async def done(self, run: str, *, ask: bool) -> Done:
        """Wait for the end of a run; see `wait_for`.

        Raises:
            MeshError: its start was refused.
        """
        await self.bus()
        await self.unstored.wait(run)
        return await self.wait_for(run, ask=ask or self._lossy or self.awaited.forgotten > 0)

    def _watch(self) -> None:
        self.missed.watch()
        self.silence.watch()

    def _pending(self) -> bool:
        return bool(self.awaited or self.keyed)

    def _could_be_led(self) -> bool:
        return self._bus is not None and self._bus.connected and bool(self.awaited.runs() or self.keyed)

    def _where(self) -> str:
        return f"namespace {self.subjects.namespace!r} on {', '.join(self.settings.servers)}"

    async def call(self, name: str, body: Mapping[str, Any]) -> bytes:
        """Ask the leader; see `leader.Leader.call`."""
        return await self.leader.call(name, body)

    def on_notice(self, kind: type[Record], callback: Callable[[Record], None]) -> None:
        """Have a plain function called, on the loop, with each notice of a kind that clients have no use for."""
        self._callbacks[kind] = callback

    def _on_notices(self, subject: str, reply: str, data: bytes) -> None:
        try:
            frame, bad = codec.notice_frames.decode(data)
        except codec.BadFrame as error:
            _log.warning("notices can't be read: %s", error)
            return
        for _, reason in bad:
            _log.warning("a notice can't be read: %s", reason)
        settle = None if self.keyed else self.awaited.settle
        for record in frame.records:
            if settle is not None and type(record) is Done:
                settle(record)
            else:
                self._on_notice(record)

    def _on_notice(self, record: Notice) -> None:
        if isinstance(record, Done):
            if record.run in self.keyed:
                self._on_keyed_done(record)
            self.awaited.settle(record)
        elif isinstance(record, Started):
            self.keyed.settle(record.requested, record.run)
        else:
            callback = self._callbacks.get(type(record))
            if callback is not None:
                callback(record)

    def _on_keyed_done(self, done: Done) -> None:
        if done.status == REFUSED:
            self.keyed.fail(done.run, error_of(done))
        else:
            self.keyed.settle(done.run, done.run)


def _closed() -> MeshError:
    return MeshError("this client was closed: use the mesh again, it opens another")
