"""Who needs places in several groups: he gets them in the end, nobody waits for who waits for him, and a decision costs what a
short line costs."""

from __future__ import annotations

import random
from collections import OrderedDict

import pytest
from msgspec import structs

from mesh.core import flow
from mesh.core.flow import Group, Groups
from mesh.core.line import Line
from mesh.core.tickets import Ticket
from mesh_sdk.protocol.definitions import (
    QUEUE_NEWEST,
    ConcurrencyDefinition,
    LabelDefinition,
    RateDefinition,
    StepDefinition,
    WorkflowDefinition,
)
from tests.core.flow_checks import FlowWorld
from tests.core.grouped import A, order_of, running, status, step_limited, world_of
from tests.core.holder import Holder
from tests.core.lives import TAKERS
from tests.core.world import World

PLAIN = WorkflowDefinition("plain", [StepDefinition("a")])


def in_groups(*groups: str) -> bytes:
    return b"{%s}" % b",".join(b'"%c":"%s"' % (key, group.encode()) for key, group in zip(b"tuv", groups, strict=False))


def workflow(*max_runs: int, of_step: bool = False) -> WorkflowDefinition:
    """One step, and a limit on each of as many fields."""
    limits = [ConcurrencyDefinition(count, key=f"input.{key}") for key, count in zip("tuv", max_runs, strict=False)]
    return WorkflowDefinition("w", [StepDefinition("a", concurrency=limits if of_step else [])], concurrency=[] if of_step else limits)


class Pushes:
    """Counts how often somebody is put into a line."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = self.most = 0
        plain_push = Line.push

        def push(line: Line, waiter: object) -> None:  # type: ignore[type-arg]
            self.count += 1
            plain_push(line, waiter)  # type: ignore[arg-type]

        monkeypatch.setattr(Line, "push", push)

    def decided(self) -> None:
        self.most, self.count = max(self.most, self.count), 0


# ---- in the end -----------------------------------------------------------------------------------------------------------


def passed(world: World, holder: Holder, ends: random.Random, *, priority: int, most: int) -> int:
    """One wants a place in each of two groups, of which one ends at a time and which others want alone; how many go on before it."""
    for number in range(8):
        world.start("w", input=in_groups("a", f"u{number}"))
        world.start("w", input=in_groups(f"t{number}", "b"))
    both = world.start("w", input=in_groups("a", "b"), priority=priority)
    world.take(holder)
    for count in range(most):
        if both in {order.run for order in holder.running.values()}:
            return count
        field = "ab"[count % 2]
        going = [order for order in holder.running.values() if b'"%s"' % field.encode() in bytes(order.input)]
        if going:  # else its place is kept
            world.finish(holder, ends.choice(going))
        world.start("w", input=in_groups(*(("a", f"u{count + 8}") if field == "a" else (f"t{count + 8}", "b"))))
        world.take(holder)
    return most


@pytest.mark.parametrize("priority", [1, 9])
@pytest.mark.parametrize("max_runs", [1, 2, 5])
@pytest.mark.parametrize("of_step", [False, True], ids=["runs", "steps"])
def test_who_needs_places_of_two_groups_is_not_passed_for_ever(of_step: bool, max_runs: int, priority: int) -> None:
    """Without places that are kept, it would meet the other group full each time that it is next."""
    world, holder = world_of(workflow(max_runs, max_runs, of_step=of_step), slots=1_000)
    assert passed(world, holder, random.Random(max_runs), priority=priority, most=200) < 60
    world.run_all()
    assert not world.state.runs
    assert not len(world.state.limits.groups)
    world.check_followers()


@pytest.mark.parametrize("taker", ["", *TAKERS])
@pytest.mark.parametrize("of_step", [False, True], ids=["runs", "steps"])
def test_nobody_keeps_what_somebody_else_waits_for_while_he_waits_for_him(
    of_step: bool, taker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Places are kept from the first time on: whatever ends first, in the end all have run."""
    monkeypatch.setattr(flow, "PASSES_MAX", 0)
    for seed in range(4):
        rng = random.Random(seed)
        world = FlowWorld(seed)
        holder = world.join("w1", [workflow(1, 2, 1, of_step=of_step)], rng.choice([2, 20]))
        for number in range(60):
            world.start("w", input=in_groups(*(rng.choice("xyz") for _ in range(3))), priority=rng.choice([1, 1, 2]))
            world.take(holder)
            if number % 3 and holder.running:
                world.finish(holder, rng.choice(list(holder.running.values())))
            world.check_nobody_is_forgotten()
            if taker and number % 20 == 19:
                world.take_over(taker)
                world.resend()
        world.run_all()
        assert not world.state.runs, seed
        assert not len(world.state.limits.groups)
        world.check_followers()


