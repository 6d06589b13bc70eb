"""A leader that dies between any two phases of a frame, whatever it was deciding: nothing is lost, nothing doubled."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from mesh.core import records as facts
from mesh_sdk import Mesh
from mesh_sdk.refs import RunRef
from mesh_sdk.transport.connection import Link
from tests.faults import journal
from tests.faults.fleet import LEADER, Fleet, Process
from tests.faults.leader import DIED, KINDS, PHASES

RESULT_S = 10.0
TAKEOVER_S = 2.0


class Schedulers:
    """The leader, and one that stands by."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.leader = fleet.ready(fleet.start(LEADER))
        self.standby = fleet.ready(fleet.start(LEADER))

    def replace(self) -> None:
        """The leader has died: the standby leads, and gets a standby of its own."""
        self.leader = self.standby
        self.standby = self.fleet.start(LEADER)  # ready by the time that it is needed


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """One for all cases."""
    with Fleet(tmp_path_factory.mktemp("fleet")) as running:
        yield running


@pytest.fixture(scope="module")
def schedulers(fleet: Fleet) -> Schedulers:
    schedulers = Schedulers(fleet)
    fleet.worker("stays")
    return schedulers


async def _begin(mesh: Mesh, kind: str) -> RunRef[object] | None:
    """Have the leader decide something of the kind."""
    if kind == "event":
        await mesh.events.publish("user:create", {"n": 5})
        return None
    if kind == "timer":
        return await mesh.start("tried_again", {})
    if kind == "lost worker":
        return None
    return await mesh.start("Chain", {"n": 0})


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("kind", list(KINDS))
async def test_a_leader_that_dies(schedulers: Schedulers, bus: Link, kind: str, phase: str) -> None:
    fleet = schedulers.fleet
    lost: Process | None = None
    before = len(await journal.records(bus))
    async with Mesh(url=fleet.server.url) as mesh:
        held: list[RunRef[object]] = []
        if kind == "lost worker":
            lost = await asyncio.to_thread(fleet.worker, "goes", 4)
            held = [await mesh.start("slow", {"ms": 800}) for _ in range(14)]
            await _until_held(mesh, "goes")
        await asyncio.to_thread(schedulers.standby.line, "ready")
        schedulers.leader.tell(f"die {kind} {phase}")
        await asyncio.to_thread(schedulers.leader.line, f"armed {kind} {phase}")
        ref = await _begin(mesh, kind)
        if lost is not None:
            await asyncio.to_thread(lost.kill)
        assert await asyncio.to_thread(schedulers.leader.wait, RESULT_S) == DIED
        schedulers.replace()
        async with asyncio.timeout(RESULT_S):
            if ref is not None:
                assert await ref.result() == (1 if kind == "timer" else 3)
            for each in held:
                assert (await each.result())["worker"] in {"stays", "goes"}  # type: ignore[index]
            if kind == "event":
                await _until_finished(mesh, {"on_user": 1, "on_any": 1}, before, bus)
    assert await _terms(bus, before) == 1, "another process has taken over, once"
    found = await journal.records(bus)
    journal.check_once(found)
    journal.check_executions(fleet.executions())


async def _terms(bus: Link, before: int) -> int:
    """How many terms have begun since; waits for the first."""
    async with asyncio.timeout(TAKEOVER_S):
        while True:
            found = (await journal.records(bus))[before:]
            if terms := sum(isinstance(record, facts.TermStarted) for record in found):
                return terms
            await asyncio.sleep(0.02)


async def _until_held(mesh: Mesh, worker: str) -> None:
    async with asyncio.timeout(RESULT_S):
        while sum(row.used for row in await mesh.workers.list() if row.id == worker) == 0:
            await asyncio.sleep(0.02)


async def _until_finished(mesh: Mesh, wanted: dict[str, int], before: int, bus: Link) -> None:
    """Until the event's runs have ended: exactly one of each workflow."""
    async with asyncio.timeout(RESULT_S):
        while True:
            found = (await journal.records(bus))[before:]
            started = [record for record in found if isinstance(record, facts.RunStarted)]
            ended = {record.run for record in found if isinstance(record, facts.RunFinished)}
            if started and all(run.run in ended for run in started):
                counts: dict[str, int] = {}
                for run in started:
                    counts[run.workflow] = counts.get(run.workflow, 0) + 1
                assert counts == wanted
                return
            await asyncio.sleep(0.02)
