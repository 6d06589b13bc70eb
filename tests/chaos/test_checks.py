"""The checkers of chaos runs find what is broken: a checker that can't fail proves nothing."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from mesh.core import records as facts
from mesh.core.records import JOURNAL_VERSION, JournalFrame
from tests.chaos import executions, history
from tests.chaos.audit import Audit, Frame
from tests.chaos.checks import Checks
from tests.chaos.clocks import Clocks
from tests.chaos.history import History, Line
from tests.chaos.ledger import Ledger
from tests.chaos.network import Mode, Network
from tests.chaos.report import figures
from tests.chaos.servers import Servers


class StillBus:
    """A connection that nothing comes from."""

    def reader(self, *_: Any, **__: Any) -> None:
        return None


def _audit(*records: facts.Recorded) -> Audit:
    audit = Audit(StillBus())  # type: ignore[arg-type]
    audit.frames = [Frame(place, place, f"d{place}", _frame(record), b"") for place, record in enumerate(records, 1)]
    return audit


def _frame(record: facts.Recorded) -> JournalFrame:
    return JournalFrame(JOURNAL_VERSION, 1, 0, {}, [record])


def _line(at: float, what: str, worker: str, run: str = "r", workflow: str = "soft", step: str = "top", attempt: int = 1) -> Line:
    fields = {"run": run, "workflow": workflow, "step": step, "attempt": attempt, "worker": worker, "moved": False}
    return Line(at, worker, int(worker[-1]), what, fields)


def _entered(lines: list[Line], audit: Audit | None = None, names: dict[tuple[str, int], str] | None = None, slots: int = 4) -> Ledger:
    ledger = Ledger([line for line in lines if line.what == "fault"])
    executions.check(ledger, executions.spans(lines), audit or _audit(), names or {}, slots)
    return ledger


def test_an_attempt_that_is_executed_twice_is_found() -> None:
    lines = [_line(1, "begin", "w-0"), _line(2, "end", "w-0"), _line(3, "begin", "w-1"), _line(4, "end", "w-1")]
    assert _entered(lines).broken == {"executed once": 2}


def test_a_hard_run_on_two_workers_is_found() -> None:
    lines = [_line(at, what, worker, workflow="hard", attempt=n) for at, what, worker, n in _one_after_the_other()]
    assert _entered(lines).broken == {"hard": 1}
    soft = [_line(at, what, worker, attempt=n) for at, what, worker, n in _one_after_the_other()]
    assert not _entered(soft).broken


def _one_after_the_other() -> list[tuple[float, str, str, int]]:
    return [(1, "begin", "w-0", 1), (2, "end", "w-0", 1), (3, "begin", "w-1", 2), (4, "end", "w-1", 2)]


def test_a_sticky_run_in_two_places_is_found_unless_its_worker_was_given_up() -> None:
    lines = [_line(1, "begin", "w-0"), _line(2, "begin", "w-1", attempt=2), _line(3, "end", "w-1", attempt=2), _line(4, "end", "w-0")]
    names = {("r", 0): "top"}
    released = [facts.StepReleased("r", 0, attempt, f"t{attempt}", "p", f"w-{attempt - 1}") for attempt in (1, 2)]
    assert _entered(lines, _audit(*released), names).broken == {"one place": 1}
    gone = facts.WorkerGone("w-0", "i", "silent")
    assert not _entered(lines, _audit(released[0], gone, released[1]), names).broken
    assert _entered(lines, _audit(gone, *released), names).broken == {"one place": 1}, "it was given up before, not meanwhile"
    late = [_line(1, "begin", "w-1", attempt=2), _line(2, "begin", "w-0"), _line(3, "end", "w-0"), _line(4, "end", "w-1", attempt=2)]
    assert not _entered(late, _audit(released[0], gone, released[1]), names).broken, "it was cut off and could not know"


def test_more_steps_than_slots_are_found_and_a_lent_slot_is_none() -> None:
    begun = [_line(n, "begin", "w-0", run=f"r{n}", workflow="one") for n in range(3)]
    ended = [_line(10 + n, "end", "w-0", run=f"r{n}", workflow="one") for n in range(3)]
    assert _entered([*begun, *ended], slots=2).broken == {"slots": 1}
    lends = _line(1.5, "lends", "w-0", run="r0", workflow="one")
    assert not _entered(sorted([*begun, *ended, lends]), slots=2).broken


def test_an_execution_without_an_end_lasts_until_its_process_was_killed() -> None:
    kill = Line(5, "chaos", 9, "fault", {"kind": "worker killed", "target": "w-0", "since": 3.0, "until": 5.0})
    (span,) = executions.spans([_line(1, "begin", "w-0"), kill])
    assert (span.until, span.how) == (3.0, "")


def test_what_was_acknowledged_and_is_not_stored_is_found() -> None:
    def ack(sequence: int, digest: str, stream: str = "journal", **contents: Any) -> Line:
        return Line(1.0, "scheduler-0", 1, "ack", {"stream": stream, "sequence": sequence, "digest": digest, **contents})

    audit = _audit(facts.CancelsDropped(1), facts.CancelsDropped(2))
    stored = [ack(1, "d1"), ack(2, "d2")]
    assert not Checks(stored, audit, 4).all().broken
    for lost in (ack(2, "another"), ack(3, "d3"), ack(7, "d7", "trigger", runs=["r-never-started"]), ack(7, "d7", "events")):
        assert Checks([*stored, lost], audit, 4).all().broken["stored"] == 1, lost
    report = ack(9, "d9", "report", finished=["token"])
    assert Checks([report], audit, 4).all().broken == {"recorded": 1}
    twice = [ack(9, "d9", "report"), ack(9, "d10", "report")]
    assert Checks(twice, audit, 4).all().broken == {"stored": 1}, "one sequence, acknowledged for two messages"


def test_starts_results_and_keys_that_are_not_kept_are_found() -> None:
    start = Line(1.0, "client-0", 1, "start", {"requested": "r", "workflow": "one", "n": 1, "key": ""})
    result = Line(2.0, "client-0", 1, "result", {"run": "r", "workflow": "one", "status": "succeeded", "value": 2, "error": ""})
    keyed = [Line(at, "client-0", 1, "keyed", {"requested": f"q{at}", "run": f"r{at}", "key": "k"}) for at in (1.0, 2.0)]
    event = Line(1.0, "client-0", 1, "event", {"name": "order.made", "sequence": 1, "n": 1})
    ledger = Checks([start, result, *keyed, event], _audit(), 4).all()
    assert ledger.broken == {"ends": 1, "result": 1, "key": 2, "event": 1}


def test_a_journal_that_makes_no_state_is_found() -> None:
    ledger = Checks([], _audit(facts.StepAccepted("unknown", "w-0")), 4).all()
    assert ledger.broken == {"state": 1}


def test_an_item_counts_for_the_faults_in_force() -> None:
    faults = [
        Line(9, "chaos", 1, "fault", {"kind": kind, "since": since, "until": since + 1, "target": ""})
        for kind, since in (("a", 1), ("b", 5))
    ]
    ledger = Ledger(faults)
    ledger.check("ends", True, "", 1.5, 3)
    ledger.check("ends", False, "late", 0, 9)
    summary = ledger.summary()["faults"]
    assert summary["a"]["promises"]["ends"] == {"checked": 2, "broken": 1}
    assert summary["b"]["promises"]["ends"] == {"checked": 1, "broken": 1}


def test_a_torn_line_of_a_killed_process_is_left_out(tmp_path: Path) -> None:
    History(tmp_path, "w-0").say("begin", run="r")
    (file,) = tmp_path.glob("*.jsonl")
    with file.open("a") as torn:
        torn.write('{"at": 1')
    assert [(line.what, line.role, line.fields) for line in history.read(tmp_path)] == [("begin", "w-0", {"run": "r"})]


# ---- the network ------------------------------------------------------------------------------------------------------


@pytest.fixture
async def echo() -> AsyncIterator[int]:
    """A server that says everything again."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(100):
            writer.write(data)
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()


