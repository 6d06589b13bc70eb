"""What a new leader sends on behalf of the one before it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from mesh.core.effects import Effects
from mesh.scheduler.takeover import Takeover
from mesh_sdk.protocol import records as wire
from mesh_sdk.protocol.subjects import Subjects
from tests.core.grouped import limited, world_of


class _Nowhere:
    """A server with nothing in its streams, and what was to be sent."""

    def __init__(self) -> None:
        self.sent: list[Effects] = []
        self.adopted = asyncio.Event()

    async def publish_definitions(self, definitions: list[Any]) -> None: ...

    async def stream_state(self, stream: str) -> None: ...

    async def read(self, stream: str, subject: str) -> list[Any]:
        return []

    def prepare(self, effects: Effects, _records: list[Any]) -> Effects:
        return effects

    def send(self, effects: Effects, _sequence: int) -> None:
        self.sent.append(effects)


@pytest.mark.parametrize("what", wire.STEERINGS)
async def test_an_operators_word_that_the_dead_leader_did_not_pass_on_is_passed_on(what: str) -> None:
    """Also where no attempt is unanswered: an idle worker that is to drain would never hear of it, and never get any work again."""
    world, holder = world_of(limited())
    world.decide(wire.Steer(holder.id, wire.PAUSE))
    world.decide(wire.Steer(holder.id, what))
    nowhere: Any = _Nowhere()
    takeover = Takeover(nowhere, Subjects("n"), world.state, nowhere, nowhere, nowhere, 2, lambda: 9, [])
    await takeover.run(lambda: False)
    orders = [order for effects in nowhere.sent for lane in effects.private.values() for order in lane]
    assert orders == [wire.Steered(what)]
