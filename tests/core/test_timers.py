"""Timers stay few, whatever stands at the front of their queue."""

from __future__ import annotations

from mesh.core.timers import QUEUE_SWEPT
from mesh_sdk.protocol import records as wire
from tests.core.workflows import chain
from tests.core.world import World


def test_dead_timers_do_not_pile_up_behind_a_live_one() -> None:
    world = World()
    holder = world.join("w", [chain("c", 1, schedule_timeout_ms=3_600_000)], slots=0)
    waits = world.start("c")
    steps = [world.state.runs[waits].steps[0]]
    timers = world.state.timers
    for _ in range(5 * QUEUE_SWEPT):
        run = world.start("c")
        steps.append(world.state.runs[run].steps[0])
        world.decide(wire.Cancel(run, "not wanted"), holder.sender)
    assert sum(len(queue.timers) for queue in timers._queues.values()) <= 2 * QUEUE_SWEPT
    assert timers.next_at() == steps[0].ready_at + 3_600_000
