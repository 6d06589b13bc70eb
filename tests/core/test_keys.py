"""Keys from whatever users send and return: a key, or a run that failed and says why. Never a leader that can't go on."""

from __future__ import annotations

import msgspec
import pytest
from msgspec import Raw

from mesh.core.inputs import Sender
from mesh.core.keys import Keys, NoKey, function_key
from mesh.core.memory import HARD_SCHEDULE_TIMEOUT_MS
from mesh.core.records import RunRefused
from mesh_sdk.protocol import records as wire
from mesh_sdk.protocol.codec import BadFrame, encode, trigger_frames
from mesh_sdk.protocol.definitions import RateDefinition, StepDefinition, WorkflowDefinition
from tests.core.grouped import A, by_function, limited, running, status, world_of
from tests.core.holder import Holder
from tests.core.lives import TAKERS
from tests.core.world import World

UNREADABLE = {"number out of range": b"1e999", "number of 5,000 digits": b"9" * 5_000}
"""JSON to whoever only skips over it."""


def reason(world: World, run: str) -> str:
    found = world.state.find(run)
    assert found is not None
    return found.reason


def rated() -> WorkflowDefinition:
    return WorkflowDefinition("w", [StepDefinition("a", rate_limits=[RateDefinition("input.k", 10, 1_000)])])


@pytest.mark.parametrize("value", UNREADABLE.values(), ids=UNREADABLE)
@pytest.mark.parametrize("delay_ms", [0, 1_000])
@pytest.mark.parametrize("workflow", [limited(), rated()], ids=["group", "rate"])
def test_an_input_that_can_not_be_read_fails_its_run_alone(workflow: WorkflowDefinition, delay_ms: int, value: bytes) -> None:
    world, holder = world_of(workflow)
    bad = world.start("w", input=b'{"k":"a","x":%b}' % value, delay_ms=delay_ms)
    good = world.start("w", input=A, delay_ms=delay_ms)
    world.pass_time(delay_ms)
    assert status(world, bad) == "failed"
    assert reason(world, bad).startswith("the run's input can't be read, so no key can be taken: ")
    assert running(world, holder) == [good]
    world.check_followers()


def test_a_value_that_is_nested_too_deeply_is_no_key() -> None:
    deep = Raw(b"[" * 2_000 + b"]" * 2_000)
    with pytest.raises(NoKey, match="the run's input can't be read, so no key can be taken: it is nested too deeply"):
        Keys(deep, None, None).group(limited().concurrency[0])
    with pytest.raises(NoKey, match="what key function 'key' returned can't be read"):
        function_key("key", deep)


@pytest.mark.parametrize("taker", TAKERS)
def test_nor_does_it_end_the_term_of_a_successor(taker: str) -> None:
    world, _ = world_of(limited())
    bad = world.start("w", input=b'{"x":1e999}', delay_ms=1_000)
    world.now += 2_000
    world.take_over(taker)
    world.pass_time(0)
    assert status(world, bad) == "failed"


def test_however_deeply_nested_the_wire_lets_it_be() -> None:
    """Where the wire's stack ends and where the core's does are two places: the wire's is to end first."""
    outcomes = set()
    for depth in range(800, 1_001):
        world, _ = world_of(limited())
        run = world.run_id()
        for key in (b'{"k":"a","d":%b}', b'{"k":%b}'):
            raw = Raw(key % (b"[" * depth + b"]" * depth))
            try:
                frame, bad = trigger_frames.decode(encode(wire.TriggerFrame(wire.VERSION, "c", [wire.Start(run, "w", raw)])))
            except BadFrame:
                outcomes.add("refused")
                continue
            if bad:
                outcomes.add("refused")
                continue
            world.core.begin(world.now)
            world.core.decide(frame.records[0], Sender("c", "", world.now))
            outcomes.add(status(world, run))
    assert outcomes == {"live", "refused"}


@pytest.mark.parametrize("value", UNREADABLE.values(), ids=UNREADABLE)
@pytest.mark.parametrize("taker", ["", *TAKERS])
def test_so_does_what_a_key_function_returns(taker: str, value: bytes) -> None:
    world, holder = world_of(by_function())
    run = world.start("w")
    (order,) = world.take(holder)
    if taker:
        with world.leader_dies(0.5, taker):  # the answer is journaled, what follows from it is not
            world.finish(holder, order, value)
    else:
        world.finish(holder, order, value)
    assert status(world, run) == "failed"
    assert reason(world, run).startswith("what key function 'key' returned can't be read, so no key can be taken: ")
    world.check_followers()


def test_who_takes_no_key_from_the_input_does_not_read_it() -> None:
    world, holder = world_of(by_function())
    run = world.start("w", input=b'{"x":1e999}')
    (order,) = world.take(holder)
    world.finish(holder, order, b'"ada"')
    assert status(world, run) == "live"


@pytest.mark.parametrize("number", [b"9" * 513, b"-" + b"9" * 512, b"9" * 4_000])
def test_a_number_is_no_longer_than_a_text(number: bytes) -> None:
    world, _ = world_of(limited())
    run = world.start("w", input=b'{"k":%b}' % number)
    assert status(world, run) == "failed"
    assert reason(world, run) == f"key 'input.k' has {len(number):,} characters, 512 are the most: use a digest of it"
    assert status(world, world.start("w", input=b'{"k":%b}' % (b"9" * 512))) == "live"


# ---- key functions are no steps -----------------------------------------------------------------------------------------


def asked() -> tuple[World, Holder, str, wire.Assign]:
    """A run whose key function is being called."""
    world, holder = world_of(by_function())
    run = world.start("w")
    (order,) = world.take(holder)
    return world, holder, run, order


def test_a_key_function_gets_no_more_time_than_it_has() -> None:
    world, holder, run, order = asked()
    world.accept(holder, order)
    assert not world.decide(wire.Refresh(order.run, order.step, order.attempt, order.token, 10**15), holder.sender)
    world.pass_time(10_000 + 5_000)
    assert status(world, run) == "failed"


def test_a_key_function_lends_no_slot_for_it_has_none() -> None:
    world, holder, _, order = asked()
    assert not world.decide(wire.Lent(order.run, order.step, order.attempt, order.token), holder.sender)
    world.finish(holder, order, b'"ada"')
    assert len(running(world, holder)) == 1


def test_a_key_function_starts_no_children() -> None:
    world, holder, run, order = asked()
    child = world.spawn(holder, order, "w", "w#0")
    refused = world.journal[-1][1]
    assert isinstance(refused, RunRefused)
    assert refused.run == child
    assert refused.message == f"key function key of run {run} can't start children: its run has not begun"
    assert status(world, child) == "failed"
    world.check_followers()


def test_who_waits_for_its_key_does_not_wait_for_a_worker_that_it_is_bound_to() -> None:
    world, holder = world_of(msgspec.structs.replace(by_function(), sticky="HARD"))
    world.decide(wire.Steer(holder.id, "pause"))
    run = world.start("w")
    for taker in ("image", *TAKERS):
        world.pass_time(HARD_SCHEDULE_TIMEOUT_MS + 1)
        assert status(world, run) == "live", "nobody has said how long it may wait"
        world.take_over(taker)
