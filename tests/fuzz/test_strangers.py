"""Single messages of a stranger that are aimed well: at the lease, the fence, the beats, a worker's name, other people's subjects.

Each could end the work of all; after each the work goes on, at the latest when another scheduler has taken over.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress

import msgspec
import pytest

from mesh.core import records as facts
from mesh_sdk import Mesh
from mesh_sdk.protocol.beats import LeaderBeat, WorkerBeat
from mesh_sdk.protocol.codec import encode
from mesh_sdk.protocol.definitions import StepDefinition, WorkflowDefinition
from mesh_sdk.protocol.records import NULL, VERSION, Assign, LaneFrame, Left, Register, ReportFrame
from mesh_sdk.transport.connection import Link, connect
from mesh_sdk.transport.errors import WrongSequence
from tests.faults import journal
from tests.faults.fleet import Fleet
from tests.fuzz.place import NAMES, Place, until

BACK_S = 20.0
FAR = 2**60
LOG_LINES_A_SECOND_MAX = 20


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """One for all that leave it as it was."""
    with Fleet(tmp_path_factory.mktemp("fleet")) as fleet:
        yield Place(fleet, 1)


@pytest.fixture
async def bus(place: Place) -> AsyncIterator[Link]:
    link = await connect([place.url], name="stranger")
    yield link
    await link.close()
    place.check_alive()


@pytest.fixture
async def own(fleet: Fleet) -> Place:
    """One that need not survive the test."""
    return await asyncio.to_thread(Place, fleet, 1)


@pytest.fixture
async def own_bus(own: Place) -> AsyncIterator[Link]:
    link = await connect([own.url], name="stranger")
    yield link
    await link.close()


async def goes_on(place: Place, within_s: float = BACK_S) -> None:
    """A run that is started now ends as it must."""
    async with Mesh(url=place.url) as mesh, asyncio.timeout(within_s):
        assert await mesh.run("once", {"n": 3}) == {"n": 3}


async def leaders(bus: Link) -> list[str]:
    """Who has led, in order, as the journal tells it."""
    return [record.holder for record in await journal.records(bus) if isinstance(record, facts.TermStarted)]


# ---- who leads --------------------------------------------------------------------------------------------------------------------


async def test_a_beat_of_a_term_that_never_was_deposes_nobody(own: Place, own_bus: Link) -> None:
    """Whoever believed it for good would hear no real leader any more, and try to take over again and again."""
    place, bus = own, own_bus
    first = await leaders(bus)
    for holder in ("stranger", "another"):
        bus.publish(NAMES.leader_beat, encode(LeaderBeat(VERSION, holder, FAR, FAR)))
    await goes_on(place)
    await asyncio.sleep(1.5)  # as long as several wrong guesses would take
    assert await leaders(bus) == first
    place.leader.kill()
    await goes_on(place)
    assert len(await leaders(bus)) == len(first) + 1


async def test_a_resignation_in_the_leaders_name_costs_a_term_at_most(place: Place, bus: Link) -> None:
    before = len(await leaders(bus))
    bus.publish(NAMES.leader_beat, encode(LeaderBeat(VERSION, "stranger", FAR, FAR, True)))
    await goes_on(place)
    assert len(await leaders(bus)) <= before + 2
    await place.check_records(bus)


async def test_a_lease_in_a_strangers_name(place: Place, bus: Link) -> None:
    """Without a TTL, so that it never expires: whoever leads steps down, and takes it over."""
    before = len(await leaders(bus))
    await bus.bucket(NAMES.leader_bucket).put("0", b"stranger")
    await until("another term", lambda: _terms(bus, before + 1), BACK_S)
    await goes_on(place)
    await place.check_records(bus)


@pytest.mark.parametrize("mark", [b"%d 0" % FAR, b"", b"\xff 1"], ids=["a term to come", "nothing", "no text"])
async def test_a_fence_that_a_stranger_has_set(place: Place, bus: Link, mark: bytes) -> None:
    """The batch after it is refused; the next term takes the fence, whatever it says of terms to come."""
    before = len(await leaders(bus))
    await bus.append(NAMES.lane_fence, mark)
    await goes_on(place)
    assert len(await leaders(bus)) == before + 1
    await place.check_records(bus)


async def _terms(bus: Link, count: int) -> bool:
    return len(await leaders(bus)) >= count


async def test_garbage_in_the_journal_is_passed_over(place: Place, bus: Link) -> None:
    """The one stream that nobody can do without: what no scheduler wrote there is set aside, and nobody believes it."""
    forged = encode([1, 1, 1, {}, [["run", "0" * 32, "once", "", NULL, 1, "", None, "", "", 0, None]]])
    before = await leaders(bus)
    for subject in (NAMES.journal, NAMES.all_journals.replace(">", "other")):
        for data in (b"garbage", forged):
            await bus.append(subject, data)
    await goes_on(place)
    assert await leaders(bus) == before
    assert sum(place.counted(scheduler, "mesh_dead_letters_total") for scheduler in (place.leader, *place.standbys)) >= 2
    assert "0" * 32 not in {record.run for record in await _readable(bus) if isinstance(record, facts.RunStarted)}
    await place.check_records(bus)


async def test_a_frame_of_a_stranger_is_never_believed(own: Place, own_bus: Link) -> None:
    """One that claims to be a scheduler's: nobody leads past what nobody can read, and everybody says so, at a bearable pace."""
    fleet, schedulers = own.fleet, (own.leader, *own.standbys)
    await _forge(own_bus)
    terms = [process.output.count("leads in term") for process in schedulers]
    async with Mesh(url=own.url) as mesh:
        ref = await mesh.start("once", {"n": 1})

        async def said() -> bool:
            return all("can't be followed" in process.output for process in schedulers)

        await until("both schedulers say what stops them", said, BACK_S)
        told = [process.output.count("\n") for process in schedulers]
        await asyncio.sleep(1.0)
        for process, lines, led in zip(schedulers, told, terms, strict=True):
            assert process.output.count("\n") - lines < LOG_LINES_A_SECOND_MAX
            assert process.output.count("leads in term") == led
            assert own.healthy(process)
        assert ref.run_id not in {run for run, *_ in fleet.executions()}
    assert not fleet.executions()
    own.check_alive()


