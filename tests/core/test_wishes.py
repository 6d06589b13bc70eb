"""Wishes that no worker can fulfil are out of the way, until one comes that can."""

from __future__ import annotations

import pytest

from mesh.core.labels import Wish
from mesh.core.records import StepReleased
from mesh.scheduler import waits
from mesh_sdk.protocol import records as wire
from mesh_sdk.protocol.definitions import LabelDefinition, StepDefinition, WorkflowDefinition
from tests.core.lives import TAKERS
from tests.core.world import World

W, V = (WorkflowDefinition(name, [StepDefinition("a")]) for name in "wv")


def needs(job: object) -> list[LabelDefinition]:
    return [LabelDefinition("job", job, required=True)]  # type: ignore[arg-type]


def world_with(count: int) -> World:
    world = World()
    world.join("w1", [W, V], 2, job="none")
    for number in range(count):
        world.start("w", labels=needs(number))
    return world


def given(world: World) -> list[str]:
    return [fact.worker for _, fact in world.journal if isinstance(fact, StepReleased) and fact.worker]


def test_nobody_looks_at_them_in_other_decisions(monkeypatch: pytest.MonkeyPatch) -> None:
    world = world_with(200)
    looked = 0
    allows = Wish.allows

    def counted(self: Wish, *args: object) -> bool:
        nonlocal looked
        looked += 1
        return allows(self, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(Wish, "allows", counted)
    monkeypatch.setattr(world, "_check_order", lambda *given: None)
    holder = world.workers["w1"]
    for _ in range(10):
        world.start("v")
        for order in world.take(holder):
            world.finish(holder, order)
    assert not looked
    assert waits.for_no_worker(world.state) == 200
    assert looked == 200
    world.join("w2", [W, V], 2, job="none either")
    assert looked <= 200 + 500, "each is looked at for the one that has come"


@pytest.mark.parametrize("how", ["joins", "joins another pool", "is relabelled", "is resumed"])
@pytest.mark.parametrize("taker", ["", *TAKERS])
def test_they_are_found_when_somebody_has_what_they_want(how: str, taker: str) -> None:
    world = world_with(5)
    holder = world.workers["w1"]
    if how == "is resumed":
        holder = world.join("w2", [W, V], 2, job=3)
        world.run_all()
        world.decide(wire.Steer("w2", wire.PAUSE))
        world.start("w", labels=needs(3))
    if taker:
        world.take_over(taker)
        world.resend()
    before = given(world)
    if how == "joins":
        world.join("w2", [W, V], 2, job=3)
    elif how == "joins another pool":
        world.join("w2", [W], 2, job=3)
    elif how == "is relabelled":
        world.decide(wire.Register("w", 2, [W, V], {"job": 3}, "client-w1"), holder.sender)
    else:
        world.decide(wire.Steer("w2", wire.RESUME))
    assert given(world)[len(before) :] == ["w1" if how == "is relabelled" else "w2"]
    world.run_all()
    world.kill(world.workers["w1"])
    world.join("w1", [W, V], 2, job=4)
    world.run_all()
    assert len(world.state.runs) == 3
    world.check_followers()


def test_of_those_that_were_cancelled_nothing_stays() -> None:
    world = world_with(0)
    for number in range(20):
        world.cancel(world.start("w", labels=needs(number)))
    assert not world.state.routes.queue("w:a").hopeless
