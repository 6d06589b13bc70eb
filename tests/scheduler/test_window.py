"""The window of live runs: past it starts wait on disk, and all of them run in the end."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from mesh_sdk import Mesh
from mesh_sdk.transport.connection import connect
from tests.faults.fleet import Fleet
from tests.faults.journal import frames

WINDOW = 20
RUNS = 2_000
PROGRAM = f"""
import asyncio, os
from mesh.engine import Engine
engine = Engine(os.environ["MESH_URL"], live_runs_max={WINDOW})
asyncio.run(engine.run(lambda line: print("ready", line, flush=True), asyncio.Event()))
"""


async def test_starts_past_the_window_wait_on_disk(tmp_path: Path) -> None:
    with Fleet(tmp_path) as fleet:
        fleet.ready(fleet.start((sys.executable, "-c", PROGRAM)))
        fleet.worker("w0").end()  # so that the workflow is known; nobody works yet
        bus = await connect([fleet.server.url], name="test")
        try:
            async with Mesh(url=fleet.server.url) as mesh:
                low = [mesh.start_nowait("once", {"n": n}) for n in range(RUNS)]
                await low[-1].accepted()
                info = await mesh.runs.get(low[-1].run_id)
                assert (info.run_id, info.status) == (low[-1].run_id, "queued"), "it waits on disk"
                high = await mesh.start("once", {"n": -1}, priority=9)
                fleet.worker("w1", slots=5)
                await asyncio.gather(*[ref.result() for ref in low], high.result())
            live = most = 0
            started = 0
            order: list[str] = []
            for _, frame in await frames(bus):
                for record in frame.records:
                    kind = type(record).__name__
                    if kind == "RunStarted":
                        live, started = live + 1, started + 1
                        order.append(record.run)  # type: ignore[union-attr]
                    elif kind == "RunFinished":
                        live -= 1
                    most = max(most, live)
            assert started == RUNS + 1
            # what one message of starts holds is decided as a whole: the window is closed for the next
            assert most <= WINDOW + 512, f"{most} runs lived at once"
            assert order.index(high.run_id) < RUNS // 2, "a start of high priority waited behind the low ones on disk"
        finally:
            await bus.close()
