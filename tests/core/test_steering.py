"""What an operator has workers do."""

from __future__ import annotations

import pytest

from mesh.core import records as facts
from mesh.core.effects import Teller
from mesh.core.inputs import Sender
from mesh_sdk.protocol import records as wire
from tests.core.grouped import A, limited, world_of
from tests.core.holder import Holder


def test_a_worker_that_is_not_paused_is_told_to_go_on_all_the_same() -> None:
    """It may have been given up while it was paused, and have come back as the same incarnation, which reads the older word in its lane."""
    world, holder = world_of(limited())
    journaled = world.decide(wire.Steer(holder.id, wire.RESUME))
    told = Teller(world.state).tell(journaled).private
    assert [order for lane in told.values() for order in lane] == [wire.Steered(wire.RESUME)]
    assert world.decide(wire.Steer(holder.id, wire.PAUSE))
    assert not world.decide(wire.Steer(holder.id, wire.PAUSE)), "once is enough"


def again(holder: Holder, *, paused: bool) -> tuple[wire.Register, Sender]:
    """The process comes back as a new incarnation."""
    return wire.Register(holder.id, 10, [limited()], {}, "cw", paused=paused), Sender(holder.id, holder.incarnation + "x")


@pytest.mark.parametrize("gone", [False, True], ids=["replaced", "given up before"])
def test_a_paused_process_that_comes_back_is_still_paused(gone: bool) -> None:
    world, holder = world_of(limited())
    world.decide(wire.Steer(holder.id, wire.PAUSE))
    if gone:
        world.kill(holder)
    world.decide(*again(holder, paused=True))
    assert world.state.workers[holder.id].paused
    world.start("w", input=A)
    assert not world.state.attempts, "it takes nothing"


def test_a_process_that_was_given_up_before_it_heard_that_it_may_go_on_hears_it_again() -> None:
    world, holder = world_of(limited())
    world.decide(wire.Steer(holder.id, wire.PAUSE))
    world.decide(wire.Steer(holder.id, wire.RESUME))
    journaled = world.decide(*again(holder, paused=True))
    assert not world.state.workers[holder.id].paused
    told = Teller(world.state).tell(journaled).private
    assert [order for lane in told.values() for order in lane] == [wire.Steered(wire.RESUME)]


def test_a_paused_process_that_changes_its_labels_is_told_nothing() -> None:
    world, holder = world_of(limited())
    world.decide(wire.Steer(holder.id, wire.PAUSE))
    journaled = world.decide(wire.Register(holder.id, 10, [limited()], {}, "cw", paused=False), Sender(holder.id, holder.incarnation))
    assert world.state.workers[holder.id].paused
    assert not any(isinstance(record, facts.WorkerSteered) for record in journaled)
