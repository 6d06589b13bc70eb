"""Sticky runs in random mixes: strategies, priorities, retries, timeouts, few slots, children, and workers that come and go."""

from __future__ import annotations

import os
import random

import pytest
from msgspec import structs

from mesh.core import attempts_known
from mesh.core.core import Core
from mesh.core.effects import Teller
from mesh.core.memory import Memory
from mesh.core.placement import wish_of
from mesh.core.run import Run
from mesh.core.slots import Worker
from mesh.core.step import Step
from mesh_sdk.protocol import records as wire
from mesh_sdk.protocol.definitions import StepDefinition, WorkflowDefinition
from tests.core.holder import Holder
from tests.core.lives import TAKERS
from tests.core.sticky_checks import StickyWorld

CASES = int(os.environ.get("MESH_STICKY_CASES", "2000"))
CHUNK = 100
HAPPENINGS = 60


def _workflow(rng: random.Random, name: str) -> WorkflowDefinition:
    """A DAG of one to five steps with options of all kinds."""
    steps = []
    for index in range(rng.randint(1, 5)):
        parents = sorted(rng.sample(range(index), rng.randint(0, min(index, 2))))
        steps.append(
            StepDefinition(
                f"s{index}", parents, rng.choice([0, 500, 3_000]), rng.choice([0, 0, 4_000]), rng.randint(0, 2),
                rng.choice([0.0, 0.0, 2.0]), 0, rng.choice([0, 0, 2, 7]),
            )
        )  # fmt: skip
    sticky = rng.choice(["SOFT", "SOFT", "HARD", "HARD", ""])
    return WorkflowDefinition(name, steps, priority=rng.choice([1, 5, 9]), sticky=sticky, sticky_timeout_ms=rng.choice([100, 1_000, 5_000]))


class _Life:
    """One random mix."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.world = StickyWorld(seed)
        self.workflows = [_workflow(self.rng, name) for name in ("one", "two", "three")]
        for id in ("w1", "w2", "w3")[: self.rng.randint(1, 3)]:
            self.join(id)

    def join(self, id: str) -> None:
        """A worker with all workflows, or some, or (a rolling deploy) with versions of them that have fewer steps."""
        known, choice = self.workflows, self.rng.random()
        if choice < 0.15:
            known = self.rng.sample(self.workflows, 2)
        elif choice < 0.45:
            known = [structs.replace(flow, steps=flow.steps[: self.rng.randint(1, len(flow.steps))]) for flow in self.workflows]
        self.world.join(id, known, self.rng.randint(1, 3))

    def happen(self) -> None:
        rng, world = self.rng, self.world
        choice = rng.random()
        if not world.workers or choice < 0.04:
            self.join(rng.choice(["w1", "w2", "w3"]))
        elif choice < 0.06:
            world.kill(rng.choice(list(world.workers.values())))
        elif choice < 0.07:
            world.leave(rng.choice(list(world.workers.values())))
        elif choice < 0.09:
            world.decide(wire.Draining(), rng.choice(list(world.workers.values())).sender)
        elif choice < 0.11:
            self.register_again(rng.choice(list(world.workers.values())))
        elif choice < 0.32:
            self.start()
        elif choice < 0.46:
            world.pass_time(rng.choice([10, 100, 400, 1_000, 5_000]))
        else:
            self.act(rng.choice(list(world.workers.values())))

    def start(self) -> None:
        rng, flow = self.rng, self.rng.choice(list(self.world.state.flows.values()))
        worker = rng.choice(["w1", "w2"]) if flow.sticky and rng.random() < 0.3 else ""
        self.world.start(flow.name, worker=worker, priority=rng.choice([0, 0, 3, 8]))

    def register_again(self, holder: Holder) -> None:
        """The same incarnation, with other workflows."""
        workflows = self.rng.sample(self.workflows, self.rng.randint(1, 3))
        holder.forgotten = {workflow.name for workflow in self.workflows} - {workflow.name for workflow in workflows}
        self.world.decide(wire.Register("w", holder.slots, workflows, {}, f"client-{holder.id}"), holder.sender)

    def act(self, holder: Holder) -> None:
        self.world.take(holder)
        for order in list(holder.running.values()):
            if order.token in holder.running:
                self.answer(holder, order)

    def answer(self, holder: Holder, order: wire.Assign) -> None:
        rng, world, what = self.rng, self.world, self.rng.random()
        if what < 0.35:
            world.finish(holder, order)
        elif what < 0.45:
            world.fail(holder, order, rng.choice([wire.FAILED_ERROR, wire.FAILED_TIMEOUT]), rng.choice([0, 0, -1, 700]))
        elif what < 0.60:
            world.accept(holder, order)
        elif what < 0.65 and order.token not in holder.lent:
            world.lend(holder, order)
        elif what < 0.70 and order.token in holder.lent and holder.room > 0:
            world.resume(holder, order)
        elif what < 0.80:
            world.spawn(holder, order, rng.choice(self.workflows).name, rng.choice("12"), sticky=rng.random() < 0.8)


@pytest.mark.timeout(240)
@pytest.mark.parametrize("first", range(0, CASES, CHUNK))
def test_every_promise_holds_in_any_mix(first: int) -> None:
    _live_many(range(first, first + CHUNK))


def _live_many(seeds: range) -> None:
    for seed in seeds:
        try:
            life = _Life(seed)
            for number in range(HAPPENINGS):
                life.happen()
                life.world.check_ledger()
                life.world.check_kept()
                if not number % 4:
                    life.world.check_settled()
            life.world.check_once()
            if not seed % 10:
                life.world.check_followers()
        except Exception as error:
            raise AssertionError(f"seed {seed}: {error}") from error


@pytest.mark.parametrize("seed", range(60))
def test_a_run_stays_in_one_place_when_leaders_die(seed: int) -> None:
    life = _Life(10_000 + seed)
    for _ in range(40):
        with life.world.leader_dies(life.rng.random(), life.rng.choice(TAKERS)):
            for _ in range(life.rng.randint(1, 4)):
                life.happen()
    life.world.check_followers()
    life.world.check_once()


def _hard_moves_too(memory: Memory, step: Step, worker: Worker | None) -> None:
    if worker is not None and worker.can_run(step.action, wish_of(step)):
        worker.line.push(step)
        worker.pool.waiting[worker.id] = worker
    else:
        step.run.loose = True
        memory.routes.queue(step.action).push(step)


MUTANTS: dict[str, tuple[object, str, object]] = {
    "HARD moves like SOFT": (Memory, "_enqueue_bound", _hard_moves_too),
    "a run moves while a step of it is on its worker": (Run, "placed", False),
    "a worker gets what it does not register": (Worker, "can_run", lambda worker, action, wish: worker.takes_work),
    "a worker gets one more than its slots": (Worker, "room", property(lambda worker: worker.slots + 1 - len(worker.reserved))),
    "a lost worker uses up a retry": (attempts_known, "KIND_LOST", "no such kind"),
    "SOFT waits for ever": (Core, "loosen", lambda core, run: None),
    "nobody forgets": (Teller, "_forget", lambda teller, *_: None),
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_core_that_breaks_a_promise_is_found_out(mutant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(*MUTANTS[mutant])
    with pytest.raises(AssertionError, match="seed"):
        _live_many(range(300))
