"""One worker id, one worker: who holds it goes on, whoever comes second is told, and never do two work under one id."""

from __future__ import annotations

import asyncio
import re
import signal
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from mesh.cli.exits import Exit
from mesh_sdk import Context, Mesh
from mesh_sdk.transport.connection import Link
from mesh_sdk.worker.clock import Clock
from tests.faults import journal
from tests.faults.fleet import Fleet, Process
from tests.faults.sticky_fleet import STICKY_WORKER, Sticky

TTL_S = 5.0
"""The presence TTL on one server."""
GONE_S = TTL_S + 10.0
HELD = re.compile(r"mesh: worker id '(.+)' is held by worker 'sticky' \(started (.+), incarnation (\w+)\), which is alive: .+id=\)\n")


def newcomer(sticky: Sticky, id: str) -> Process:
    """A worker that says nothing but what ends it."""
    quiet = (*STICKY_WORKER, "--log-level", "error")
    return sticky.fleet.start(quiet, MESH_WORKER_ID=id, STICKY_FOLDER=str(sticky.folder), STICKY_SLOTS="2")


async def ended(process: Process, within_s: float = GONE_S) -> int:
    return await asyncio.to_thread(process.wait, within_s)


async def ready(process: Process) -> None:
    await asyncio.to_thread(process.line, "ready", GONE_S)


async def incarnation(mesh: Mesh, id: str) -> str:
    return next((worker.incarnation for worker in await mesh.workers.list() if worker.id == id), "")


async def test_the_holder_goes_on_and_the_newcomer_is_told_who_it_is(fleet: Fleet) -> None:
    began = time.time()
    sticky = Sticky(fleet)
    holder = sticky.workers(w0=2)["w0"]
    async with Mesh(url=fleet.server.url) as mesh:
        before = await incarnation(mesh, "w0")
        held = await mesh.start("hard_chain", {"gates": {"a": "open"}})
        await sticky.begins(held.run_id, "a", "w0")
        second = newcomer(sticky, "w0")
        ending = asyncio.create_task(ended(second))
        while not ending.done():
            assert await mesh.run("hard_chain", {}) == {"worker": "w0"}, "it works all the while"
        assert ending.result() == Exit.REFUSED
        told = HELD.fullmatch(second.output)
        assert told, second.output
        assert (told[1], told[3]) == ("w0", before)
        assert began - 1 <= datetime.fromisoformat(told[2]).astimezone(UTC).timestamp() <= time.time()
        sticky.open("open")
        assert await held.result() == {"worker": "w0"}
        assert await mesh.run("hard_chain", {}) == {"worker": "w0"}
        assert await incarnation(mesh, "w0") == before
    assert holder.code is None
    assert {seen.pid for seen in sticky.seen()} == {holder.pid}


async def test_a_frozen_holder_is_replaced_and_gives_way_when_it_wakes(fleet: Fleet, bus: Link) -> None:
    sticky = Sticky(fleet)
    frozen = sticky.workers(w0=2)["w0"]
    async with Mesh(url=fleet.server.url) as mesh:
        run = await mesh.start("hard_chain", {"gates": {"a": "open"}})
        await sticky.begins(run.run_id, "a", "w0")
        frozen.send(signal.SIGSTOP)
        began = time.monotonic()
        second = newcomer(sticky, "w0")
        await ready(second)
        assert time.monotonic() - began >= TTL_S, "it might only have been slow"
        frozen.send(signal.SIGCONT)
        code = await ended(frozen)
        assert code == Exit.REFUSED, frozen.output
        assert "which is alive" in frozen.output.splitlines()[-1]
        sticky.open("open")
        assert await run.result() == {"worker": "w0"}
        assert await mesh.run("hard_chain", {}) == {"worker": "w0"}
    assert second.code is None
    done = [seen for seen in sticky.seen(what="end") if seen.run == run.run_id]
    assert [(seen.step, seen.pid) for seen in done] == [("a", second.pid), ("b", second.pid), ("c", second.pid)]
    journal.check_once(await journal.records(bus))


async def test_a_holder_that_dies_meanwhile_is_replaced(fleet: Fleet, bus: Link) -> None:
    sticky = Sticky(fleet)
    holder = sticky.workers(w0=2)["w0"]
    async with Mesh(url=fleet.server.url) as mesh:
        run = await mesh.start("hard_chain", {"gates": {"a": "open"}})
        await sticky.begins(run.run_id, "a", "w0")
        asked: list[bytes] = []
        questions = await bus.subscribe(journal.NAMES.control("w0"), lambda subject, reply, data: asked.append(data))
        second = newcomer(sticky, "w0")
        await sticky.until("the newcomer has asked twice: it waits", lambda: sum(b"who" in data for data in asked) >= 2)
        await questions.close()
        holder.kill()
        killed = time.monotonic()
        await ready(second)
        assert time.monotonic() - killed < TTL_S
        sticky.open("open")
        assert await run.result() == {"worker": "w0"}
        assert second.code is None


