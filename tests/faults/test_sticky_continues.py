"""A run goes on where it is: one frame brings the end of a step, the same decision sends the next one, in one lane message."""

from __future__ import annotations

import pytest

from mesh.core import records as facts
from mesh_sdk import Mesh
from mesh_sdk.protocol.codec import lane_frames, report_frames
from mesh_sdk.protocol.records import Assign, Finished
from mesh_sdk.transport.connection import Link
from tests.faults import journal
from tests.faults.fleet import Fleet
from tests.faults.sticky_fleet import Sticky


@pytest.mark.timeout(60)
@pytest.mark.parametrize("workflow", ["soft_chain", "hard_chain"])
async def test_the_next_step_costs_one_frame_each_way(fleet: Fleet, bus: Link, workflow: str) -> None:
    sticky = Sticky(fleet)
    sticky.workers(w0=1, w1=1)
    async with Mesh(url=fleet.server.url) as mesh:
        run = await mesh.start(workflow, {})
        await run.result(timeout=20)
    assert len({seen.worker for seen in sticky.begun(run.run_id)}) == 1
    reports = [
        sum(isinstance(record, Finished) for record in report_frames.decode(stored.data)[0].records)
        for stored in await bus.read(journal.NAMES.reports_stream, journal.NAMES.report)
    ]
    assert [count for count in reports if count] == [1, 1, 1], "one report for each step's end"
    lanes = [
        [order.name for order in lane_frames.decode(stored.data)[0].records if isinstance(order, Assign)]
        for stored in await bus.read(journal.NAMES.lanes_stream, journal.NAMES.all_lanes)
        if stored.subject != journal.NAMES.lane_fence
    ]
    assert lanes == [["a"], ["b"], ["c"]], "one lane message for each assignment"
    told = [frame.records for _, frame in await journal.frames(bus)]
    for step in (0, 1):
        decision = next(records for records in told if any(isinstance(r, facts.StepFinished) and r.step == step for r in records))
        assert [r.step for r in decision if isinstance(r, facts.StepReleased)] == [step + 1], "the next step goes out in the same frame"