async def _forge(bus: Link) -> None:
    """Something that nobody can read, with the expectation that a frame has; the leader may write in between."""
    async with asyncio.timeout(BACK_S):
        while True:
            last = await bus.last(NAMES.journal_stream, NAMES.journal)
            assert last is not None
            with suppress(WrongSequence):
                await bus.append(NAMES.journal, b"garbage", expect=last.sequence)
                return


async def _readable(bus: Link) -> list[facts.Fact]:
    found: list[facts.Fact] = []
    for stored in await bus.read(NAMES.journal_stream, NAMES.journal):
        with suppress(msgspec.MsgspecError):
            found += journal.decode_frame(stored.data).records
    return found


# ---- who works ----------------------------------------------------------------------------------------------------------------------


async def test_beats_in_names_that_no_subject_can_carry(place: Place, bus: Link) -> None:
    """The leader answers unknown workers: a server ends a connection that writes to 6,000 characters, or to no subject at all."""
    for _ in range(4):
        for worker in ("w" * 6_000, "a b", "", "w\r\nPUB x 0\r\n", "*", ">", "größe"):
            bus.publish(NAMES.worker_beat("x"), encode(WorkerBeat(VERSION, worker, "z", "n", 1, 0, 0, 1, 0)))
        await asyncio.sleep(0.4)
    await goes_on(place, 5)
    for process in (place.leader, *place.standbys):
        assert "connection was lost" not in process.output
        assert "Traceback" not in process.output


