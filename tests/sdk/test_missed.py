"""A client that missed a notice asks: at once after a reconnect or a new term, else every ten seconds."""

from __future__ import annotations

import asyncio

import pytest
from msgspec import Raw

from mesh_sdk import Mesh, Unavailable, leader, missed
from mesh_sdk.protocol import records
from mesh_sdk.protocol.records import Done
from mesh_sdk.protocol.subjects import Subjects
from mesh_sdk.transport.connection import connect
from tests.contract.servers import Server
from tests.sdk.conftest import until
from tests.sdk.scheduler import LOST, Scheduler


async def test_a_new_term_has_it_asked(mesh: Mesh, scheduler: Scheduler):
    ref = await mesh.start("silent", 1)
    result = asyncio.ensure_future(ref.result(timeout=5))
    await until(lambda: bool(scheduler.results))
    scheduler.beat(7)
    assert await result == 1
    asked = [body["runs"] for call, body in scheduler.calls if call == "results"]
    assert asked[-1] == [ref.run_id]


async def test_what_waited_long_is_asked_for(mesh: Mesh, scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(missed, "ASK_S", 0.05)
    assert await mesh.run("silent", 1) == 1
    keyed = await mesh.start("silent", 2, key="k")
    assert await keyed.result(timeout=5) == 2


async def test_a_keyed_start_whose_answer_was_lost_is_asked_for(mesh: Mesh, scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(missed, "ASK_S", 0.05)
    scheduler.mute = True
    ref = await mesh.start("echo", 1, key="k")
    assert await asyncio.wait_for(ref.accepted(), 5) == scheduler.keys["k"]


async def test_many_are_asked_for_in_batches(mesh: Mesh, scheduler: Scheduler):
    running = asyncio.ensure_future(mesh.run_many("silent", range(1_200)))
    await until(lambda: len(scheduler.results) == 1_200)
    scheduler.beat(7)
    assert await running == list(range(1_200))
    assert [len(body["runs"]) for call, body in scheduler.calls if call == "results"] == [500, 500, 200]


async def test_an_answer_that_was_cut_is_asked_for_again(mesh: Mesh, scheduler: Scheduler):
    def cut(body: dict) -> object:
        return {"ok": [scheduler.results[run] for run in body["runs"] if run in scheduler.results][:2]}

    scheduler.answers["results"] = cut
    running = asyncio.ensure_future(mesh.run_many("silent", ["x" * 100_000] * 5))
    await until(lambda: len(scheduler.results) == 5)
    scheduler.beat(7)
    async with asyncio.timeout(5):
        assert len(await running) == 5


async def test_a_run_of_another_client_is_asked_for_at_once(mesh: Mesh, scheduler: Scheduler):
    scheduler.results["f" * 32] = Done("f" * 32, records.SUCCEEDED, Raw(b"3"))
    assert await mesh.ref("f" * 32).result(timeout=5) == 3


async def test_results_survive_a_server_restart(own_server: Server):
    scheduler = await Scheduler(own_server.url, "again").start()
    async with Mesh(url=own_server.url, namespace="again") as mesh:
        waiting = [asyncio.ensure_future(mesh.run("held", number)) for number in range(50)]
        await until(lambda: len(scheduler.starts) == 50)
        own_server.kill()
        late = [asyncio.ensure_future(mesh.run("held", number)) for number in range(50, 60)]
        await until(lambda: not scheduler.bus.connected)
        own_server.start()
        await until(lambda: len(scheduler.starts) >= 60)
        scheduler.mute = True
        scheduler.release()
        await until(lambda: scheduler.bus.connected)
        scheduler.beat(9)
        async with asyncio.timeout(20):
            assert [await each for each in waiting + late] == list(range(60))
    await scheduler.close()


async def test_reads_wait_for_a_leader_and_give_up(mesh: Mesh, scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(leader, "FAILOVER_S", 0.3)
    silent = Mesh(url=scheduler.url, namespace="no-leader")
    with pytest.raises(Unavailable, match="no scheduler leads"):
        await silent.runs.get("x")
    await silent.close()
    tries: list[int] = []

    def later(body: object) -> object:
        tries.append(1)
        return {"ok": []} if len(tries) > 2 else {"error": {"type": "Unavailable", "message": "following"}}

    scheduler.answers["workers.list"] = later
    assert await mesh.workers.list() == []
    assert len(tries) == 3


class Dying:
    """Answers to a list of workers: none, until there is another leader."""

    def __init__(self, scheduler: Scheduler) -> None:
        self.asked = 0
        self.lives = False
        scheduler.answers["workers.list"] = self._answer

    def _answer(self, body: object) -> object:
        self.asked += 1
        return {"ok": []} if self.lives else LOST


async def test_what_a_leader_took_along_is_asked_again_at_a_new_term(mesh: Mesh, scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(leader, "_ASK_AGAIN_FIRST_S", 60.0)
    leads = Dying(scheduler)
    reading = asyncio.ensure_future(mesh.workers.list())
    await until(lambda: leads.asked == 1)
    leads.lives = True
    scheduler.beat(7)
    async with asyncio.timeout(3):
        assert await reading == []
    assert leads.asked == 2


async def test_what_a_leader_took_along_is_asked_again_before_long(mesh: Mesh, scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch):
    """Also where no new leader is heard."""
    monkeypatch.setattr(leader, "_ASK_AGAIN_FIRST_S", 0.05)
    leads = Dying(scheduler)
    reading = asyncio.ensure_future(mesh.workers.list())
    await until(lambda: leads.asked == 3)
    leads.lives = True
    async with asyncio.timeout(3):
        assert await reading == []


async def test_an_answer_that_takes_long_is_taken_all_the_same(mesh: Mesh, scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch):
    """The older request stays open while it is put again: were each given up for the next, no slow answer would ever arrive."""
    monkeypatch.setattr(leader, "_ASK_AGAIN_FIRST_S", 0.05)
    replies: list[str] = []
    bus = await connect([scheduler.url], name="slow leader")
    names = Subjects(f"{scheduler.subjects.namespace}-slow")
    await bus.subscribe(names.api("workers.list"), lambda subject, reply, data: replies.append(reply))
    async with Mesh(url=scheduler.url, namespace=names.namespace) as slow:
        reading = asyncio.ensure_future(slow.workers.list())
        await until(lambda: len(replies) == 2)
        bus.publish(replies[0], b'{"ok": []}')
        async with asyncio.timeout(3):
            assert await reading == []
    await bus.close()
