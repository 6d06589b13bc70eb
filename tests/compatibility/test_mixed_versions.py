"""This version and the next minor one work side by side: whoever leads, whoever runs the steps, whoever made the snapshot."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from mesh.store.snapshots import Snapshots
from mesh_sdk import Mesh
from mesh_sdk.transport.connection import Link
from tests.compatibility.load import Load, began, check, settled
from tests.compatibility.versions import Told, Version, lengths_of_reports, next_version
from tests.faults.conftest import bus, fleet
from tests.faults.fleet import Fleet, Process
from tests.faults.journal import NAMES

__all__ = ["bus", "fleet"]


async def snapshot_and_trim(version: Version, bus: Link) -> None:
    """A snapshot by one version, the journal trimmed behind it: whoever comes must read it."""
    made = await asyncio.to_thread(version.snapshot)
    assert made.returncode == 0, made.stderr
    await bus.purge(NAMES.journal_stream, before=(await Snapshots(bus, NAMES).sequences())[-1] + 1)


async def handed_over(fleet: Fleet, old: Process, version: Version, how: str) -> Process:
    """A scheduler of this version comes, the old one goes, and the new one leads."""
    new = await asyncio.to_thread(fleet.ready, version.scheduler())
    if how == "SIGTERM":
        assert await asyncio.to_thread(old.end) == 0
    else:
        await asyncio.to_thread(old.kill)
    return new


@pytest.mark.timeout(90)
async def test_two_minor_versions_work_together(fleet: Fleet, bus: Link, tmp_path: Path) -> None:
    present, following = Version(fleet), next_version(fleet, tmp_path / "next")
    leader = present.scheduler()
    workers = [present.worker("w0"), present.worker("w1"), following.worker("w2")]
    for process in (leader, *workers):
        await asyncio.to_thread(fleet.ready, process)
    async with Mesh(url=fleet.server.url) as mesh, Told(bus) as told:
        load = Load(mesh, bus)
        running = asyncio.create_task(load.run())
        await load.more()
        for old, new, how in ((present, following, "SIGTERM"), (following, present, "kill")):
            await told.whole()
            await snapshot_and_trim(old, bus)
            leader = await handed_over(fleet, leader, new, how)
            await load.more()
        load.stop()
        await running
        await settled(mesh)
        found = await told.whole()
    assert told.terms() == [False, True, False]
    steps = began(fleet)
    check(load, steps, found)
    assert {step.worker for step in steps} == {"w0", "w1", "w2"}
    reports = [stored.data for stored in await bus.read(NAMES.reports_stream, NAMES.report)]
    assert all(later == (worker == "w2") for worker, later in lengths_of_reports(reports))