async def test_a_worker_registered_in_anothers_name(place: Place, bus: Link) -> None:
    """A later incarnation than there will ever be: nobody answers for it, and the real one starts over."""
    async with Mesh(url=place.url) as mesh:
        (worker,) = await mesh.workers.list()
        running = await mesh.start("slow", {"ms": 300})
        await until("the worker holds it", lambda: _holds_something(mesh))
        definition = WorkflowDefinition("once", [StepDefinition("once")])
        forged = Register("forged", 5, [definition], {}, "nobody")
        await bus.append(NAMES.report, encode(ReportFrame(VERSION, worker.id, "zzzz", [forged])))
        await goes_on(place)
        async with asyncio.timeout(BACK_S):
            assert await running.result() == {"worker": worker.id}
        assert [known.incarnation == "zzzz" for known in await mesh.workers.list()] == [False]
    await place.check_records(bus)


async def _holds_something(mesh: Mesh) -> bool:
    return any(row.used for row in await mesh.workers.list())


async def test_a_worker_that_somebody_else_says_good_bye_for(place: Place, bus: Link) -> None:
    async with Mesh(url=place.url) as mesh:
        (worker,) = await mesh.workers.list()
        await bus.append(NAMES.report, encode(ReportFrame(VERSION, worker.id, worker.incarnation, [Left()])))
        await goes_on(place)


async def test_workers_that_nobody_is(place: Place, bus: Link) -> None:
    """Fifty that answer nothing: found out within seconds, and none of them has kept any work."""
    definition = WorkflowDefinition("strangers", [StepDefinition("step")])
    for count in range(50):
        forged = Register("forged", 100_000, [definition], {}, "nobody")
        await bus.append(NAMES.report, encode(ReportFrame(VERSION, f"forged-{count}", "z", [forged])))
    async with Mesh(url=place.url) as mesh:
        await until("all of them known", lambda: _workers(mesh, 51))
        await goes_on(place)
        await until("all of them given up", lambda: _workers(mesh, 1), BACK_S)


async def _workers(mesh: Mesh, count: int) -> bool:
    return len(await mesh.workers.list()) == count


async def test_a_push_that_the_server_never_made_does_not_deafen_the_worker(place: Place, bus: Link) -> None:
    """It claims to be far ahead in the lane: what the stream really holds is still found, and nothing is run that no one knows."""
    async with Mesh(url=place.url) as mesh:
        (worker,) = await mesh.workers.list()
        frame = LaneFrame(VERSION, 1, [Assign("0" * 32, 0, 1, "forged", "no such workflow", "step", NULL, {})])
        await _push(place, NAMES.worker_push(worker.id, worker.incarnation), encode(frame), b"2020-01-01T00:00:00.000000000Z")
        async with asyncio.timeout(BACK_S):
            assert await mesh.run("parent", {"children": 2}) == 1
            await _stop_on_its_lane(mesh)


async def _push(place: Place, subject: str, data: bytes, stamp: bytes) -> None:
    """As a republished message looks, from a socket of one's own."""
    headers = b"NATS/1.0\r\nNats-Sequence: %d\r\nNats-Last-Sequence: 0\r\nNats-Time-Stamp: %b\r\n\r\n" % (FAR, stamp)
    await _raw(place, b"HPUB %b %d %d\r\n%b\r\n" % (subject.encode(), len(headers), len(headers) + len(data), headers + data))


async def _stop_on_its_lane(mesh: Mesh) -> None:
    """A cancel of what runs travels on the private lane: the step is stopped long before its own end."""
    ref = await mesh.start("slow", {"ms": 60_000})
    await until("the worker holds it", lambda: _holds_something(mesh))
    await mesh.runs.cancel(ref.run_id, "enough")
    while any(row.used for row in await mesh.workers.list()):
        await asyncio.sleep(0.02)


