"""Requests that no client of ours sends: the leader answers each with an error and goes on leading."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest

from mesh_sdk import Mesh, RunNotFound
from mesh_sdk.transport.connection import connect
from tests.faults.fleet import Fleet
from tests.faults.journal import NAMES

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
