"""Steps that misbehave: each is seen and told, its own run alone pays, and the worker (or whoever replaces it) works on.

Whoever runs workers keeps them running: `Kept` starts a process again that has ended, as systemd or a cluster does.
"""

from __future__ import annotations

import asyncio
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from urllib.request import urlopen

import pytest

from mesh_sdk import Mesh, RunFailed
from mesh_sdk.errors import StepFailure
from mesh_sdk.transport.connection import connect
from tests.contract.servers import free_port
from tests.faults import journal
from tests.faults.contained_program import RAISED
from tests.faults.fleet import POLL_S, Fleet, Process

WORKER = (sys.executable, "-m", "mesh.cli", "worker", "tests.faults.contained_program")
WITHIN_S = 25.0
BLOCKED_S = 12.0
ACK_WAIT_S = 1.0
"""After which a message that nobody keeps in progress is given to another worker."""
FAILOVER_S = 3.0
MIB = 1024 * 1024


class Kept:
    """A worker that is started again whenever it has ended."""

    def __init__(self, fleet: Fleet, id: str, **environment: str) -> None:
        self.id = id
        self.port = free_port()
        self.ended: list[int] = []
        self._fleet = fleet
        self._environment = {"MESH_WORKER_ID": id, **environment}
        self._stop = threading.Event()
        self.process = self._start()
        fleet.ready(self.process)
        self._thread = threading.Thread(target=self._keep)
        self._thread.start()

    def _start(self) -> Process:
        return self._fleet.start((*WORKER, "--metrics-port", str(self.port)), **self._environment)

    def _keep(self) -> None:
        while not self._stop.wait(POLL_S * 10):
            if (code := self.process.code) is not None:
                self.ended.append(code)
                self.process = self._start()

    def metrics(self) -> str:
        with urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=5) as answer:
            return str(answer.read().decode())

    def close(self) -> None:
        self._stop.set()
        self._thread.join()


class Place:
    """A scheduler and two workers of one pool."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.scheduler = fleet.scheduler()
        self.workers = [Kept(fleet, f"w-{number}") for number in range(2)]

    def ended(self) -> int:
        return sum(len(worker.ended) for worker in self.workers)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with Fleet(tmp_path_factory.mktemp("fleet")) as fleet:
        made = Place(fleet)
        yield made
        for worker in made.workers:
            worker.close()


@pytest.fixture
async def mesh(place: Place) -> AsyncIterator[Mesh]:
    async with Mesh(url=place.fleet.server.url) as mesh, asyncio.timeout(55):
        yield mesh
        await works_on(mesh)
    assert place.scheduler.code is None


async def works_on(mesh: Mesh) -> None:
    """Both workers are there and take work."""
    seen: set[str] = set()
    async with asyncio.timeout(WITHIN_S):
        while seen != {"w-0", "w-1"}:
            results = await asyncio.gather(*[mesh.run("fine", {"ms": 30}) for _ in range(8)])
            seen = {result["worker"] for result in results}


async def failure(mesh: Mesh, workflow: str, input: dict[str, object]) -> StepFailure:
    """How its one step failed."""
    with pytest.raises(RunFailed) as raised:
        async with asyncio.timeout(50):
            await mesh.run(workflow, input)
    (error,) = raised.value.errors
    return error


# ---- it stops the others ----------------------------------------------------------------------------------------------------------


async def test_a_step_that_blocks_the_event_loop_is_seen_and_others_work_elsewhere(place: Place, mesh: Mesh) -> None:
    ref = await mesh.start("blocks", {"seconds": BLOCKED_S, "after_ms": 300})
    while not any(row.used for row in await mesh.workers.list()):
        await asyncio.sleep(0.02)
    began = time.monotonic()
    await asyncio.sleep(1.0)
    results = [await mesh.run("fine", {}) for _ in range(10)]
    assert time.monotonic() - began < BLOCKED_S / 2, "others waited for it"
    (elsewhere,) = {result["worker"] for result in results}
    assert await ref.result() == ({"w-0", "w-1"} - {elsewhere}).pop()
    assert time.monotonic() - began >= BLOCKED_S - 1
    (blocked,) = [worker for worker in place.workers if worker.id != elsewhere]
    assert "the event loop was blocked for" in blocked.process.output
    lags = [line for line in blocked.metrics().splitlines() if line.startswith("mesh_worker_event_loop_lag_seconds_sum")]
    assert sum(float(line.rpartition(" ")[2]) for line in lags) > BLOCKED_S / 2
    assert place.ended() == 0


@pytest.mark.parametrize("seconds", [2.0, 4.0])
async def test_a_step_that_blocks_at_once_runs_once(place: Place, mesh: Mesh, seconds: float) -> None:
    """Its worker can't say any more that it has begun; still it is not given to the other one, which goes on with other work."""
    ref = await mesh.start("blocks", {"seconds": seconds})
    blocked = asyncio.ensure_future(ref.result())
    while not any(run == ref.run_id for run, *_ in place.fleet.executions()):
        await asyncio.sleep(0.01)
    others = [asyncio.ensure_future(mesh.run("fine", {})) for _ in range(20)]
    elsewhere = {"w-0", "w-1"} - {await blocked}
    meanwhile = [run.result()["worker"] for run in others if run.done()]
    assert len(meanwhile) >= 10, "but for what the blocked one had asked for before"
    assert set(meanwhile) == elsewhere
    await asyncio.gather(*others)
    assert [what[1:4] for what in place.fleet.executions() if what[0] == ref.run_id] == [("blocks", 1, "start"), ("blocks", 1, "end")]
    assert (await mesh.runs.get(ref.run_id)).steps["blocks"].attempt == 1
    assert place.ended() == 0


