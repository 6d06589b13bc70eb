"""A leader may die between any two records of a decision: its successor decides the same input again.

Whatever part of the records was journaled, the outcome is that of the whole decision: nothing lost, nothing doubled.
"""

from __future__ import annotations

import itertools
import random
from typing import Any

import pytest

from mesh.core.check import check
from mesh.core.core import Core
from mesh.core.image import encode_image, image
from mesh.core.inputs import SELF, Sender
from mesh.core.loading import load
from mesh.core.records import Fact
from mesh.core.run import Run
from mesh.core.state import State
from mesh.core.step import OUT, READY, Step
from tests.core.lives import end_everything, live
from tests.core.world import World


class CutWorld(World):
    """After a decision, decides it again behind every part of its records."""

    def __init__(self, seed: int) -> None:
        self.cuts = 0
        self.asked: tuple[int, set[tuple[str, str]], int] = (0, set(), 0)
        self.rng = random.Random(seed)
        super().__init__(seed)

    def decide(self, input: object, sender: Sender = SELF) -> list[Fact]:
        look = self.rng.random() < 0.25
        before = encode_image(image(self.state)) if look else b""
        self.asked = (self.core._question, set(self.core._unheard), self.core._claims_until)
        facts = super().decide(input, sender)
        if look and len(facts) > 1:
            for cut in range(1, len(facts)):
                self._decide_again(before, facts[:cut], input, sender)
        return facts

    def _decide_again(self, before: bytes, journaled: list[Fact], input: object, sender: Sender) -> None:
        state = load(before, self.finished_max)
        state.now = self.state.now
        for fact in journaled:
            state.apply(fact)
        tokens = itertools.count(1)
        core = Core(state, lambda: f"again{next(tokens)}")
        core._question, core._unheard, core._claims_until = self.asked[0], set(self.asked[1]), self.asked[2]  # it has asked, too
        core.begin(self.now)
        core.decide(input, sender)
        check(state)
        core.take()
        core.settle()
        assert not core.take(), "a step waits while there is a place for it"
        self.cuts += 1
        assert outcome(state) == outcome(self.state), (input, journaled[-1])
        core.decide(input, sender)
        assert outcome(state) == outcome(self.state), "deciding it once more has changed something"


def outcome(state: State) -> dict[str, Any]:
    """What matters of a state.

    Which of the waiting steps goes first, and where, may differ: the successor sees them all at once. That none waits
    in vain is asserted apart.
    """
    return {
        "live": {run.id: _run(run) for run in state.runs.values()},
        "over": {run.id: _run(run) for run in state.finished.all()},
        "keys": state.keys,
        "repeats": state.repeats,
        "awaited": state.awaited,
        "lanes": (state.lanes_until, len(state.unclaimed)),
        "flows": {name: flow.digest for name, flow in state.flows.items()},
        "pools": {pool.id: pool.capacity for pool in state.pools.values()},
        "workers": {worker.id: (worker.incarnation, worker.draining, worker.used) for worker in state.workers.values()},
    }


def _run(run: Run) -> tuple[object, ...]:
    return run.flow.digest, run.status, run.reason, run.left, run.client, run.also, run.start_at, run.spawned, [_step(s) for s in run.steps]


def _step(step: Step) -> tuple[object, ...]:
    told = (step.retries, step.losses, step.again_at, bytes(step.output), step.error_kind, step.children)
    return ("waits or is out", *told) if step.state in (READY, OUT) else (step.state, step.attempt, *told)


@pytest.mark.parametrize("seed", range(15))
def test_a_decision_cut_anywhere_comes_out_whole(seed: int) -> None:
    world = CutWorld(seed)
    live(world, seed, 150)
    end_everything(world)
    assert world.cuts > 20
