"""Thousands of a stranger's messages on every subject of a mesh at work: it works on as if nothing had been, and says what it met.

`MESH_FUZZ_SEED` repeats a storm, `MESH_FUZZ_MESSAGES` makes it longer.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from typing import Any

import msgspec
import nats
import pytest

from mesh.core import records as facts
from mesh.core.inputs import Unreadable
from mesh.scheduler.inbox import Inbox
from mesh_sdk import Mesh
from mesh_sdk.protocol.codec import BadFrame, lane_frames
from mesh_sdk.protocol.records import Assign
from mesh_sdk.transport.bus import Delivery
from mesh_sdk.transport.connection import Link
from mesh_sdk.transport.errors import TransportError
from tests.faults import journal
from tests.faults.fleet import Fleet
from tests.fuzz.place import NAMES, Place, resident_bytes, until
from tests.fuzz.storm import Message, Storm

SEED = int(os.environ.get("MESH_FUZZ_SEED", "20251"))
MESSAGES = int(os.environ.get("MESH_FUZZ_MESSAGES", "6000"))
ROUND = 60
GOOD_RUNS = 20
GROWTH_BYTES_MAX = 120 * 1024 * 1024
ANSWER_S = 5.0
INBOX = Inbox(NAMES, lambda source: None)
Rejected = tuple[str, int, int]


class Sent:
    """What a storm has stored: where, under which sequence."""

    def __init__(self, bus: Link) -> None:
        self._bus = bus
        self._on_their_way: list[tuple[str, bytes, asyncio.Future[int]]] = []
        self.stored: list[tuple[str, bytes, int]] = []

    def put(self, subject: str, data: bytes) -> None:
        self._on_their_way.append((subject, data, self._bus.append_soon(subject, data, timeout=30)))

    async def settle(self) -> None:
        for subject, data, future in self._on_their_way:
            self.stored.append((subject, data, await future))
        self._on_their_way.clear()

    def rejected(self) -> set[Rejected]:
        """What the inbox can't read of it: (dead letters' source, sequence, index)."""
        found: set[Rejected] = set()
        for subject, data, sequence in self.stored:
            events = subject.startswith(NAMES.all_events[:-1])
            (source,) = [source for source in INBOX.sources if source.subject == (NAMES.all_events if events else subject)]
            for input, _ in source.decode(Delivery(sequence, 0, subject, data, 0, None)):
                if isinstance(input, Unreadable):
                    found.add((source.name, input.sequence, input.index))
        return found


class Good:
    """Work that nobody disturbs: started before, among and after, each with the one right result."""

    def __init__(self, mesh: Mesh) -> None:
        self._mesh = mesh
        self._runs: list[tuple[Any, Any]] = []

    async def start(self, n: int) -> None:
        for workflow, input, result in (
            ("once", {"n": n}, {"n": n}),
            ("Chain", {"n": n, "ms": 20}, n + 3),
            ("tried_again", {}, 1),
            ("parent", {"children": 2}, 1),
        ):
            self._runs.append((await self._mesh.start(workflow, input), result))

    async def check(self) -> set[str]:
        """Their ids, once they have all ended as they must."""
        async with asyncio.timeout(30):
            for ref, result in self._runs:
                assert await ref.result() == result
        return {ref.run_id for ref, _ in self._runs}


@pytest.fixture
async def place(fleet: Fleet) -> Place:
    return await asyncio.to_thread(Place, fleet, 1)


async def _storm(mesh: Mesh, bus: Link) -> Storm:
    """Knows of the mesh what a stranger can find out, real messages to replay among it."""
    (worker,) = await mesh.workers.list()
    heard: list[Message] = []
    tap = await bus.subscribe(NAMES.prefix + ".*.0", lambda subject, reply, data: heard.append((subject, data)))
    other = await bus.subscribe(NAMES.prefix + ".trigger.>", lambda subject, reply, data: heard.append((subject, data)))
    for n in range(5):
        await mesh.run("once", {"n": n})
    replays = [(subject, data) for subject, data in heard if subject == NAMES.report or ".trigger." in subject]
    assert len(replays) >= 10
    await tap.close()
    await other.close()
    client = mesh.ref("0" * 32)._source._clients.here().client_id  # type: ignore[attr-defined]
    registered = [record for record in await journal.records(bus) if isinstance(record, facts.WorkerRegistered)]
    clients = [client, "nobody", *(record.client for record in registered)]
    return Storm(SEED, NAMES, worker.id, worker.incarnation, worker.pool, clients, replays)


async def _ask(bus: Link, storm: Storm) -> None:
    """Whatever is asked is answered, in time, and with an object."""
    call, body = storm.question()
    answer = msgspec.json.decode(await bus.request(NAMES.api(call), body, ANSWER_S), type=dict[str, Any])
    assert set(answer) in ({"ok"}, {"error"}), answer


async def _send(storm: Storm, bus: Link, sent: Sent, lanes: list[bytes]) -> None:
    for _ in range(ROUND // 4):
        sent.put(*storm.stored())
        sent.put(*storm.stored())
        bus.publish(*storm.passing())
        subject, data = storm.lane()
        bus.publish(subject, data)
        lanes.append(data)
    bucket, key, value = storm.bucket()
    try:
        await bus.bucket(bucket).put(key, value)
    except TransportError:
        assert key == "a.b", "a bucket of one-token keys may refuse it"
    await sent.settle()


@pytest.mark.timeout(120)
async def test_a_storm_of_strange_messages_disturbs_nothing(place: Place, bus: Link) -> None:
    print(f"seed {SEED}: MESH_FUZZ_SEED={SEED} repeats this storm")
    async with Mesh(url=place.url) as mesh:
        await place.good_run(mesh)
        storm, sent, good = await _storm(mesh, bus), Sent(bus), Good(mesh)
        before = {process.pid: resident_bytes(process) for process in place.fleet.processes}
        lanes: list[bytes] = []
        slowest = 0.0
        for n in range(MESSAGES // ROUND):
            if n % max(1, MESSAGES // ROUND // GOOD_RUNS) == 0:
                await good.start(n)
            await _send(storm, bus, sent, lanes)
            began = time.monotonic()
            await _ask(bus, storm)
            slowest = max(slowest, time.monotonic() - began)
            place.check_alive()
        mine = await good.check()
        await place.good_run(mesh)
        assert slowest < ANSWER_S
        await _check_dead_letters(place, bus, sent)
        await _check_lanes(place, lanes)
        await _check_executed(place, bus, mine)
        assert len(await mesh.runs.list(limit=100)) == 100
        for process in place.fleet.processes:
            grown = resident_bytes(process) - before[process.pid]
            assert grown < GROWTH_BYTES_MAX, f"{process.command[2:]} has grown by {grown:,} bytes"
            assert place.healthy(process)
        assert len([record for record in await journal.records(bus) if isinstance(record, facts.TermStarted)]) == 1
        await place.check_records(bus)


async def _check_dead_letters(place: Place, bus: Link, sent: Sent) -> None:
    """Each thing that can't be read has one letter, with a reason, and is counted."""
    expected = sent.rejected()
    assert len(expected) > MESSAGES // 20, "else it was no storm"
    letters: list[dict[str, Any]] = []

    async def there() -> bool:
        found = [await bus.read(NAMES.dead_stream, NAMES.dead(source)) for source in ("events", "triggers", "reports")]
        letters[:] = [msgspec.json.decode(stored.data) for kind in found for stored in kind]
        return len(letters) >= len(expected)

    await until("the dead letters", there, 30)
    assert Counter((letter["source"], letter["sequence"], letter["index"]) for letter in letters) == Counter(dict.fromkeys(expected, 1))
    assert all(letter["reason"] and len(letter["reason"]) <= 1_000 for letter in letters)
    assert place.counted(place.leader, "mesh_dead_letters_total") == len(expected)


