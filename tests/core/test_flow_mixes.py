"""Flow control in random mixes: groups of all strategies, key functions, rates, labels, slots, sticky runs, workers that come and go."""

from __future__ import annotations

import os
import random

import pytest
from msgspec import structs

from mesh.core import labels, limits
from mesh.core.admitting import Admitting
from mesh.core.flow import Group, Groups
from mesh.core.rates import Rates
from mesh.core.reach import is_hopeless
from mesh.core.step import READY, Step
from mesh.core.waiting import waiting_for
from mesh_sdk.protocol import records as wire
from mesh_sdk.protocol.definitions import (
    FUNCTION,
    KEY,
    STRATEGIES,
    ConcurrencyDefinition,
    LabelDefinition,
    RateDefinition,
    StepDefinition,
    WorkflowDefinition,
)
from tests.core.flow_checks import FlowWorld
from tests.core.holder import Holder
from tests.core.lives import TAKERS, lanes_lost

CASES = int(os.environ.get("MESH_FLOW_CASES", "1000"))
CHUNK = 100
HAPPENINGS = 60
IDS = ("w1", "w2", "w3")


def _limit(rng: random.Random, key: str = "", shared: str = "shared by runs") -> ConcurrencyDefinition:
    scope = rng.choice(["", "", shared])
    strategy = STRATEGIES[0] if scope else rng.choice(STRATEGIES)
    return ConcurrencyDefinition(
        2 if scope else rng.randint(1, 3), strategy, key or "input.k", FUNCTION if key else "path", scope, {"a": 3}
    )


def _step(rng: random.Random, index: int) -> StepDefinition:
    wishes = [
        LabelDefinition(rng.choice(["gpu", "zone"]), rng.choice([1, 2]), rng.choice(["=", ">=", "!="]), rng.random() < 0.6)
        for _ in range(rng.choice([0, 0, 0, 1, 2]))
    ]
    units: list[int | str] = [1, 2, "input.n"]
    rates = [
        RateDefinition(key, limit, 1_000, units[rng.randrange(3)])
        for key, limit in rng.sample([("r", 20), ("input.k", 5)], rng.choice([0, 0, 0, 1, 2]))
    ]
    return StepDefinition(
        f"s{index}", sorted(rng.sample(range(index), rng.randint(0, min(index, 2)))), rng.choice([0, 500, 3_000]),
        rng.choice([0, 0, 9_000]), rng.randint(0, 2), 0.0, 0, rng.choice([0, 0, 2, 7]), "", rng.choice([1, 1, 1, 2, 3]),
        [_limit(rng, shared="shared by steps") for _ in range(rng.choice([0, 0, 0, 1]))], rates, wishes,
    )  # fmt: skip


def _workflow(rng: random.Random, name: str) -> WorkflowDefinition:
    steps = [_step(rng, index) for index in range(rng.randint(1, 4))]
    concurrency = [_limit(rng) for _ in range(rng.choice([0, 1, 1, 2]))]
    if rng.random() < 0.3:
        steps = [structs.replace(step, parents=[parent + 1 for parent in step.parents]) for step in steps]
        steps.insert(0, StepDefinition("key", [], 1_000, kind=KEY, slots=0))
        concurrency.append(_limit(rng, "key"))
    sticky = rng.choice(["", "", "SOFT", "HARD"])
    return WorkflowDefinition(
        name, steps, priority=rng.choice([1, 5]), sticky=sticky, sticky_timeout_ms=rng.choice([100, 2_000]), concurrency=concurrency,
        admission_timeout_ms=rng.choice([0, 0, 2_000]),
    )  # fmt: skip