def test_what_was_kept_for_one_that_then_finds_no_worker_is_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is called as its last place is free, and takes none."""
    monkeypatch.setattr(flow, "PASSES_MAX", 0)
    wish = [LabelDefinition("gpu", 1, required=True)]
    limits = [ConcurrencyDefinition(1, key="input.k", scope=scope) for scope in "AB"]
    both, in_a, in_b = (
        WorkflowDefinition(name, [StepDefinition("a", concurrency=places, labels=labels)])
        for name, places, labels in (("both", limits, wish), ("in_a", limits[:1], []), ("in_b", limits[1:], []))
    )
    world, holder = world_of(both, in_a, in_b)
    firsts = [world.start(name, input=A) for name in ("in_a", "in_b")]
    world.start("both", input=A)
    seconds = [world.start(name, input=A) for name in ("in_a", "in_b")]
    assert running(world, holder) == sorted(firsts)
    for first in firsts:
        world.finish(holder, order_of(holder, first))
    assert running(world, holder) == sorted(seconds), "who finds no worker keeps no place"


def test_what_is_kept_for_one_that_is_cancelled_is_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow, "PASSES_MAX", 0)
    world, holder = world_of(workflow(1, 1), slots=9)
    first, other = world.start("w", input=in_groups("a", "b1")), world.start("w", input=in_groups("a2", "b"))
    both, waits = world.start("w", input=in_groups("a", "b")), world.start("w", input=in_groups("a", "b3"))
    assert running(world, holder) == [first, other]
    world.finish(holder, order_of(holder, first))
    assert running(world, holder) == [other], "the place in a is kept"
    world.cancel(both)
    assert running(world, holder) == [other, waits]


def test_a_place_is_kept_for_nobody_once_there_are_fewer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow, "PASSES_MAX", 0)
    definition = workflow(2, 1)
    world, holder = world_of(definition, slots=9)
    for groups in (("a", "b1"), ("a", "b2"), ("a3", "b")):
        world.start("w", input=in_groups(*groups))
    both = world.start("w", input=in_groups("a", "b"))
    world.take(holder)
    gone, stays, blocks = list(holder.running.values())
    world.finish(holder, gone)
    world.join(
        "w1",
        [structs.replace(definition, concurrency=[structs.replace(definition.concurrency[0], max_runs=1), definition.concurrency[1]])],
        9,
    )
    world.start("w", input=in_groups("a", "b9"))
    world.finish(holder, blocks)
    assert both not in running(world, holder), "max_runs is 1 by now, and one runs"
    world.finish(holder, stays)
    world.run_all()
    assert not world.state.runs


# ---- what it costs --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("of_step", [False, True], ids=["runs", "steps"])
def test_a_long_line_is_not_moved_from_one_group_to_another(of_step: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """One tenant has many waiting, of which one may run; all tenants together may run two."""
    pushes = Pushes(monkeypatch)
    for waiting in (20, 400):
        world, holder = world_of(workflow(1, 2, of_step=of_step), slots=50)
        for tenant in "a" * waiting + "bcd" * 4:
            world.start("w", input=in_groups(tenant, "x"))
        rng = random.Random(1)
        pushes.count = pushes.most = 0
        for _ in range(60):
            world.take(holder)
            order = rng.choice(list(holder.running.values()))
            world.finish(holder, order)
            if b'"a"' not in bytes(order.input):
                world.start("w", input=bytes(order.input))
            pushes.decided()
        assert pushes.most <= 20, waiting


LABELLED = WorkflowDefinition(
    "w",
    [StepDefinition("a", concurrency=[ConcurrencyDefinition(1, key="input.k")], labels=[LabelDefinition("gpu", "a100", required=True)])],
)


def test_a_group_whose_steps_find_no_worker_calls_one_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    world, holder = world_of(LABELLED, PLAIN, slots=1)
    busy = world.start("plain")
    runs = [world.start("w", input=A) for _ in range(300)]
    pushes = Pushes(monkeypatch)
    world.finish(holder, order_of(holder, running(world, holder) and busy))
    assert pushes.count <= 4
    (group,) = world.state.limits.groups
    assert len(group.called) == 1
    world.cancel(runs[0])
    assert len(group.called) == 1, "the next one looks"
    other = world.join("w2", [LABELLED, PLAIN], 5, gpu="a100")
    assert running(world, other) == [runs[1]]
    world.run_all()
    assert not world.state.runs


def test_a_group_whose_steps_wait_for_a_rate_lets_one_of_them_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    limit, rate = ConcurrencyDefinition(1, key="input.k"), RateDefinition("r", 5, 60_000)
    world, holder = world_of(WorkflowDefinition("w", [StepDefinition("a", concurrency=[limit], rate_limits=[rate])]), slots=50)
    runs = [world.start("w", input=A) for _ in range(300)]
    pushes = Pushes(monkeypatch)
    for number in range(8):
        assert running(world, holder) == [runs[number]], "one runs as soon as the rate lets it"
        world.finish(holder, order_of(holder, runs[number]))
        pushes.decided()
        world.take(holder)
        if not holder.running:
            world.pass_time(12_000)
            pushes.decided()
    assert pushes.most <= 6
    world.check_followers()


def test_the_one_aside_goes_on_when_the_one_that_looks_has_gone_out() -> None:
    """Several slots and places at once: as many go out as there are, however many were called before."""
    world, holder = world_of(step_limited(max_runs=5), PLAIN, slots=1)
    busy = world.start("plain")
    runs = [world.start("w", input=A) for _ in range(12)]
    assert running(world, holder) == [busy]
    other = world.join("w2", [step_limited(max_runs=5), PLAIN], 9)
    assert running(world, other) == runs[:5]


def test_the_newest_of_many_is_found_without_sorting_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits for another group is many, and each that comes is the newest."""
    looked = 0
    plain_look = Group.may_go

    def look(group: Group, ticket: Ticket) -> bool:
        nonlocal looked
        looked += 1
        return plain_look(group, ticket)

    monkeypatch.setattr(Group, "may_go", look)
    limits = [ConcurrencyDefinition(300, QUEUE_NEWEST, key="input.t"), ConcurrencyDefinition(1, key="input.u")]
    world, _ = world_of(WorkflowDefinition("w", [StepDefinition("a")], concurrency=limits))
    runs = [world.start("w", input=in_groups("a", "b")) for _ in range(302)]
    looked = 0
    last = [world.start("w", input=in_groups("a", "b")) for _ in range(20)]
    assert looked <= 20 * 8
    assert [run for run in (*runs, *last) if status(world, run) == "cancelled"] == [runs[300], runs[301], *last[:-1]]


def test_what_waits_to_be_looked_at_gives_its_first_away_at_once() -> None:
    """The first of a dict is found in no time only as long as nothing was deleted before it: a takeover has as many as there are groups."""
    groups = Groups()
    assert isinstance(groups.freed, OrderedDict)
    assert isinstance(groups.came, OrderedDict)
