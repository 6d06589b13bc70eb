"""The two verbs, on everything that can be started: `start` gives a `RunRef` once stored, `run` gives the result.

Rule: the input is validated and written here, at the caller, before anything is stored; `_sync` twins have no logic.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Generic, Literal, TypedDict, TypeVar, Unpack, overload

from msgspec import Raw
from pydantic_core import from_json

from mesh_sdk.binding import check_binding
from mesh_sdk.clients import ClientRuns
from mesh_sdk.durations import Duration, duration_ms
from mesh_sdk.errors import InvalidInput, MeshError
from mesh_sdk.expressions import shortened
from mesh_sdk.failures import error_of
from mesh_sdk.labels import DesiredLabels, read_wishes
from mesh_sdk.options import IdempotencyKey, check_priority, metadata_of
from mesh_sdk.protocol.bounds import KEY_CHARACTERS_MAX
from mesh_sdk.protocol.records import SUCCEEDED, Done, Start
from mesh_sdk.protocol.subjects import check_token
from mesh_sdk.refs import RunRef
from mesh_sdk.serialize import UNTYPED, Dump, Parse, dumper, parser
from mesh_sdk.unstored import until_stored

if TYPE_CHECKING:
    from mesh_sdk.client import Client
    from mesh_sdk.mesh import Mesh

I = TypeVar("I")  # noqa: E741 - the input
R = TypeVar("R")

RUN_MANY_AHEAD = 5_000
"""How many starts of one `run_many` may be on their way at once."""


class StartOptions(TypedDict, total=False):
    """What a single start can be told."""

    priority: int | None
    metadata: Mapping[str, str] | None
    key: str | None
    delay: Duration | None
    sticky_worker: str | None
    desired_worker_labels: DesiredLabels | None


_OPTIONS = frozenset(StartOptions.__annotations__)


class Startable(Generic[I, R]):
    """Something with a name that runs can be started of.

    Attributes:
        mesh: where.
        dump_input: writes an input as JSON; raises `InvalidInput`.
        parse_input: reads it back.
        parse_result: reads the run's output.
    """

    dump_input: Dump
    parse_input: Parse
    parse_result: Parse
    workflow_priority: int = 0
    """Of the definition at hand; 0: the one that is registered decides."""
    idempotency_key: IdempotencyKey | None = None

    def __init__(self, mesh: Mesh) -> None:
        self.mesh = mesh

    @property
    def name(self) -> str:
        """The workflow's name."""
        raise NotImplementedError

    # ---- one run --------------------------------------------------------------------------------------------------

    @overload
    async def run(self: Startable[None, R], input: None = None, **options: Unpack[StartOptions]) -> R: ...
    @overload
    async def run(self, input: I, **options: Unpack[StartOptions]) -> R: ...
    async def run(self, input: Any = None, **options: Unpack[StartOptions]) -> R:
        """Start a run and wait for its result.

        Args:
            input: validated here.
            **options: `priority=3, metadata={"tenant": "a"}, key="once-7", delay="10m", sticky_worker="w-3",
                desired_worker_labels={"gpu": "a100"}`; the labels stand in place of those of the same names that the steps want.

        Raises:
            InvalidInput: the input or an option can't be, `sticky_worker` among them; nothing was written.
            UnknownWorkflow: no worker ever registered it.
            RunFailed, RunCancelled, RunTimedOut: see `RunRef.result`.
        """
        name = self.name
        data = self.dump_input(input)
        client = self.mesh.clients.here()
        if not client.knows(name):
            await client.prepare(name)
        if options or self.idempotency_key is not None:
            record = self._record(client, data, options)
            await self._check_binding(client, record)
            if record.key:
                return await self._store(client, record, len(data)).result()
        else:
            record = Start(client.new_run_id(), name, Raw(data))
        done = await client.run(record, len(data), self._lane(client, record))
        return self._result(done)

    @overload
    async def start(self: Startable[None, R], input: None = None, **options: Unpack[StartOptions]) -> RunRef[R]: ...
    @overload
    async def start(self, input: I, **options: Unpack[StartOptions]) -> RunRef[R]: ...
    async def start(self, input: Any = None, **options: Unpack[StartOptions]) -> RunRef[R]:
        """Start a run; returns once the start is stored, never to be lost.

        Args and errors: as `run`, without those of the run itself.
        """
        data = self.dump_input(input)
        client = self.mesh.clients.here()
        await client.prepare(self.name)
        record = self._record(client, data, options)
        await self._check_binding(client, record)
        await until_stored(client.put(record, len(data), self._lane(client, record)), f"the start of {self.name!r}")
        return self._ref(client, record)

    @overload
    def start_nowait(self: Startable[None, R], input: None = None, **options: Unpack[StartOptions]) -> RunRef[R]: ...
    @overload
    def start_nowait(self, input: I, **options: Unpack[StartOptions]) -> RunRef[R]: ...
    def start_nowait(self, input: Any = None, **options: Unpack[StartOptions]) -> RunRef[R]:
        """Start a run without waiting, on the running loop or else on the client's own thread.

        The start is stored soon; `await ref.accepted()` when it must be: that, and `ref.result()`, raise what keeps it from being stored, a
        `sticky_worker` that can't be among it. What is not stored when the program ends gets up to five seconds,
        and is logged as an error if that is not enough.

        Raises:
            InvalidInput: the input or an option can't be.
            Unavailable: too many starts wait to be stored.
        """
        data = self.dump_input(input)
        client = self.mesh.clients.anywhere()
        record = self._record(client, data, options)
        lane = self._lane(client, record)
        start = client.unstored.add(record, len(data), lane)
        if client.loop is _running_loop():
            client.put_soon(start)
        else:
            client.loop.call_soon_threadsafe(client.put_soon, start)
        return self._ref(client, record)

    # ---- many runs ------------------------------------------------------------------------------------------------

    @overload
    async def run_many(
        self, inputs: Iterable[I], *, return_exceptions: Literal[False] = False, **options: Unpack[StartOptions]
    ) -> list[R]: ...
    @overload
    async def run_many(
        self, inputs: Iterable[I], *, return_exceptions: bool, **options: Unpack[StartOptions]
    ) -> list[R | BaseException]: ...
    async def run_many(self, inputs: Iterable[Any], *, return_exceptions: bool = False, **options: Unpack[StartOptions]) -> list[Any]:
        """Start any number of runs and wait for all their results, in the order of the inputs.

        Args:
            inputs: one for each run; all are validated before the first is started.
            return_exceptions: give the error in place of a result; else the first one (in that order) is raised at the end.
            **options: for every one of them.

        Raises:
            InvalidInput: an input or option can't be; nothing was written.
        """
        if options.get("key"):
            raise InvalidInput("run_many with one key would be one run: leave key= out, or give the workflow an idempotency_key")
        payloads = [self.dump_input(value) for value in inputs]
        client = self.mesh.clients.here()
        await client.prepare(self.name)
        records = [self._record(client, data, options) for data in payloads]
        if records:
            await self._check_binding(client, records[0])  # all of them name the same worker
        ends: list[Any] = []
        for at in range(0, len(records), RUN_MANY_AHEAD):
            ends += await self._run_slice(client, records[at : at + RUN_MANY_AHEAD], payloads[at : at + RUN_MANY_AHEAD])
        results = [self._outcome(end) for end in ends]
        if not return_exceptions:
            for result in results:
                if isinstance(result, MeshError):
                    raise result
        return results

    async def _run_slice(self, client: Client, records: list[Start], payloads: list[bytes]) -> list[Any]:
        await client.prepare(self.name)
        waiting: list[Any] = []
        for record, data in zip(records, payloads, strict=True):
            if record.key:
                waiting.append(self._keyed_end(client, record, len(data)))
            else:
                waiting.append(client.run(record, len(data), self._lane(client, record)))
        return await asyncio.gather(*waiting, return_exceptions=True)

    async def _keyed_end(self, client: Client, record: Start, size: int) -> Done:
        client.put(record, size, self._lane(client, record))
        run = await client.accepted(record.run, True)
        return await client.done(run, ask=run != record.run)

    def _outcome(self, end: Done | BaseException) -> Any:
        if isinstance(end, MeshError):
            return end
        if isinstance(end, BaseException):
            raise end
        try:
            return self._result(end)
        except MeshError as error:
            return error

    # ---- for code without an event loop ---------------------------------------------------------------------------

    @overload
    def run_sync(self: Startable[None, R], input: None = None, **options: Unpack[StartOptions]) -> R: ...
    @overload
    def run_sync(self, input: I, **options: Unpack[StartOptions]) -> R: ...
    def run_sync(self, input: Any = None, **options: Unpack[StartOptions]) -> R:
        """`run` for code without an event loop."""
        return self.mesh.clients.block(lambda: self.run(input, **options), f"{self.name}.run")

    @overload
    def start_sync(self: Startable[None, R], input: None = None, **options: Unpack[StartOptions]) -> RunRef[R]: ...
    @overload
    def start_sync(self, input: I, **options: Unpack[StartOptions]) -> RunRef[R]: ...
    def start_sync(self, input: Any = None, **options: Unpack[StartOptions]) -> RunRef[R]:
        """`start` for code without an event loop."""
        return self.mesh.clients.block(lambda: self.start(input, **options), f"{self.name}.start")

    @overload
    def run_many_sync(
        self, inputs: Iterable[I], *, return_exceptions: Literal[False] = False, **options: Unpack[StartOptions]
    ) -> list[R]: ...
    @overload
    def run_many_sync(
        self, inputs: Iterable[I], *, return_exceptions: bool, **options: Unpack[StartOptions]
    ) -> list[R | BaseException]: ...
    def run_many_sync(self, inputs: Iterable[Any], *, return_exceptions: bool = False, **options: Unpack[StartOptions]) -> list[Any]:
        """`run_many` for code without an event loop."""
        return self.mesh.clients.block(
            lambda: self.run_many(inputs, return_exceptions=return_exceptions, **options), f"{self.name}.run_many"
        )

    # ---- records --------------------------------------------------------------------------------------------------

    def _record(self, client: Client, data: bytes, options: StartOptions) -> Start:
        unknown = options.keys() - _OPTIONS
        if unknown:
            raise TypeError(f"a start has no option {sorted(unknown)[0]!r}: use {', '.join(StartOptions.__annotations__)}")
        what = f"the start of {self.name!r}"
        priority, delay, worker = options.get("priority"), options.get("delay"), options.get("sticky_worker")
        return Start(
            client.new_run_id(),
            self.name,
            Raw(data),
            0 if priority is None else check_priority(priority, what, InvalidInput),
            metadata_of(options.get("metadata"), f"metadata of {what}", InvalidInput) or None,
            self._key(options.get("key"), data, what),
            0 if delay is None else duration_ms(delay, f"delay of {what}", InvalidInput, zero=True),
            "" if worker is None else _worker_id(worker, what),
            list(read_wishes(options.get("desired_worker_labels"), f"desired_worker_labels of {what}", InvalidInput)),
        )

    def _key(self, given: str | None, data: bytes, what: str) -> str:
        rule = self.idempotency_key
        if given is not None:
            return _checked_key(given, what)
        if rule is None:
            return ""
        return _checked_key(_by_path(rule, data, what) if isinstance(rule, str) else rule(self.parse_input(data)), what)

    async def _check_binding(self, client: Client, record: Start) -> None:
        """Refuse a `sticky_worker` that the run can't be bound to, before the start is written."""
        if record.worker:
            await check_binding(client, self.name, record.worker)

    def _lane(self, client: Client, record: Start) -> int:
        """The priority that the start is stored under."""
        if record.priority or self.workflow_priority:
            return record.priority or self.workflow_priority
        definition = client.definition(self.name)
        return definition.priority if definition is not None else 1

    def _store(self, client: Client, record: Start, size: int) -> RunRef[R]:
        client.put(record, size, self._lane(client, record))
        return self._ref(client, record)

    def _ref(self, client: Client, record: Start) -> RunRef[R]:
        return RunRef(ClientRuns(self.mesh.clients, client), record.run, self.parse_result, keyed=bool(record.key))

    def _result(self, done: Done) -> R:
        if done.status != SUCCEEDED:
            raise error_of(done)
        value: R = self.parse_result(bytes(done.output))
        return value


