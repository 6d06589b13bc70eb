"""Bad input of every kind: which error, which exit code, which value it names; and the mesh goes on as if nothing had been."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mesh.cli.app import run as mesh_command
from mesh.cli.exits import exit_code
from mesh.errors import PortTaken, StoreLocked
from mesh.server import EmbeddedServer
from mesh_sdk import Context, Mesh, errors
from mesh_sdk.protocol.records import REFUSED, VERSION
from mesh_sdk.protocol.subjects import Subjects
from mesh_sdk.transport.bus import Stored
from mesh_sdk.transport.connection import connect
from tests.faults.bad_definitions import DEFINITIONS, MODULE
from tests.faults.fleet import Fleet, await_that

NAMES = Subjects()
WITHIN_S = 10.0
NOBODY = "nats://127.0.0.1:1"


class Place:
    """A running mesh, and other servers that are not fit for one."""

    def __init__(self, fleet: Fleet, folder: Path) -> None:
        self.fleet = fleet
        self.folder = folder
        self.url = fleet.server.url

    async def good_run(self) -> None:
        """The loop was not stopped."""
        async with Mesh(url=self.url) as mesh, asyncio.timeout(WITHIN_S):
            assert await mesh.run("once", {"n": 7}) == {"n": 7}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with Fleet(tmp_path_factory.mktemp("fleet")) as fleet:
        fleet.scheduler()
        fleet.worker()
        yield Place(fleet, tmp_path_factory.mktemp("modules"))


# ---- definitions: refused where they are made --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DEFINITIONS)
def test_a_definition_that_cannot_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], name: str) -> None:
    definition, told = DEFINITIONS[name]
    source = MODULE.format(definition=definition)
    with pytest.raises(errors.DefinitionError, match=told):
        exec(compile(source, name, "exec"), {})
    (tmp_path / f"bad_{name}.py").write_text(source)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert mesh_command(["worker", f"bad_{name}"]) == 12
    _, error = capfd.readouterr()
    assert re.search(told, error)
    assert error.count("\n") == 1


# ---- what a running mesh refuses ----------------------------------------------------------------------------------------------


async def _typed_at_the_caller(mesh: Mesh) -> Any:
    from pydantic import BaseModel

    class Order(BaseModel):
        id: int

    @mesh.task(name="typed")
    async def typed(order: Order, ctx: Context) -> int:
        return order.id

    return await typed.run({"id": "not a number"})  # type: ignore[arg-type]


@dataclass(frozen=True)
class Refused:
    """One row: what is done, the exception, the exit code, the value that the message names."""

    name: str
    do: Callable[[Mesh], Awaitable[Any]]
    error: type[errors.MeshError]
    code: int
    told: str
    arguments: tuple[str, ...] = ()
    namespace: str = "default"


TABLE = [
    Refused("unregistered workflow", lambda m: m.run("nobody", {}), errors.UnknownWorkflow, 6, "nobody", ("run", "nobody", "{}")),
    Refused(
        "input that does not pass, by name", lambda m: m.run("typed", {"id": "seven"}), errors.RunFailed, 7, "valid integer",
        ("run", "typed", '{"id": "seven"}', "--wait"),
    ),
    Refused("input that does not pass, at the caller", _typed_at_the_caller, errors.InvalidInput, 11, "not a number"),
    Refused("output that is no JSON", lambda m: m.run("greedy", {}), errors.RunFailed, 7, "object", ("run", "greedy", "{}", "--wait")),
    Refused(
        "output over the limit", lambda m: m.run("greedy", {"size": 9_000_000}), errors.RunFailed, 7, "9,000,0",
        ("run", "greedy", '{"size": 9000000}', "--wait"),
    ),
    Refused("result over the limit", lambda m: m.run("wide", {"size": 500_000}), errors.RunFailed, 7, "PayloadTooLarge"),
    Refused("parents' outputs over the limit", lambda m: m.run("joined", {"size": 500_000}), errors.RunFailed, 7, "joined:join"),
    Refused("input over the limit", lambda m: m.run("once", {"n": "x" * 9_000_000}), errors.PayloadTooLarge, 11, "9,000,0"),
    Refused("event over the limit", lambda m: m.events.publish("user:create", "x" * 9_000_000), errors.PayloadTooLarge, 11, "9,000,0"),
    Refused(
        "event name", lambda m: m.events.publish("no spaces", {}), errors.InvalidName, 11, "no spaces", ("publish", "no spaces", "{}")
    ),
    Refused(
        "namespace without a scheduler", lambda m: m.run("once", {}), errors.Unavailable, 8, "elsewhere", ("run", "once", "{}"), "elsewhere"
    ),
    Refused("run that is unknown", lambda m: m.runs.get("0" * 32), errors.RunNotFound, 6, "0" * 32, ("runs", "show", "0" * 32)),
    Refused("cancel of an unknown run", lambda m: m.runs.cancel("0" * 32), errors.RunNotFound, 6, "0" * 32, ("runs", "cancel", "0" * 32)),
    Refused("cancel of no run id", lambda m: m.runs.cancel("nope"), errors.RunNotFound, 6, "nope", ("runs", "cancel", "nope")),
]  # fmt: skip


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.name)
def test_the_mesh_refuses_and_goes_on(place: Place, capfd: pytest.CaptureFixture[str], row: Refused) -> None:
    async def call() -> None:
        async with Mesh(url=place.url, namespace=row.namespace) as mesh:
            with pytest.raises(row.error) as raised:
                await row.do(mesh)
        assert type(raised.value) is row.error
        assert row.told in str(raised.value)
        assert exit_code(raised.value) == row.code
        await place.good_run()

    asyncio.run(call())
    if row.arguments:
        _command(capfd, [*row.arguments, "--url", place.url, "--namespace", row.namespace], row.code, row.told)


def _command(capfd: pytest.CaptureFixture[str], arguments: list[str], code: int, told: str) -> None:
    capfd.readouterr()
    assert mesh_command(arguments) == code
    _, error = capfd.readouterr()
    assert error.startswith("mesh: ")
    assert error.count("\n") == 1, error
    assert told in error


def test_a_namespace_that_cannot_be(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(errors.InvalidName, match=r"a\.b"):
        Mesh(url=NOBODY, namespace="a.b")
    _command(capfd, ["runs", "list", "--namespace", "a.b"], 11, "a.b")


def test_input_that_does_not_pass_is_not_tried_again(place: Place) -> None:
    async def call() -> None:
        async with Mesh(url=place.url) as mesh:
            ref = await mesh.start("typed", {"id": "seven"})
            with pytest.raises(errors.RunFailed):
                await ref.result()
            run = await mesh.runs.get(ref.run_id)
            assert run.steps["typed"].attempt == 1, "the step allows three retries"

    asyncio.run(call())


def test_parts_that_a_message_carries_are_joined(place: Place) -> None:
    async def call() -> None:
        async with Mesh(url=place.url) as mesh:
            assert await mesh.run("joined", {"size": 100_000}) == 2_000_000

    asyncio.run(call())


# ---- what lies in the streams ---------------------------------------------------------------------------------------------------

UNREADABLE = [
    ("event that is no JSON", NAMES.event("user:create"), b"{not json", "events", "is not JSON"),
    ("event that is no UTF-8", NAMES.event("user:create"), b'"\xff\xfe"', "events", "is not JSON"),
    ("event over the limit", NAMES.event("user:create"), b'"%s"' % (b"x" * 1_000_000), "events", "1,000,002 bytes"),
    ("event as large as the server takes", NAMES.event("user:create"), b'"%s"' % (b"x" * ((8 << 20) - 256)), "events", "8,388,354 bytes"),
    ("start over the limit", NAMES.trigger(1), b"x" * 1_000_000, "triggers", "1,000,000 bytes"),
    ("report over the limit", NAMES.report, b"x" * 1_000_000, "reports", "1,000,000 bytes"),
    ("start of another version", NAMES.trigger(1), json.dumps([VERSION + 1, "c", []]).encode(), "triggers", f"version {VERSION + 1}"),
    ("start that is no frame", NAMES.trigger(1), b"hello", "triggers", "TriggerFrame"),
    ("bad record in a frame", NAMES.trigger(1), json.dumps([VERSION, "c", [["start", 5]]]).encode(), "triggers", "str"),
    ("cancel that is no frame", NAMES.trigger_control, b"[]", "triggers", "version None"),
    ("report that is no frame", NAMES.report, b"\x00\x01", "reports", "ReportFrame"),
    ("report of an unknown kind", NAMES.report, json.dumps([VERSION, "w", "i", [["dance"]]]).encode(), "reports", "dance"),
]


@pytest.mark.parametrize(("name", "subject", "data", "source", "reason"), UNREADABLE, ids=[row[0] for row in UNREADABLE])
async def test_what_cannot_be_read_goes_to_the_dead_letters(
    place: Place, name: str, subject: str, data: bytes, source: str, reason: str
) -> None:
    bus = await connect([place.url], name="test")
    try:
        sequence = await bus.append(subject, data)
        letter = await _dead_letter(bus.read, source, sequence)
        assert reason in letter["reason"]
        assert letter["subject"] == subject
        await place.good_run()
    finally:
        await bus.close()


async def test_good_records_beside_a_bad_one_are_decided(place: Place) -> None:
    async with Mesh(url=place.url) as mesh:
        run = f"{0x19A00000000:012x}{'ab' * 10}"
        bus = await connect([place.url], name="test")
        frame = [VERSION, "c", [["start", 5], ["start", run, "once", {"n": 3}], ["nonsense"]]]
        sequence = await bus.append(NAMES.trigger(1), json.dumps(frame).encode())
        letter = await _dead_letter(bus.read, "triggers", sequence)
        assert letter["index"] in (0, 2)
        async with asyncio.timeout(WITHIN_S):
            while (await mesh.runs.get(run)).status != "succeeded":
                await asyncio.sleep(0.02)
        await bus.close()


async def test_an_event_that_nobody_listens_to_is_stored_and_starts_nothing(place: Place) -> None:
    async with Mesh(url=place.url) as mesh:
        await place.good_run()
        newest = (await mesh.runs.list(limit=1))[0]
        stored = await mesh.events.publish("nobody.listens", {"n": 1})
        bus = await connect([place.url], name="test")
        kept = await bus.get(NAMES.events_stream, stored.sequence)
        await bus.close()
        assert kept is not None
        assert kept.data == b'{"n":1}'
        await place.good_run()
        assert (await mesh.runs.list(limit=2))[1].run_id == newest.run_id


async def test_a_start_that_the_scheduler_itself_refuses_is_told(place: Place) -> None:
    """No SDK sends it: whoever awaits it is told all the same."""
    bus = await connect([place.url], name="test")
    heard: list[bytes] = []
    subscription = await bus.subscribe(NAMES.done("raw"), lambda subject, reply, data: heard.append(data))
    run = f"{0x19A00000000:012x}{'cd' * 10}"
    await bus.append(NAMES.trigger(1), json.dumps([VERSION, "raw", [["start", run, "nobody", {}]]]).encode())
    await asyncio.to_thread(await_that, "the notice", lambda: bool(heard), WITHIN_S)
    assert REFUSED.encode() in heard[0]
    assert b"nobody" in heard[0]
    await subscription.close()
    await bus.close()


async def _dead_letter(read: Callable[..., Awaitable[list[Stored]]], source: str, sequence: int) -> dict[str, Any]:
    async with asyncio.timeout(WITHIN_S):
        while True:
            for stored in await read(NAMES.dead_stream, NAMES.dead(source)):
                letter: dict[str, Any] = json.loads(stored.data)
                if letter["sequence"] == sequence:
                    return letter
            await asyncio.sleep(0.02)


# ---- servers that are not fit -----------------------------------------------------------------------------------------------------


def test_no_server() -> None:
    with pytest.raises(errors.ConnectionFailed, match=r"127\.0\.0\.1:1") as raised:
        asyncio.run(_connect(NOBODY))
    assert exit_code(raised.value) == 4


@pytest.mark.parametrize(
    ("version", "jetstream", "told"), [("2.11.4", True, "2.11.4"), ("2.15.1", False, "JetStream")], ids=["too old", "no JetStream"]
)
def test_a_server_that_lacks_something(capfd: pytest.CaptureFixture[str], version: str, jetstream: bool, told: str) -> None:
    with _pretender(version, jetstream) as url:
        with pytest.raises(errors.ServerUnsuitable, match=told):
            asyncio.run(_connect(url))
        _command(capfd, ["scheduler", "--url", url], 5, told)


async def _connect(url: str) -> None:
    await (await connect([url], name="test", connect_timeout=2.0)).close()


@contextmanager
def _pretender(version: str, jetstream: bool) -> Iterator[str]:
    """What says of itself that it is a server of this version; it answers pings, and questions that nobody listens to."""
    listener = socket.create_server(("127.0.0.1", 0))
    info = {"server_id": "X", "version": version, "max_payload": 1 << 20, "proto": 1, "headers": True, "jetstream": jetstream}

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection, connection.makefile("rwb", buffering=0) as file:
                file.write(b"INFO " + json.dumps(info).encode() + b"\r\n")
                _converse(file)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"nats://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


def _converse(file: Any) -> None:
    subscriptions: dict[bytes, bytes] = {}
    try:
        for line in iter(file.readline, b""):
            words = line.split()
            if words[:1] == [b"PING"]:
                file.write(b"PONG\r\n")
            elif words[:1] == [b"SUB"]:
                subscriptions[words[1]] = words[-1]
            elif words[:1] == [b"PUB"]:
                file.read(int(words[-1]) + 2)
                reply = words[2]
                for subject, sid in subscriptions.items():
                    if reply.startswith(subject.rstrip(b"*")):
                        file.write(b"HMSG %s %s 16 16\r\nNATS/1.0 503\r\n\r\n\r\n" % (reply, sid))
    except OSError:
        return


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(PortTaken, match=str(port)) as raised:
            EmbeddedServer(tmp_path / "store", port=port).start()
    assert exit_code(raised.value) == 10


def test_a_store_that_another_process_uses(place: Place) -> None:
    with pytest.raises(StoreLocked, match=str(place.fleet.server.store)) as raised:
        EmbeddedServer(place.fleet.server.store).start()
    assert exit_code(raised.value) == 9
