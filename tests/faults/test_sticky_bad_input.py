"""`sticky_worker=` that can't be: an error at the caller that names what is wrong and whom to take instead, and nothing written.

One run stands at a gate all the while: it is not disturbed, and ends where it began.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from mesh.cli.app import run as mesh_command
from mesh.cli.exits import exit_code
from mesh.core import records as facts
from mesh_sdk import InvalidInput, InvalidName, Mesh, Unavailable, UnknownWorkflow, leader
from mesh_sdk.protocol.subjects import Subjects
from mesh_sdk.transport.bus import Bus
from mesh_sdk.transport.connection import connect
from tests.faults import journal
from tests.faults.fleet import Fleet, Process
from tests.faults.sticky_fleet import Sticky, until_true, waiting

NAMES = Subjects()
STREAMS = (NAMES.triggers_stream, NAMES.events_stream, NAMES.reports_stream, NAMES.journal_stream)
WITHIN_S = 15.0
TOKENS = ["", "a b", "a.b", "*", ">", "w" * 65, "wörker"]


class Place:
    """Worker w0 has everything, w1 lacks two workflows; a run stands on w0."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.url = fleet.server.url
        self.sticky = Sticky(fleet)
        self.workers = {"w0": self.sticky.start("w0", 4), "w1": self.sticky.start("w1", 4, "hard_chain,child_hard")}
        for process in self.workers.values():
            fleet.ready(process)
        with _client(self.url) as mesh:
            self.live = mesh.start_sync("hard_chain", {"gates": {"a": "live"}}, sticky_worker="w0").run_id

    def finish(self) -> None:
        self.sticky.open("live")
        with _client(self.url) as mesh:
            assert mesh.ref(self.live).result_sync(WITHIN_S) == {"worker": "w0"}

    async def undisturbed(self, mesh: Mesh) -> None:
        """Every process lives, the run goes on in its first attempt, and the mesh works."""
        assert all(process.code is None for process in self.fleet.processes)
        run = await mesh.runs.get(self.live)
        assert (run.status, run.worker, run.moves) == ("running", "w0", 0)
        assert (run.steps["a"].status, run.steps["a"].worker, run.steps["a"].attempt) == ("running", "w0", 1)
        assert await mesh.run("soft_chain", {}, sticky_worker="w1") == {"worker": "w1"}


class _client:
    """A mesh for code without a loop, closed at the end."""

    def __init__(self, url: str) -> None:
        self.mesh = Mesh(url=url)

    def __enter__(self) -> Mesh:
        return self.mesh

    def __exit__(self, *error: object) -> None:
        self.mesh.close_sync()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with Fleet(tmp_path_factory.mktemp("fleet")) as fleet:
        made = Place(fleet)
        yield made
        made.finish()


@pytest.fixture
async def mesh(place: Place) -> AsyncIterator[Mesh]:
    async with Mesh(url=place.url) as mesh, asyncio.timeout(60):
        yield mesh


async def _lasts(bus: Bus) -> dict[str, int]:
    states = {stream: await bus.stream_state(stream) for stream in STREAMS}
    return {stream: state.last for stream, state in states.items() if state is not None}


@asynccontextmanager
async def nothing_written(place: Place, mesh: Mesh) -> AsyncIterator[None]:
    """No stream moves within, and everything goes on after."""
    bus = await connect([place.url], name="test")
    try:
        seen: list[dict[str, int]] = []

        async def accepted() -> bool:
            """The worker tells of a step that goes on for a while, a moment after it has begun."""
            return any(isinstance(record, facts.StepAccepted) for record in await journal.records(bus))

        async def still() -> bool:
            """What earlier tests set going has come to rest."""
            seen[:] = [*seen[-1:], await _lasts(bus)]
            await asyncio.sleep(0.1)
            return len(seen) == 2 and seen[0] == seen[1]

        await until_true("the run at the gate is reported", accepted)
        await until_true("the streams stand still", still)
        yield
        assert await _lasts(bus) == seen[1]
        await place.undisturbed(mesh)
        assert (await _lasts(bus))[NAMES.triggers_stream] > seen[1][NAMES.triggers_stream], "else nothing is proved"
    finally:
        await bus.close()


Way = Callable[[Mesh, str, str], Awaitable[Any]]


async def _accepted(mesh: Mesh, workflow: str, worker: str) -> str:
    return await mesh.start_nowait(workflow, {}, sticky_worker=worker).accepted()