class Named(Startable[Any, Any]):
    """A workflow known by its name: plain JSON values in and out, validated on the worker.

    Args:
        mesh: where.
        name: the workflow's name.
        local: the workflow of that name, if this program defines one: its key and priority hold for starts by name too.
    """

    def __init__(self, mesh: Mesh, name: str, local: Startable[Any, Any] | None) -> None:
        super().__init__(mesh)
        self._name = name
        what = f"input of workflow {name!r}"
        self.dump_input = dumper(UNTYPED, what, InvalidInput)
        self.parse_input = parser(UNTYPED, what)
        self.parse_result = parser(UNTYPED, f"result of workflow {name!r}")
        if local is not None:
            self.parse_input = local.parse_input
            self.workflow_priority = local.workflow_priority
            self.idempotency_key = local.idempotency_key

    @property
    def name(self) -> str:
        """The workflow's name."""
        return self._name


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _worker_id(worker: object, what: str) -> str:
    if not isinstance(worker, str):
        raise InvalidInput(f"sticky_worker of {what} is {worker!r}: use the id of a worker, as text")
    return check_token(f"sticky_worker of {what}:", worker)


def _checked_key(key: object, what: str) -> str:
    if not isinstance(key, str) or not 1 <= len(key) <= KEY_CHARACTERS_MAX:
        raise InvalidInput(f"key of {what} is {shortened(key)}: use 1 to {KEY_CHARACTERS_MAX} characters of text")
    return key


def _by_path(path: str, data: bytes, what: str) -> str:
    """The text at a dotted path of the input, e.g. `input.order_id`."""
    found: Any = from_json(data)
    for part in path.removeprefix("input.").split("."):
        if not isinstance(found, dict) or part not in found:
            raise InvalidInput(f"idempotency_key {path!r} of {what}: the input has no {part!r} there")
        found = found[part]
    if isinstance(found, bool | dict | list) or found is None:
        raise InvalidInput(f"idempotency_key {path!r} of {what} leads to {found!r}: it must be text or a number")
    return str(found)