class _Life:
    """One random mix."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.world = FlowWorld(seed)
        self.workflows = [_workflow(self.rng, name) for name in ("one", "two", "three")]
        for id in IDS[: self.rng.randint(1, 3)]:
            self.join(id)

    def labels(self) -> dict[str, str | int | float]:
        return {name: self.rng.choice([1, 2]) for name in ("gpu", "zone") if self.rng.random() < 0.7}

    def join(self, id: str) -> None:
        known = self.workflows if self.rng.random() < 0.8 else self.rng.sample(self.workflows, 2)
        self.world.join(id, known, self.rng.randint(1, 5), **self.labels())

    def happen(self) -> None:
        rng, world = self.rng, self.world
        choice = rng.random()
        if not world.workers or choice < 0.04:
            self.join(rng.choice(IDS))
        elif choice < 0.06:
            world.kill(rng.choice(list(world.workers.values())))
        elif choice < 0.07:
            world.leave(rng.choice(list(world.workers.values())))
        elif choice < 0.10:
            world.decide(wire.Steer(rng.choice(IDS), rng.choice([wire.PAUSE, wire.RESUME, wire.RESUME])))
        elif choice < 0.13:
            self.relabel(rng.choice(list(world.workers.values())))
        elif choice < 0.34:
            self.start()
        elif choice < 0.37 and world.state.runs:
            world.cancel(rng.choice(list(world.state.runs)))
        elif choice < 0.50:
            self.pass_time(rng.choice([10, 100, 400, 1_000, 6_000]))
        elif choice < 0.51 and world.pending is None:
            lanes_lost(world)
        else:
            self.act(rng.choice(list(world.workers.values())))

    def relabel(self, holder: Holder) -> None:
        """The same incarnation, with other labels."""
        worker = self.world.state.workers.get(holder.id)
        if worker is None:
            return
        workflows = [self.world.state.versions[key].definition for key in worker.workflows]
        self.world.decide(wire.Register("w", holder.slots, workflows, self.labels(), f"client-{holder.id}"), holder.sender)

    def start(self) -> None:
        rng, flow = self.rng, self.rng.choice(list(self.world.state.flows.values()))
        options: dict[str, object] = {"priority": rng.choice([0, 0, 3, 8])}
        if rng.random() < 0.1:
            options["labels"] = [LabelDefinition("gpu", rng.choice([1, 2]), required=True)]
        if rng.random() < 0.1:
            options["delay_ms"] = rng.choice([50, 3_000])
        if flow.sticky and rng.random() < 0.2:
            options["worker"] = rng.choice(IDS)
        self.world.start(flow.name, input=b'{"k":"%s","n":%d}' % (rng.choice([b"a", b"b"]), rng.choice([1, 2])), **options)  # type: ignore[arg-type]

    def pass_time(self, ms: int) -> None:
        """As the shell does: to each time that the core asks for."""
        world, end = self.world, self.world.now + ms
        while world.pending is None and (at := world.core.next_at()) is not None and at < end:
            world.now = max(at, world.now)
            world.pass_time(0)
        world.pass_time(max(0, end - world.now))

    def act(self, holder: Holder) -> None:
        self.world.take(holder)
        for order in list(holder.running.values()):
            if order.token in holder.running:
                self.answer(holder, order)

    def answer(self, holder: Holder, order: wire.Assign) -> None:
        rng, world, what = self.rng, self.world, self.rng.random()
        size = holder.sizes.get(order.token, 1)
        if order.name == "key":
            if what < 0.8:
                world.finish(holder, order, rng.choice([b'"a"', b'"a"', b'"b"', b"7"]))
            elif what < 0.9:
                world.fail(holder, order)
        elif what < 0.40:
            world.finish(holder, order)
        elif what < 0.50:
            world.fail(holder, order, rng.choice([wire.FAILED_ERROR, wire.FAILED_TIMEOUT]), rng.choice([0, 0, -1, 700]))
        elif what < 0.65:
            world.accept(holder, order)
        elif what < 0.70 and order.token not in holder.lent:
            world.lend(holder, order)
        elif what < 0.75 and order.token in holder.lent and holder.room >= size:
            world.resume(holder, order)
        elif what < 0.80:
            world.spawn(holder, order, rng.choice(self.workflows).name, rng.choice("12"), sticky=rng.random() < 0.6)


def _look(life: _Life, number: int) -> None:
    life.world.check_ledger()
    life.world.check_out()
    if not number % 4:
        life.world.check_nobody_is_forgotten()
        life.world.check_settled()


def _live_many(seeds: range) -> None:
    for seed in seeds:
        try:
            life = _Life(seed)
            for number in range(HAPPENINGS):
                life.happen()
                _look(life, number)
            life.world.check_once()
            if not seed % 5:
                life.world.check_followers()
        except Exception as error:
            raise AssertionError(f"seed {seed}: {type(error).__name__} {error}") from error


@pytest.mark.timeout(240)
@pytest.mark.parametrize("first", range(0, CASES, CHUNK))
def test_every_promise_holds_in_any_mix(first: int) -> None:
    _live_many(range(first, first + CHUNK))


@pytest.mark.parametrize("seed", range(60))
def test_every_promise_holds_when_leaders_die(seed: int) -> None:
    life = _Life(10_000 + seed)
    for _ in range(40):
        with life.world.leader_dies(life.rng.random(), life.rng.choice(TAKERS)):
            for _ in range(life.rng.randint(1, 4)):
                life.happen()
        life.world.check_places()
        life.world.check_slots()
        life.world.check_out()
    life.world.check_followers()
    life.world.check_once()


@pytest.mark.parametrize("seed", range(40))
def test_everything_ends_once_there_are_workers(seed: int) -> None:
    life = _Life(20_000 + seed)
    for _ in range(HAPPENINGS):
        life.happen()
    world = life.world
    for holder in list(world.workers.values()):
        world.kill(holder)
    for id in (*IDS, "w4", "w5"):
        world.join(id, life.workflows, 5, gpu=1 + (id in ("w2", "w4")), zone=1 + (id in ("w3", "w4")))
    for _ in range(120):
        for holder in list(world.workers.values()):
            world.take(holder)
            for order in list(holder.running.values()):
                if order.token in holder.running:
                    world.finish(holder, order, b'"a"')
        life.pass_time(5_000)
    left = [step for run in world.state.runs.values() for step in run.steps if step.state is READY]
    waits = [waiting_for(world.state, step).cause for step in left if not (is_hopeless(world.state, step) or _waits_for_hopeless(step))]
    assert not waits
    world.check_followers()


def _waits_for_hopeless(step: Step) -> bool:
    """It waits for a place that a run has which waits for a worker that there is none of."""
    return step.parked and step.ticket is not None and step.ticket.parked is not None


MUTANTS: dict[str, tuple[object, str, object]] = {
    "groups are never full": (Group, "full", False),
    "a place is free as soon as its run is over": (limits.Limits, "over", lambda limits, attempt: None),
    "a cancelled run leaves at once": (Groups, "end", Groups.leave),
    "nobody is told that a place is free": (Admitting, "serve_freed", lambda core: None),
    "rates let everything pass": (Rates, "wait", lambda *_, **__: 0),
    "a rate forgets what has passed": (Rates, "take", lambda *_: None),
    "nobody asks a rate again": (Admitting, "rate_came", lambda core, key: None),
    "nobody looks whether a slot is left over": (Admitting, "_find_slot", lambda core: False),
    "a run waits for its place for ever": (Admitting, "give_up_waiting", lambda core, run: None),
    "labels don't matter": (labels, "suits", lambda wishes, labels: True),
    "a step needs one slot": (labels.Wish, "allows", lambda wish, slots, has: labels.suits(wish.labels, has)),
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_core_that_breaks_a_promise_is_found_out(mutant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(*MUTANTS[mutant])
    with pytest.raises(AssertionError, match="seed"):
        _live_many(range(200))
