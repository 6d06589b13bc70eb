"""Snapshots: the state at one journal sequence, made beside a working leader; the journal is trimmed behind them."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest

from mesh.core.image import digest
from mesh.scheduler.follower import Follower
from mesh.scheduler.snapshot import make
from mesh.store.snapshots import Snapshots
from mesh_sdk import Mesh
from mesh_sdk.transport.bus import Bus
from mesh_sdk.transport.connection import connect
from tests.faults.fleet import Fleet
from tests.faults.journal import NAMES

FINISHED_MAX = 10_000


async def leader_digest(bus: Bus) -> tuple[int, str]:
    answer = msgspec.json.decode(await bus.request(NAMES.api("digest"), b"{}", 5))["ok"]
    return answer["sequence"], answer["digest"]


async def test_a_successor_starts_from_a_snapshot_and_a_trimmed_journal(tmp_path: Path) -> None:
    with Fleet(tmp_path) as fleet:
        leader = fleet.scheduler()
        fleet.worker("w1")
        bus = await connect([fleet.server.url], name="test")
        try:
            async with Mesh(url=fleet.server.url) as mesh:
                refs = [await mesh.start("Chain", {"n": n}) for n in range(40)]
                first = await make(fleet.server.url, "default", FINISHED_MAX)
                await asyncio.gather(*[ref.result() for ref in refs])
                long = await mesh.start("Chain", {"n": 7, "ms": 400})
                older = await make(fleet.server.url, "default", FINISHED_MAX)
                assert first == 0 < older, "the journal may be trimmed only behind the older of two snapshots"
                await bus.purge(NAMES.journal_stream, before=older + 1)
                await long.result()

                cold = Follower(bus, NAMES, FINISHED_MAX)
                await cold.start()
                sequence, expected = await leader_digest(bus)
                assert cold.snapshot_sequence > older
                assert await cold.wait_for(sequence, 10)
                assert (cold.sequence, digest(cold.state)) == (sequence, expected)
                await cold.stop()

                leader.kill()
                fleet.scheduler()
                assert (await mesh.runs.get(refs[0].run_id)).status == "succeeded"
                assert await mesh.run("Chain", {"n": 3}) == 6
        finally:
            await bus.close()


async def test_a_damaged_snapshot_is_passed_over_for_the_older_one(tmp_path: Path) -> None:
    with Fleet(tmp_path) as fleet:
        fleet.scheduler()
        fleet.worker("w1")
        bus = await connect([fleet.server.url], name="test")
        try:
            async with Mesh(url=fleet.server.url) as mesh:
                await mesh.run("Chain", {"n": 1})
                await make(fleet.server.url, "default", FINISHED_MAX)
                await mesh.run("Chain", {"n": 2})
                await make(fleet.server.url, "default", FINISHED_MAX)
            older, newer = await Snapshots(bus, NAMES).sequences()
            await bus.objects(NAMES.snapshots_bucket).put(f"{newer:016d}", b"[1,{},")
            follower = Follower(bus, NAMES, FINISHED_MAX)
            await follower.start()
            assert follower.snapshot_sequence == older
            sequence, expected = await leader_digest(bus)
            assert await follower.wait_for(sequence, 10)
            assert digest(follower.state) == expected
            await follower.stop()
        finally:
            await bus.close()


async def test_a_server_that_hangs_up_meanwhile_costs_no_snapshot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hung_up: list[str] = []
    with Fleet(tmp_path) as fleet:
        fleet.scheduler()
        async with Mesh(url=fleet.server.url) as mesh:
            fleet.worker("w1")
            await mesh.run("Chain", {"n": 1})

        def hanging_up(name: str) -> None:
            act = getattr(Snapshots, name)

            async def once(snapshots: Snapshots, *given: object) -> object:
                if name not in hung_up:
                    hung_up.append(name)
                    fleet.server.kill()
                    await asyncio.to_thread(fleet.server.restart)
                return await act(snapshots, *given)

            monkeypatch.setattr(Snapshots, name, once)

        for name in ("write", "read", "drop_old"):
            hanging_up(name)
        assert await make(fleet.server.url, "default", FINISHED_MAX) == 0
        assert hung_up == ["write", "read", "drop_old"]
        bus = await connect([fleet.server.url], name="test")
        assert len(await Snapshots(bus, NAMES).sequences()) == 1
        await bus.close()