async def _said(network: Network, mode: Mode) -> tuple[bytes, bytes]:
    """What comes back within a moment while the link does this, and what once it is as before."""
    port = int(network.url("p").rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"1")
    assert await reader.read(10) == b"1"
    await asyncio.to_thread(network.set, "p", [0], mode)
    found: list[bytes] = []
    for _ in range(2):
        try:
            writer.write(b"2" * (not found))
            found.append(await asyncio.wait_for(reader.read(10), 0.4))
        except TimeoutError:
            found.append(b"nothing")
        except ConnectionError:
            found.append(b"")
        await asyncio.to_thread(network.set, "p", [0], Mode.PASS)
    writer.transport.abort()
    return found[0], found[1]


@pytest.mark.parametrize(
    ("mode", "during", "after"),
    [
        (Mode.CUT, b"", b""),
        (Mode.HOLE, b"nothing", b"2"),
        (Mode.DEAF, b"nothing", b"2"),
        (Mode.MUTE, b"nothing", b"2"),
        (Mode.HALF_OPEN, b"nothing", b""),
        (Mode.DELAY, b"2", b"nothing"),
    ],
)
async def test_links(echo: int, mode: Mode, during: bytes, after: bytes) -> None:
    network = Network([echo])
    began = time.monotonic()
    try:
        async with asyncio.timeout(10):
            assert await _said(network, mode) == (during, after)
    finally:
        await asyncio.to_thread(network.close)
    assert time.monotonic() - began < 10