# ---- other people's subjects ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("who", ["leader", "standby", "worker"])
async def test_nobody_answers_into_a_subject_of_the_mesh(place: Place, bus: Link, who: str) -> None:
    """The reply subject is the asker's choice and no server checks it: an answer would be written with the answerer's permissions."""
    async with Mesh(url=place.url) as mesh:
        (worker,) = await mesh.workers.list()
        asked = {"leader": NAMES.api("workers.list"), "standby": NAMES.control("schedulers"), "worker": NAMES.control(worker.id)}[who]
        seen: list[list[int]] = []

        async def still() -> bool:
            """What earlier tests set going has come to rest."""
            seen[:] = [*seen[-1:], await _lasts(bus)]
            await asyncio.sleep(0.2)
            return len(seen) == 2 and seen[0] == seen[1]

        await until("the streams stand still", still)
        for reply in (NAMES.journal, NAMES.report, NAMES.lane_fence, NAMES.trigger(1), f"$KV.{NAMES.leader_bucket}.0"):
            bus.publish(asked, b"{}", reply)
        assert await bus.request(asked, b"{}", 5)
        assert await _lasts(bus) == seen[1]
        await place.good_run(mesh)


async def _lasts(bus: Link) -> list[int]:
    streams = NAMES.journal_stream, NAMES.reports_stream, NAMES.lanes_stream, NAMES.triggers_stream
    states = [await bus.stream_state(stream) for stream in streams]
    lease = await bus.bucket(NAMES.leader_bucket).get("0")
    assert lease is not None
    assert len(lease[0]) == 8, "a scheduler's id"
    return [state.last for state in states if state is not None]


async def test_an_event_whose_subject_is_no_text_is_an_event_all_the_same(place: Place, bus: Link) -> None:
    """The server takes any bytes and has acknowledged it: it must not vanish."""
    await _raw(place, b'PUB %b\xff\xfe 7\r\n{"n":1}\r\n' % NAMES.event("user:create").encode())
    async with Mesh(url=place.url) as mesh:

        async def ran() -> bool:
            return [(run.workflow, run.status) for run in await mesh.runs.list(limit=1)] == [("on_any", "succeeded")]

        await until("the run of whoever listens to user:*", ran)
    assert not [process for process in (place.leader, *place.standbys) if "UnicodeDecodeError" in process.output]


async def _raw(place: Place, lines: bytes) -> None:
    """Protocol lines from a socket of one's own, read by the server before this returns."""
    host, port = place.url.removeprefix("nats://").split(":")

    def send() -> None:
        with socket.create_connection((host, int(port)), timeout=5) as connection, connection.makefile("rwb") as file:
            file.write(b'CONNECT {"verbose":false,"headers":true}\r\n' + lines + b"PING\r\n")
            file.flush()
            while not file.readline().startswith(b"PONG"):
                pass

    await asyncio.to_thread(send)


async def test_a_text_that_is_no_text_spoils_nobodys_view(place: Place, bus: Link) -> None:
    """A payload is passed on as it is: bytes that are no UTF-8 would be in every answer that lists the run."""
    run = f"{0x19A00000000:012x}{'ab' * 10}"
    good = f"{0x19A00000000:012x}{'cd' * 10}"
    frame = b'[1,"c",[["start","%b","once",{"n":"\xff"}],["start","%b","once",{"n":1}]]]' % (run.encode(), good.encode())
    await bus.append(NAMES.trigger(1), frame)
    async with Mesh(url=place.url) as mesh:

        async def ended() -> bool:
            return {known.run_id: known.status for known in await mesh.runs.list()}.get(good) == "succeeded"

        await until("the good neighbour", ended)
        assert run not in {known.run_id for known in await mesh.runs.list()}


async def test_a_definition_in_the_bucket_that_is_none(place: Place, bus: Link) -> None:
    """Clients only look whether it is there; what is in it, the leader knows better."""
    for data in (b"", b"garbage", b'["once",[["\xff"]]]', b"[" * 5_000, b'["once",[],"",7]'):
        await bus.bucket(NAMES.workflows_bucket).put("once", data)
        await goes_on(place)
