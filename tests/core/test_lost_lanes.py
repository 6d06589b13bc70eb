"""What a frame sends in which the lanes were lost."""

from __future__ import annotations

from msgspec import Raw

from mesh.core.effects import Teller
from mesh.core.inputs import LanesLost, Sender
from mesh.core.records import Fact
from mesh_sdk.protocol.records import Assign, Start
from tests.core.lives import WORKFLOWS
from tests.core.world import World


def test_what_the_frame_assigned_before_its_loss_of_the_lanes_is_not_sent() -> None:
    world = World(1)
    world.join("w1", WORKFLOWS, slots=4)

    def start() -> list[Fact]:
        return world.decide(Start(world.run_id(), "one", Raw(b"{}")), Sender("client", "", world.now))

    frame = [*start(), *world.decide(LanesLost())]
    unclaimed = set(world.state.unclaimed)
    frame += start()
    effects = Teller(world.state).tell(frame)
    sent = {order.token for orders in effects.shared.values() for order in orders if isinstance(order, Assign)}
    assert unclaimed, "they are given out anew when nobody claims them"
    assert sent == set(world.state.attempts) - unclaimed