# ---- the network between the servers ----------------------------------------------------------------------------------


def _heard(servers: Servers, by: int) -> int:
    """How many other servers a server says it hears."""
    with urllib.request.urlopen(f"http://127.0.0.1:{servers.monitors[by]}/routez", timeout=5) as answer:
        return len({route["remote_id"] for route in json.load(answer)["routes"]})


async def _until(holds: Callable[[], bool], within_s: float) -> None:
    async with asyncio.timeout(within_s):
        while not await asyncio.to_thread(holds):
            await asyncio.sleep(0.05)


async def test_a_server_is_parted_from_the_others_and_finds_no_other_way(tmp_path: Path) -> None:
    servers = Servers(tmp_path, 3)
    try:
        await asyncio.to_thread(servers.start)
        await _until(lambda: [_heard(servers, by) for by in range(3)] == [2, 2, 2], 10)
        servers.part(0, Mode.CUT)
        await _until(lambda: [_heard(servers, by) for by in range(3)] == [0, 1, 1], 10)
        servers.part(0, Mode.PASS)
        await _until(lambda: [_heard(servers, by) for by in range(3)] == [2, 2, 2], 20)
        assert not servers.direct_routes()
    finally:
        await asyncio.to_thread(servers.stop)


# ---- the clocks -------------------------------------------------------------------------------------------------------

TELLS = """
import asyncio, sys, time, uvloop
async def main():
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        print(time.time(), time.monotonic(), time.clock_gettime(time.CLOCK_BOOTTIME), loop.time(), flush=True)
uvloop.run(main())
"""


def test_a_running_process_sees_its_wall_clock_jump_and_no_other(tmp_path: Path) -> None:
    clocks = Clocks(tmp_path / "clocks")
    if clocks.why_not:
        assert clocks.environment("p") == {}, "a run goes on without"
        return
    command = [sys.executable, "-c", TELLS]
    with subprocess.Popen(
        command, env=clocks.environment("p"), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        told = []
        for seconds in (0, -3_600, 86_400, 0):
            clocks.shift("p", seconds)
            process.stdin.write("\n")
            told.append([float(text) for text in process.stdout.readline().split()])
        process.stdin.close()
    walls, *steady = zip(*told, strict=True)
    assert [round((wall - walls[0]) / 60) for wall in walls] == [0, -60, 1_440, 0]
    for times in steady:
        assert times[0] <= times[1] <= times[2] <= times[3] < times[0] + 60
    clocks.forget([process.pid])


# ---- the report -------------------------------------------------------------------------------------------------------


def test_the_report_says_what_it_covers() -> None:
    run = {"seconds": 30.0, "replicas": 3, "machine": "M", "code": "c", "clean": True, "findings": [], "promises": {}}
    runs = [
        run | {"time": time, "seed": time, "figures": {"kills": 1_000 * time, "at rest after s": 1, "tail s": [0.1]}} for time in (1, 2)
    ]
    text = figures(runs)
    assert "2 times in a row: 2 runs with 2 different seeds, 2 of them clean, all on the same code; faults for 60 s" in text
    assert "| **all** | | | | **3,000** |" in text
    assert "**not all on the same code**" in figures([runs[0], runs[1] | {"code": "d"}])
    broken = runs[0] | {"clean": False, "findings": ["it broke"], "notes": ["clock jump: not possible here, x", "w-1 ended"]}
    assert "Left out: clock jump: not possible here, x." in figures([broken])
    assert "seed 1, 3 copies: it broke" in figures([broken])
