"""Runs that belong to a worker are found without looking at all the others, however many there are."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from mesh.core import records as facts
from mesh.core.check import check
from mesh.core.image import digest, encode_image, image
from mesh.core.loading import load
from mesh.core.run import Run
from mesh.core.slots import Worker
from mesh.core.state import State
from mesh_sdk.protocol import records as wire
from mesh_sdk.protocol.definitions import ConcurrencyDefinition, StepDefinition, WorkflowDefinition
from tests.core.lives import live
from tests.core.world import World

CHAIN = [StepDefinition("a"), StepDefinition("b", [0])]
LIMIT = [ConcurrencyDefinition(100, key="input.k")]
STICKY = [
    WorkflowDefinition("soft", CHAIN, sticky="SOFT"),
    WorkflowDefinition("hard", CHAIN, sticky="HARD", concurrency=LIMIT),
]


class Unscanned(dict[str, Run]):
    """Live runs that nobody may go through."""

    def _scanned(self, *_: object) -> None:
        raise AssertionError("all live runs are looked at")

    __iter__ = values = items = keys = _scanned  # type: ignore[assignment]


def registered(worker: Worker) -> facts.WorkerRegistered:
    return facts.WorkerRegistered(
        worker.id, worker.incarnation, worker.name, worker.slots + 1, {}, worker.workflows, worker.client, worker.host, worker.pid
    )


HAPPENINGS: dict[str, Callable[[Worker], list[facts.Fact]]] = {
    "pause and resume": lambda worker: [facts.WorkerSteered(worker.id, wire.PAUSE), facts.WorkerSteered(worker.id, wire.RESUME)],
    "drain": lambda worker: [facts.WorkerDraining(worker.id)],
    "loss and return": lambda worker: [facts.WorkerGone(worker.id, worker.incarnation, "lost"), registered(worker)],
    "other labels": lambda worker: [registered(worker)],
}


def busy() -> World:
    """Each of two workers has runs of both kinds that wait for it."""
    world = World()
    for id in ("w1", "w2"):
        holder = world.join(id, STICKY, 4)
        for name in ("soft", "hard") * 2:
            world.start(name, input=b'{"k":"a"}')
        for order in world.take(holder):
            world.finish(holder, order)
    return world


@pytest.mark.parametrize("what", HAPPENINGS)
def test_what_becomes_of_a_worker_does_not_look_at_all_runs(what: str) -> None:
    world = busy()
    state = world.state
    worker = state.workers["w1"]
    before = dict(state.runs)
    state.runs = Unscanned(state.runs)
    for fact in HAPPENINGS[what](worker):
        state.apply(fact)
    state.runs = before
    belong = {id: {run.id for run in before.values() if run.worker == id} for id in ("w1", "w2")}
    assert {id: {run.id for run in runs} for id, runs in state.bound.items()} == belong
    assert all(worker.bound == len(belong[worker.id]) for worker in state.workers.values())


@pytest.mark.parametrize("seed", range(5))
def test_a_successor_knows_which_runs_belong_to_whom(seed: int) -> None:
    world = World(seed, finished_max=50)
    live(world, seed, 200, deaths=0.1)
    loaded = load(encode_image(image(world.state)), 50)
    states: list[State] = [world.state, world.standby, world.replayed(), loaded]
    for state in states:
        check(state)
    found = [{worker: {run.id for run in runs} for worker, runs in state.bound.items()} for state in states]
    assert found[1:] == found[:-1]


def test_a_loaded_image_takes_loose_runs_back_in_the_same_order() -> None:
    """The marks of their steps say so, and are part of the state."""
    world = busy()
    loaded = load(encode_image(image(world.state)), world.finished_max)
    worker = world.state.workers["w1"]
    for fact in (*HAPPENINGS["pause and resume"](worker), *HAPPENINGS["loss and return"](worker)):
        for state in (world.state, loaded):
            state.apply(fact)
    assert digest(loaded) == digest(world.state)