@pytest.mark.parametrize("before", ["nobody", "killed"])
async def test_of_two_that_come_at_once_one_works(fleet: Fleet, bus: Link, before: str) -> None:
    sticky = Sticky(fleet)
    async with Mesh(url=fleet.server.url) as mesh:
        for round in range(2):
            id = f"w{round}"
            run = None
            if before == "killed":
                first = sticky.workers(**{id: 2})[id]
                run = await mesh.start("hard_chain", {"gates": {"a": f"open-{id}"}}, sticky_worker=id)
                await sticky.begins(run.run_id, "a", id)
                first.kill()
            rivals = [newcomer(sticky, id) for _ in range(2)]
            ends = [asyncio.create_task(ended(rival)) for rival in rivals]
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            loser = 0 if ends[0].done() else 1
            winner = rivals[1 - loser]
            assert await ends[loser] == Exit.REFUSED, rivals[loser].output
            assert HELD.fullmatch(rivals[loser].output), rivals[loser].output
            await ready(winner)
            sticky.open(f"open-{id}")
            if run is not None:
                assert await run.result() == {"worker": id}
            more = [await mesh.start("hard_chain", {}, sticky_worker=id) for _ in range(5)]
            assert [await ref.result() for ref in more] == [{"worker": id}] * 5
            assert {seen.pid for seen in sticky.seen(worker=id, what="end")} == {winner.pid}
            assert not ends[1 - loser].done()
            winner.kill()
            await ends[1 - loser]
    journal.check_once(await journal.records(bus))


async def test_a_newcomer_beside_a_draining_holder_is_told_so(fleet: Fleet) -> None:
    sticky = Sticky(fleet)
    holder = sticky.workers(w0=2)["w0"]
    async with Mesh(url=fleet.server.url) as mesh:
        run = await mesh.start("hard_chain", {"gates": {"a": "open"}})
        await sticky.begins(run.run_id, "a", "w0")
        holder.send(signal.SIGTERM)
        second = newcomer(sticky, "w0")
        assert await ended(second) == Exit.REFUSED
        assert re.search(r", incarnation \w+\), which is draining: wait until it has ended, or give .+id=\)\n", second.output), (
            second.output
        )
        sticky.open("open")
        assert await ended(holder) == 0


async def test_a_quick_restart_with_the_clock_set_back(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    sticky = Sticky(fleet)
    holder = sticky.workers(w0=2)["w0"]
    async with Mesh(url=fleet.server.url) as mesh:
        before = await incarnation(mesh, "w0")

        @mesh.task(name="again", sticky="HARD")
        async def again(ctx: Context) -> str:
            return ctx.worker.id()

        wall_ms = Clock.wall_ms
        monkeypatch.setattr(Clock, "wall_ms", staticmethod(lambda: wall_ms() - 3_600_000))
        stop, known = asyncio.Event(), asyncio.Event()
        holder.kill()
        serving = asyncio.create_task(mesh.worker("sticky", workflows=[again], id="w0").serve(stop=stop, on_ready=lambda _: known.set()))
        waiting = asyncio.create_task(known.wait())
        await asyncio.wait([serving, waiting], timeout=GONE_S, return_when=asyncio.FIRST_COMPLETED)
        assert waiting.done(), serving
        assert await again.run() == "w0"
        assert await incarnation(mesh, "w0") > before
        stop.set()
        await serving


# ---- ids that a subject can't carry --------------------------------------------------------------------------------------------

BAD = ["a b", "a.b", "*", ">", "w" * 65, "wörker", " ", "a/b"]


@pytest.mark.parametrize("id", BAD)
def test_an_id_that_cannot_be_is_refused_before_anything_is_opened(tmp_path: Path, id: str) -> None:
    (tmp_path / "ids.py").write_text(f"from mesh_sdk import Mesh\nworker = Mesh().worker('w', id={id!r})\n")
    nowhere = {
        "MESH_URL": "nats://127.0.0.1:1",
        "STICKY_FOLDER": str(tmp_path),
        "PYTHONPATH": f"{Path.cwd()}:{Path.cwd() / 'sdk'}:{tmp_path}",
    }
    given = nowhere | {"MESH_WORKER_ID": id}
    rows = [
        (Process((*STICKY_WORKER, "--log-level", "error"), tmp_path / "0.log", given), id, Exit.INVALID),
        (Process((*STICKY_WORKER, "--processes", "2"), tmp_path / "1.log", given), f"{id}-0", Exit.INVALID),
        (Process((*STICKY_WORKER[:-1], "ids"), tmp_path / "2.log", nowhere), id, Exit.DEFINITION),
    ]
    for process, named, code in rows:
        _refused(process, named, code)


def _refused(process: Process, id: str, code: Exit) -> None:
    assert process.wait() == code, process.output
    assert process.output.startswith("mesh: ")
    assert process.output.count("\n") == 1, process.output
    assert repr(id) in process.output
    assert "A-Z a-z 0-9 _ -" in process.output


def test_an_id_that_only_fits_without_the_number_of_the_process(tmp_path: Path) -> None:
    given = {"MESH_URL": "nats://127.0.0.1:1", "STICKY_FOLDER": str(tmp_path), "MESH_WORKER_ID": "w" * 63}
    _refused(Process((*STICKY_WORKER, "--processes", "2"), tmp_path / "log", given), "w" * 63 + "-0", Exit.INVALID)


async def test_an_empty_variable_is_no_id(fleet: Fleet) -> None:
    """As with every other setting: what is set to nothing is not set."""
    sticky = Sticky(fleet)
    process = newcomer(sticky, "")
    await ready(process)
    async with Mesh(url=fleet.server.url) as mesh:
        (worker,) = await mesh.workers.list()
        assert re.fullmatch(r"sticky-[0-9a-f]{6}", worker.id)
