"""Images of the state: what must be in them besides what readers can still ask for."""

from __future__ import annotations

from tests.core.workflows import chain
from tests.core.world import World


def test_an_attempt_outlives_the_memory_of_its_run() -> None:
    """Its run was cancelled and forgotten; its slot stays taken until it answers, whoever leads by then."""
    world = World(finished_max=2)
    holder, other = (world.join(id, [chain("c", 1)], slots=1) for id in ("w", "other"))
    run = world.start("c")
    (order,) = world.take(holder)
    world.accept(holder, order)
    world.cancel(run)
    for _ in range(4):
        world.start("c")
        for finished in world.take(other):
            world.finish(other, finished)
    assert world.state.find(run) is None
    assert world.state.workers["w"].used == 1
    world.check_followers()
    world.take_over("image")
    assert world.state.workers["w"].used == 1
    world.finish(holder, order)
    assert world.state.workers["w"].used == 0
    world.check_followers()
