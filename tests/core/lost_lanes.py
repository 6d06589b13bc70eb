"""The lanes of the small world are lost."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mesh.core.inputs import HoldingAsked, LanesLost
from mesh_sdk.protocol import records as wire

if TYPE_CHECKING:
    from tests.core.world import World

QUESTION = 7


def lanes_lost(world: World) -> None:
    """The lanes are gone with all that stood in them, and made anew; whoever holds something says so."""
    world.shared.clear()
    world.redelivered.clear()
    world.private.clear()
    world.decide(LanesLost())
    world.decide(HoldingAsked(QUESTION))
    for holder in world.workers.values():
        held = [(order.run, order.step, order.attempt, order.token) for order in holder.running.values()]
        world.decide(wire.Holding(held, QUESTION), holder.sender)
