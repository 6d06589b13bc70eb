"""Every process of a mesh is stopped and replaced, one after the other, by the same version or the next: nobody notices."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from mesh.core import records as facts
from mesh_sdk import Mesh
from mesh_sdk.transport.connection import Link
from tests.compatibility.load import Load, began, check, settled
from tests.compatibility.versions import Version, next_version
from tests.faults import journal
from tests.faults.conftest import bus, fleet
from tests.faults.fleet import Fleet, Process

__all__ = ["bus", "fleet"]


@pytest.mark.timeout(90)
@pytest.mark.parametrize("upgrade", [pytest.param(False, id="restart"), pytest.param(True, id="upgrade", marks=pytest.mark.chaos)])
async def test_one_process_after_the_other_is_replaced_and_nothing_is_lost(fleet: Fleet, bus: Link, tmp_path: Path, upgrade: bool) -> None:
    old = Version(fleet)
    new = next_version(fleet, tmp_path / "next") if upgrade else old
    starts: list[Callable[[Version], Process]] = [Version.scheduler, Version.scheduler]
    starts += [partial(Version.worker, id=id) for id in ("w0", "w1", "w2")]
    processes = [start(old) for start in starts]
    for process in processes:
        await asyncio.to_thread(fleet.ready, process)
    async with Mesh(url=fleet.server.url) as mesh:
        load = Load(mesh, bus)
        running = asyncio.create_task(load.run())
        await load.more()
        for place, start in enumerate(starts):
            assert await asyncio.to_thread(processes[place].end) == 0, processes[place].output
            await asyncio.to_thread(fleet.ready, start(new))
            await load.more()
        load.stop()
        await running
        await settled(mesh)
    found = await journal.records(bus)
    check(load, began(fleet), found)
    assert sum(isinstance(record, facts.TermStarted) for record in found) >= 2, "another leader took over"