async def _result(mesh: Mesh, workflow: str, worker: str) -> Any:
    return await mesh.start_nowait(workflow, {}, sticky_worker=worker).result()


WAYS: dict[str, Way] = {
    "start": lambda mesh, workflow, worker: mesh.start(workflow, {}, sticky_worker=worker),
    "run": lambda mesh, workflow, worker: mesh.run(workflow, {}, sticky_worker=worker),
    "run with a key": lambda mesh, workflow, worker: mesh.run(workflow, {}, sticky_worker=worker, key="k"),
    "start_nowait, accepted": _accepted,
    "start_nowait, result": _result,
    "run_many": lambda mesh, workflow, worker: mesh.run_many(workflow, [{}, {}], sticky_worker=worker),
    "start_sync": lambda mesh, workflow, worker: asyncio.to_thread(mesh.start_sync, workflow, {}, sticky_worker=worker),
    "run_sync": lambda mesh, workflow, worker: asyncio.to_thread(mesh.run_sync, workflow, {}, sticky_worker=worker),
    "run_many_sync": lambda mesh, workflow, worker: asyncio.to_thread(mesh.run_many_sync, workflow, [{}], sticky_worker=worker),
}

REFUSED = [
    ("nobody", "soft_chain", "ghost", "no worker of this id was ever seen in the namespace 'default'; these have it: w0, w1"),
    ("a worker without the workflow", "hard_chain", "w1", "worker 'w1' does not register hard_chain:a, hard_chain:b, hard_chain:c; "),
    ("an unsticky workflow", "child_free", "w0", "the workflow is not sticky"),
]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("workflow", "worker", "told"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
async def test_a_worker_that_the_run_cannot_be_bound_to(place: Place, mesh: Mesh, way: str, workflow: str, worker: str, told: str) -> None:
    async with nothing_written(place, mesh):
        with pytest.raises(InvalidInput) as refused:
            await WAYS[way](mesh, workflow, worker)
        assert str(refused.value).startswith(f"sticky_worker={worker!r} of the start of {workflow!r}: ")
        assert told in str(refused.value)
        assert ("these have it: w0" in str(refused.value)) == (workflow != "child_free")
        assert exit_code(refused.value) == 11
    if way in ("start_sync", "run_sync", "run_many_sync"):
        await asyncio.to_thread(mesh.close_sync)


@pytest.mark.parametrize("worker", [*TOKENS, 5, True, ["w0"], b"w0"], ids=repr)
@pytest.mark.parametrize("way", ["start", "start_nowait, accepted", "run_many"])
async def test_what_is_no_worker_id(place: Place, mesh: Mesh, way: str, worker: Any) -> None:
    bus = await connect([place.url], name="test")
    before = (await _lasts(bus))[NAMES.triggers_stream]
    with pytest.raises(InvalidName if isinstance(worker, str) else InvalidInput, match=re.escape(repr(worker))) as refused:
        await WAYS[way](mesh, "soft_chain", worker)
    assert "sticky_worker of the start of 'soft_chain'" in str(refused.value)
    assert (await _lasts(bus))[NAMES.triggers_stream] == before
    await bus.close()


async def test_starts_that_can_be_pass_those_that_cannot_in_their_order(place: Place, mesh: Mesh) -> None:
    workers = ["w0", "ghost", "w1", "w0", "ghost", None, "w1"]
    refs = [mesh.start_nowait("soft_chain", {}, **({"sticky_worker": worker} if worker else {})) for worker in workers]
    ends = await asyncio.gather(*[ref.result() for ref in refs], return_exceptions=True)
    for worker, end in zip(workers, ends, strict=True):
        if worker == "ghost":
            assert isinstance(end, InvalidInput)
        else:
            assert end["worker"] in ([worker] if worker else ["w0", "w1"])  # type: ignore[index]
    page = await mesh.runs.list(workflow="soft_chain", limit=5)
    assert [run.run_id for run in page] == [
        ref.run_id for ref, worker in reversed(list(zip(refs, workers, strict=True))) if worker != "ghost"
    ]


async def test_a_workflow_that_nobody_registered_is_told_first(place: Place, mesh: Mesh) -> None:
    async with nothing_written(place, mesh):
        with pytest.raises(UnknownWorkflow):
            await mesh.run("nothing", {}, sticky_worker="ghost")


def test_on_the_command_line(place: Place, capfd: pytest.CaptureFixture[str]) -> None:
    for worker, told in (("ghost", "ever seen"), ("a.b", "'a.b'")):
        assert mesh_command(["run", "soft_chain", "{}", "--sticky-worker", worker, "--url", place.url]) == 11
        out, error = capfd.readouterr()
        assert not out
        assert error.startswith("mesh: ")
        assert error.count("\n") == 1
        assert told in error


def _shown(url: str, capfd: pytest.CaptureFixture[str], run: str) -> dict[str, str]:
    capfd.readouterr()
    assert mesh_command(["runs", "show", run, "--url", url]) == 0
    lines = capfd.readouterr().out.splitlines()
    return dict(re.split(r"\s{2,}", line, maxsplit=1) for line in lines if re.match(r"\S+( \S+)*\s{2,}\S", line))  # type: ignore[misc]


async def test_a_worker_that_is_away_is_waited_for(place: Place, mesh: Mesh, capfd: pytest.CaptureFixture[str]) -> None:
    """It was there before: HARD waits for it, SOFT goes elsewhere at once; also when a lone server has forgotten its row."""
    away: Process = place.sticky.start("w2", 2)
    await asyncio.to_thread(place.fleet.ready, away)
    assert await mesh.run("hard_chain", {}, sticky_worker="w2") == {"worker": "w2"}
    away.kill()
    place.fleet.processes.remove(away)

    async def gone() -> bool:
        return "w2" not in {worker.id for worker in await mesh.workers.list()}

    await until_true("w2 is given up", gone)
    hard = await mesh.start("hard_chain", {}, sticky_worker="w2")
    told = await waiting(mesh, hard.run_id, "worker w2")
    assert told.wait is not None
    assert (told.wait.kind, told.wait.worker, told.wait.step, told.wait.then) == ("worker", "w2", "a", "given up")
    assert told.wait.since is not None
    assert told.wait.until is not None
    assert (told.wait.until - told.wait.since).total_seconds() == 300
    assert (told.sticky, told.worker, told.moves) == ("HARD", "w2", 0)
    shown = await asyncio.to_thread(_shown, place.url, capfd, hard.run_id)
    assert shown["reason"] == "waiting: worker w2 is away"
    assert shown["sticky"] == "HARD, bound to w2"
    assert shown["waiting step"] == "a"
    assert shown["waiting until"].endswith(", then it is given up")
    assert (await mesh.run("soft_chain", {}, sticky_worker="w2"))["worker"] in ("w0", "w1")

    bus = await connect([place.url], name="test")
    await bus.bucket(NAMES.slots_bucket).delete("w2")
    await bus.close()
    again = await mesh.start("hard_chain", {}, sticky_worker="w2")

    back = place.sticky.start("w2", 2)
    await asyncio.to_thread(place.fleet.ready, back)
    assert [await hard.result(), await again.result()] == [{"worker": "w2"}] * 2
    back.end()
    place.fleet.processes.remove(back)


async def test_a_check_waits_out_a_failover(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    sticky = Sticky(fleet)
    sticky.workers(w0=2)
    async with Mesh(url=fleet.server.url) as mesh:
        assert await mesh.run("hard_chain", {}, sticky_worker="w0") == {"worker": "w0"}
        sticky.scheduler.kill()
        starting = asyncio.create_task(mesh.start("hard_chain", {}, sticky_worker="w0"))
        refused = asyncio.create_task(mesh.start("hard_chain", {}, sticky_worker="ghost"))
        await asyncio.sleep(0)
        successor = await asyncio.to_thread(fleet.scheduler)
        assert await (await starting).result() == {"worker": "w0"}
        with pytest.raises(InvalidInput, match="ghost"):
            await refused
        successor.kill()
        bus = await connect([fleet.server.url], name="test")
        before = await _lasts(bus)
        monkeypatch.setattr(leader, "FAILOVER_S", 0.5)
        for way in ("start", "start_nowait, accepted"):
            with pytest.raises(Unavailable, match=r"^whether runs of 'hard_chain' can be bound to worker 'w0': .*no scheduler leads"):
                await WAYS[way](mesh, "hard_chain", "w0")
        assert (await _lasts(bus))[NAMES.triggers_stream] == before[NAMES.triggers_stream]
        await bus.close()
