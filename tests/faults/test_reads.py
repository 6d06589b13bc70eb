"""Requests that no client of ours sends: the leader answers each with an error and goes on leading."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import msgspec
import pytest

from mesh_sdk import Mesh, RunNotFound
from mesh_sdk.transport.connection import connect
from tests.faults.fleet import Fleet, await_that
from tests.faults.journal import NAMES

ANSWERED_WITHIN_S = 2.0
"""From when there is a leader again; a request alone would be waited for for 5 s."""

ODD = [
    ("runs.list", b'{"since":"0001-01-01T00:00:00"}'),
    ("runs.list", '{"after":"²"}'.encode()),
    ("runs.list", b'{"limit":-5}'),
    ("runs.list", b'{"limit":"many"}'),
    ("runs.get", b"{}"),
    ("runs.get", b"not json"),
    ("results", b'{"runs":[1,2]}'),
    ("workflows.get", b'{"name":null}'),
    ("no.such.call", b"{}"),
    ("digest", b"\xff\xfe"),
]


@pytest.mark.timeout(90)
async def test_odd_requests_are_answered_and_change_nothing(tmp_path: Path) -> None:
    with Fleet(tmp_path) as fleet:
        scheduler = fleet.scheduler()
        fleet.worker("w1")
        bus = await connect([fleet.server.url], name="test")
        try:
            async with Mesh(url=fleet.server.url) as mesh:
                await mesh.run("Chain", {"n": 1})
                for call, body in ODD:
                    answer = msgspec.json.decode(await bus.request(NAMES.api(call), body, 5))
                    assert set(answer) <= {"ok", "error"}, (call, body, answer)
                assert await mesh.run("Chain", {"n": 1}) == 4
            assert scheduler.output.count("leads in term") == 1
        finally:
            await bus.close()


@pytest.mark.timeout(60)
async def test_a_run_is_known_as_soon_as_its_start_is_stored(fleet: Fleet) -> None:
    """However far behind the leader is; and one that never was is not."""
    fleet.scheduler()
    fleet.worker("w1")
    async with Mesh(url=fleet.server.url) as mesh:
        await mesh.run("Chain", {"n": 1})

        async def start_and_ask(n: int) -> str:
            ref = await mesh.start("once", {"n": n})
            return (await mesh.runs.get(ref.run_id)).status

        statuses = await asyncio.gather(*[start_and_ask(n) for n in range(300)])
        assert set(statuses) <= {"queued", "running", "succeeded"}
        with pytest.raises(RunNotFound):
            await mesh.runs.get("0" * 32)
        with pytest.raises(RunNotFound):
            await mesh.runs.get("no run id")

        async def start_and_cancel(n: int) -> None:
            ref = await mesh.start("once", {"n": n})
            await mesh.runs.cancel(ref.run_id)

        await asyncio.gather(*[start_and_cancel(n) for n in range(100)])
        with pytest.raises(RunNotFound):
            await mesh.runs.cancel("0" * 32)


@pytest.mark.timeout(60)
async def test_a_read_that_its_leader_dies_with_is_answered_by_the_next(fleet: Fleet) -> None:
    """The leader is stopped, so that the request lies there for certain, and killed."""
    leads, follows = fleet.scheduler(), fleet.scheduler()
    bus = await connect([fleet.server.url], name="test")
    try:
        async with Mesh(url=fleet.server.url) as mesh:
            assert await mesh.workers.list() == []
            asked = asyncio.Event()
            spy = await bus.subscribe(NAMES.api("workers.list"), lambda *heard: asked.set())
            leads.send(signal.SIGSTOP)
            reading = asyncio.create_task(mesh.workers.list())
            await asked.wait()
            await spy.close()  # else the server would think that somebody is there who answers
            await asyncio.to_thread(leads.kill)
            await asyncio.to_thread(await_that, "another one leads", lambda: " leads in term" in follows.output.split("ready", 1)[-1], 15)
            async with asyncio.timeout(ANSWERED_WITHIN_S):
                assert await reading == []
    finally:
        await bus.close()