async def _check_lanes(place: Place, lanes: list[bytes]) -> None:
    """The worker has set aside what it can't read, and counted it."""
    assert place.counted(place.worker, "mesh_dead_letters_total") > 0
    assert any(_unreadable(data) for data in lanes)
    assert place.counted(place.worker, "mesh_worker_ready") == 1


def _unreadable(data: bytes) -> bool:
    try:
        frame, bad = lane_frames.decode(data)
    except BadFrame:
        return True
    assert not any(isinstance(order, Assign) and order.workflow == "once" for order in frame.records), "the storm would be work"
    return bool(bad)


async def _check_executed(place: Place, bus: Link, mine: set[str]) -> None:
    """Only what was started, by us: of the strangers' starts, good and replayed, none."""
    started = [record for record in await journal.records(bus) if isinstance(record, facts.RunStarted)]
    assert {run for run, *_ in place.fleet.executions()} == {record.run for record in started}
    strange = [record for record in started if record.workflow not in ("once", "Chain", "tried_again", "parent")]
    assert not strange, strange[:3]
    roots = {record.run for record in started if record.parent is None}
    assert mine <= roots
    assert len(roots) == len(mine) + 7, "two runs of our own around it, and five to be replayed"


async def test_headers_as_large_as_the_server_takes(place: Place, bus: Link) -> None:
    client = await nats.connect(place.url)
    try:
        for text in (
            "{" * 20_000,
            '{"a":1}',
            '{"a":"' + "x" * 50_000 + '"}',
            "\x01",
            "[" * 30_000,
            '{"' + '":"","'.join(map(str, range(9_000))),
        ):
            await client.publish(NAMES.event("user:create"), b'{"n":1}', headers={"Mesh-Metadata": text, "Nats-Expected-Stream": ""})
            await client.publish(NAMES.event("user:create"), b'{"n":1}', headers={"Mesh-Metadata": text})
        await client.flush()
        async with Mesh(url=place.url) as mesh:
            await place.good_run(mesh)
            async with asyncio.timeout(ANSWER_S):
                while not [run for run in await mesh.runs.list() if run.workflow == "on_user" and run.status == "succeeded"]:
                    await asyncio.sleep(0.02)
    finally:
        await client.close()
    place.check_alive()
