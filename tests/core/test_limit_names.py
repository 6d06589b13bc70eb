"""Which limits of two definitions are one: those that count by the same, wherever they stand."""

from __future__ import annotations

import pytest

from mesh.core.graph import Flow
from mesh_sdk.protocol import records as wire
from mesh_sdk.protocol.definitions import CEL, ConcurrencyDefinition, StepDefinition, WorkflowDefinition
from tests.core.grouped import running, world_of
from tests.core.lives import TAKERS

USER, REGION = ConcurrencyDefinition(2, key="input.user"), ConcurrencyDefinition(50, key="input.region")
ADA = b'{"user":"ada","region":"eu"}'


def of_runs(*limits: ConcurrencyDefinition) -> WorkflowDefinition:
    return WorkflowDefinition("w", [StepDefinition("a")], concurrency=list(limits))


def of_steps(*limits: ConcurrencyDefinition) -> WorkflowDefinition:
    return WorkflowDefinition("w", [StepDefinition("a", concurrency=list(limits))])


@pytest.mark.parametrize("taker", ["", *TAKERS])
@pytest.mark.parametrize("define", [of_runs, of_steps])
@pytest.mark.parametrize("before", [(USER,), (USER, REGION)], ids=["alone", "before another"])
def test_a_limit_that_moves_in_its_list_has_no_more_places(before: tuple[ConcurrencyDefinition, ...], define: type, taker: str) -> None:
    world, holder = world_of(define(*before))
    runs = [world.start("w", input=ADA) for _ in range(3)]
    assert running(world, holder) == runs[:2]
    world.decide(wire.Register("w", 10, [define(REGION, USER)], {}, "c"), holder.sender)
    if taker:
        world.take_over(taker)
        world.resend()
    for _ in range(3):
        world.start("w", input=ADA)
    assert running(world, holder) == runs[:2], "two of one user, by both definitions"
    world.check_followers()
    world.run_all()
    assert not world.state.runs


def test_no_two_limits_of_a_definition_have_one_name() -> None:
    same = ConcurrencyDefinition(1, key="input.user")
    cel = ConcurrencyDefinition(1, key="input.user", language=CEL)
    scoped = ConcurrencyDefinition(1, key="input.user", scope="s")
    flow = Flow(WorkflowDefinition("w", [StepDefinition("a", concurrency=[USER])], concurrency=[scoped, USER, same, cel]))
    names = [name for name, _ in (*flow.limits, *flow.step_limits[0])]
    assert names == ["s", "w/0/path/input.user", "w/1/path/input.user", "w/0/cel/input.user", "w:a/0/path/input.user"]
