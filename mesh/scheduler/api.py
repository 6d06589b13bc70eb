"""Answers readers from the leader's state, once everything they are told is in the journal.

Subjects `api.<partition>.<call>`, JSON objects in and out: `{"ok": …}` or `{"error": {"type": …, "message": …}}`. The
shapes stand in `mesh_sdk/reads.py`. Rule: a bad request is answered with an error and changes nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import Struct

from mesh.core.effects import done
from mesh.core.image import digest
from mesh.core.state import State
from mesh.scheduler.answers import ANSWER_BYTES_MAX, ApiError, guarded
from mesh.scheduler.lists import Ask, Lists, Page
from mesh.scheduler.outbox import too_large
from mesh.scheduler.unread import Unread
from mesh.scheduler.views import RunQuery, Views
from mesh_sdk.protocol.codec import encode
from mesh_sdk.protocol.ids import is_run_id
from mesh_sdk.protocol.records import NULL, QUEUED, REFUSED, Done, Notice, RunError, Started
from mesh_sdk.protocol.subjects import Subjects
from mesh_sdk.transport.bus import Bus, Subscription

WAITING_MAX = 1_000
"""Questions for runs that nobody knows, yet: any more are answered by what is known."""


class _RunId(Struct):
    run_id: str


class _Runs(Struct):
    runs: list[str]


class _Name(Struct):
    name: str


class _Binding(Struct):
    worker: str
    workflow: str


class _Requested(Struct):
    requested: str


class _Nothing(Struct):
    pass


class Api:
    """Serves one term.

    Args:
        bus, subjects, state: of the scheduler.
        views: makes the answers.
        ask: has a question answered at a journal sequence (see `Loop.ask`).
        unread: starts that are not decided yet.
    """

    def __init__(self, bus: Bus, subjects: Subjects, state: State, views: Views, ask: Ask, unread: Unread) -> None:
        self._unread = unread
        self._waiting: set[asyncio.Task[None]] = set()
        begin: dict[str, Callable[[bytes], Page]] = {
            "runs.list": lambda data: views.runs(msgspec.json.decode(data or b"{}", type=RunQuery), bus.max_payload),
            "workers.list": lambda data: views.workers(bus.max_payload),
            "workflows.list": lambda data: views.workflows(bus.max_payload),
        }
        self._lists = Lists(begin, ask, bus.publish)
        self._bus = bus
        self._subjects = subjects
        self._state = state
        self._views = views
        self._ask = ask
        self._subscription: Subscription | None = None
        self._calls: dict[str, tuple[type[Struct], Callable[[Any, int], Any]]] = {
            "runs.get": (_RunId, self._run),
            "results": (_Runs, self._results),
            "started": (_Requested, self._started),
            "workers.binding": (_Binding, self._binding),
            "workflows.get": (_Name, self._workflow),
            "digest": (_Nothing, lambda nothing, sequence: {"sequence": sequence, "digest": digest(state)}),
        }

    async def start(self) -> None:
        """Answer from now on."""
        self._lists.start()
        self._subscription = await self._bus.subscribe(self._subjects.api("*") + ".>", self._hear)
        self._single = await self._bus.subscribe(self._subjects.api("*"), self._hear)

    async def close(self) -> None:
        """Answer no more."""
        self._lists.close()
        for task in self._waiting:
            task.cancel()
        if self._subscription is not None:
            await self._subscription.close()
            await self._single.close()

    def _hear(self, subject: str, reply: str, data: bytes) -> None:
        if not reply:
            return
        call = subject[len(self._subjects.api("")) :]
        if self._lists.serves(call):
            self._lists.hear(call, reply, data)
            return

        def question(sequence: int) -> Callable[[], None]:
            unknown = self._unknown_run(call, data)
            if unknown:
                return lambda: self._look_again(unknown, reply, data)
            answer = self._answer(call, data, sequence)
            return lambda: self._reply(reply, answer)

        self._ask(question)

    def _unknown_run(self, call: str, data: bytes) -> str:
        """The run that is asked for, if it is none that is known but may have been started a moment ago; else ""."""
        if call != "runs.get" or len(self._waiting) >= WAITING_MAX:
            return ""
        try:
            id = msgspec.json.decode(data, type=_RunId).run_id
        except msgspec.MsgspecError:
            return ""
        known = self._state.find(id) is not None or self._state.finished.knows(id)
        return id if not known and is_run_id(id) else ""

    def _look_again(self, run: str, reply: str, data: bytes) -> None:
        task = asyncio.get_running_loop().create_task(self._answer_late(run, reply, data), name="a run that is not known yet")
        self._waiting.add(task)
        task.add_done_callback(self._waiting.discard)

    async def _answer_late(self, run: str, reply: str, data: bytes) -> None:
        decided = await self._unread.until_decided()

        def question(sequence: int) -> Callable[[], None]:
            known = decided or self._state.find(run) is not None
            answer = self._answer("runs.get", data, sequence) if known else _queued(run)
            return lambda: self._reply(reply, answer)

        self._ask(question)

    def _reply(self, reply: str, answer: bytes) -> None:
        self._bus.publish(reply, answer)

    def _answer(self, call: str, data: bytes, sequence: int) -> bytes:
        return guarded(call, lambda: self._found(call, data, sequence))

    def _found(self, call: str, data: bytes, sequence: int) -> bytes:
        known = self._calls.get(call)
        if known is None:
            raise ApiError("MeshError", f"the scheduler knows no call {call!r}")
        shape, answer = known
        found = encode({"ok": answer(msgspec.json.decode(data or b"{}", type=shape), sequence)})
        if len(found) > self._bus.max_payload:
            raise ApiError("PayloadTooLarge", f"the answer to {call} has {len(found)} bytes: ask for less")
        return found

    def _run(self, request: _RunId, sequence: int) -> Any:
        found = self._views.run(request.run_id)
        if found is None:
            raise ApiError("RunNotFound", f"no run {request.run_id!r} is known: it never was, or is older than the runs that are kept")
        return found

    def _results(self, request: _Runs, sequence: int) -> list[Notice]:
        found: list[Notice] = []
        size = 0
        for id in request.runs:
            run = self._state.finished.get(id)
            if run is not None or self._state.finished.knows(id):
                told: Notice = done(run) if run is not None else _forgotten(id)
                length = len(encode(told))
                if length > self._bus.max_payload - ANSWER_BYTES_MAX:
                    told, length = too_large(told, self._bus.max_payload), 0
                size += length
                if size > self._bus.max_payload // 2 and found:
                    break  # the rest is asked for again
                found.append(told)
        return found

    def _started(self, request: _Requested, sequence: int) -> Started | Done | None:
        """The run that a start with a key turned into, or why it was refused."""
        run = self._state.find(request.requested)
        if run is not None and run.refused is not None:
            return done(run)
        if run is not None:
            return Started(request.requested, run.id)
        known = self._state.repeats.get(request.requested)
        if known is None and self._state.finished.knows(request.requested):
            known = request.requested  # it has run and is forgotten: whoever asks for its result is told
        return Started(request.requested, known) if known is not None else None

    def _workflow(self, request: _Name, sequence: int) -> Any:
        return _known(self._views.workflow(request.name), request.name)

    def _binding(self, request: _Binding, sequence: int) -> Any:
        return _known(self._views.binding(request.worker, request.workflow), request.workflow)


def _known(found: dict[str, Any] | None, workflow: str) -> dict[str, Any]:
    if found is None:
        raise ApiError("UnknownWorkflow", f"no worker ever registered a workflow named {workflow!r}")
    return found


def _forgotten(run: str) -> Done:
    """Whoever waits for a result that is not remembered any more would wait for ever."""
    text = f"run {run} has ended, and so many others since that its result is not remembered any more"
    return Done(run, REFUSED, NULL, [RunError("", "RunNotFound", text)])


def _queued(run: str) -> bytes:
    """What is known of a run whose start, if there is one, is still on disk."""
    return encode({"ok": {"run_id": run, "workflow": "", "status": QUEUED}})