async def test_what_a_blocked_worker_held_goes_elsewhere_when_it_is_killed(place: Place, mesh: Mesh) -> None:
    ref = await mesh.start("blocks", {"seconds": 60.0, "once": True})
    while not (begun := [pid for run, *_, pid in place.fleet.executions() if run == ref.run_id]):
        await asyncio.sleep(0.01)
    await asyncio.sleep(ACK_WAIT_S * 1.5)
    assert (await mesh.runs.get(ref.run_id)).steps["blocks"].attempt == 1
    (blocked,) = [worker for worker in place.workers if worker.process.pid == begun[0]]
    before = place.ended()
    began = time.monotonic()
    blocked.process.send(signal.SIGKILL)
    assert await ref.result() in ("w-0", "w-1")
    assert time.monotonic() - began < FAILOVER_S
    assert (await mesh.runs.get(ref.run_id)).steps["blocks"].attempt == 2
    async with asyncio.timeout(WITHIN_S):
        while place.ended() == before:
            await asyncio.sleep(POLL_S)


async def test_a_step_that_leaks_threads(place: Place, mesh: Mesh) -> None:
    assert await mesh.run("leaks_threads", {"count": 100}) > 100


# ---- what it gives back -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("input", [{"bytes": 100 * MIB}, {"what": "itself"}, {"what": "deep"}, {"what": "unwritable"}], ids=repr)
async def test_what_no_message_carries_fails_the_step_and_nothing_else(place: Place, mesh: Mesh, input: dict[str, object]) -> None:
    before = place.ended()
    error = await failure(mesh, "returns", input)
    assert error.attempt == 1 or "bytes" in input  # writing 100 MiB may block a worker for longer than its message waits
    assert error.message
    assert len(error.message) < 10_000
    assert place.ended() == before


async def test_an_input_that_ends_whoever_reads_it(place: Place, mesh: Mesh) -> None:
    error = await failure(mesh, "reads", {"n": 1})
    assert (error.type, error.attempt) == ("KeyboardInterrupt", 1)


@pytest.mark.parametrize("workflow", ["raises", "raises_sync"])
@pytest.mark.parametrize("kind", RAISED)
async def test_whatever_it_raises_is_told(place: Place, mesh: Mesh, workflow: str, kind: str) -> None:
    before = place.ended()
    error = await failure(mesh, workflow, {"kind": kind})
    assert error.type == kind or (kind == "StopIteration" and error.type == "RuntimeError"), error
    assert len(error.message) < 10_000
    assert place.ended() == before


# ---- it takes its process along -------------------------------------------------------------------------------------------------------


async def test_a_step_whose_process_is_killed_is_tried_again(place: Place, mesh: Mesh) -> None:
    before = place.ended()
    ref = await mesh.start("killed", {})
    async with asyncio.timeout(WITHIN_S):
        assert await ref.result() is None
    run = await mesh.runs.get(ref.run_id)
    assert run.steps["killed"].attempt == 2
    assert place.ended() == before + 1


async def test_a_step_that_closes_every_file(place: Place, mesh: Mesh) -> None:
    """The loop's own descriptor is among them: whatever is left of the process, the step is run again and the pool works."""
    ref = await mesh.start("closes_files", {})
    async with asyncio.timeout(WITHIN_S):
        assert await ref.result() == "done"


async def test_a_step_that_cancels_every_task(place: Place, mesh: Mesh) -> None:
    error = await failure(mesh, "cancels_all", {})
    assert error.type == "CancelledError"


async def test_a_step_that_meddles_with_the_process(place: Place, mesh: Mesh) -> None:
    assert await mesh.run("meddles", {}) == "done"
    await works_on(mesh)


@pytest.mark.timeout(120)
async def test_a_step_that_ends_its_process_again_and_again_is_given_up(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Infrastructure failures have a limit of their own, and good work goes on all the while."""
    with Fleet(tmp_path_factory.mktemp("fleet")) as fleet:
        place = await asyncio.to_thread(Place, fleet)
        try:
            async with Mesh(url=fleet.server.url) as mesh, asyncio.timeout(110):
                ref = await mesh.start("exits", {})
                done = asyncio.ensure_future(ref.result())
                good = 0
                while not done.done():
                    async with asyncio.timeout(WITHIN_S):
                        await mesh.run("fine", {})
                    good += 1
                    await asyncio.sleep(0.1)
                with pytest.raises(RunFailed, match="given up after 11 such losses"):
                    await done
                assert place.ended() <= 11
                assert good >= 3
                await works_on(mesh)
            bus = await connect([fleet.server.url], name="test")
            journal.check_once(await journal.records(bus))
            await bus.close()
        finally:
            for worker in place.workers:
                worker.close()


async def test_a_step_that_takes_more_memory_than_there_is(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The limit is its process's own: the step fails with MemoryError, or its process ends and another one goes on."""
    with Fleet(tmp_path_factory.mktemp("fleet")) as fleet:
        fleet.scheduler()
        worker = await asyncio.to_thread(lambda: Kept(fleet, "w-0", CONTAINED_MIB="1024", FAULTS_SLOTS="2"))
        try:
            async with Mesh(url=fleet.server.url) as mesh, asyncio.timeout(50):
                error = await failure(mesh, "eats", {})
                assert (error.type, error.attempt) == ("MemoryError", 1)
                assert await mesh.run("fine", {}) == {"worker": "w-0"}
                assert worker.ended == []
        finally:
            worker.close()
