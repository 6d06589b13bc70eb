"""What an operator has workers do."""

from __future__ import annotations

from mesh.core.effects import Teller
from mesh_sdk.protocol import records as wire
from tests.core.grouped import limited, world_of


def test_a_worker_that_is_not_paused_is_told_to_go_on_all_the_same() -> None:
    """It may have been given up while it was paused, and have come back as the same incarnation, which reads the older word in its lane."""
    world, holder = world_of(limited())
    journaled = world.decide(wire.Steer(holder.id, wire.RESUME))
    told = Teller(world.state).tell(journaled).private
    assert [order for lane in told.values() for order in lane] == [wire.Steered(wire.RESUME)]
    assert world.decide(wire.Steer(holder.id, wire.PAUSE))
    assert not world.decide(wire.Steer(holder.id, wire.PAUSE)), "once is enough"
