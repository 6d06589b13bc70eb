"""What readers are told of runs and workers: a run is queued while it waits for no more than a free slot, waiting when one would not do."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from mesh.core import reach
from mesh.scheduler import listing
from mesh.scheduler.views import RunQuery, Views
from mesh_sdk.protocol import records as wire
from mesh_sdk.protocol.definitions import LabelDefinition, StepDefinition, WorkflowDefinition
from tests.core.grouped import A, by_function
from tests.core.world import World

GPU = [LabelDefinition("gpu", "a100", required=True)]
PLAIN = WorkflowDefinition("plain", [StepDefinition("a")])
TWO = WorkflowDefinition("two", [StepDefinition("a"), StepDefinition("b", labels=GPU)])
LABELLED = WorkflowDefinition("labelled", [StepDefinition("a", labels=GPU)])
BIG = WorkflowDefinition("big", [StepDefinition("a", slots=9)])
ALL = [PLAIN, TWO, LABELLED, BIG]


def world_of(*steered: str, slots: int = 1, **labels: str) -> World:
    world = World()
    world.join("w1", ALL, slots, **labels)
    for what in steered:
        world.decide(wire.Steer("w1", what))
    return world


def views(world: World) -> Views:
    return Views(world.core, lambda worker: None, lambda: world.state.now)


def told(world: World, run: str) -> tuple[str, str]:
    """Its status, and the kind of what it waits for."""
    row = views(world).run(run)
    assert row is not None
    return row["status"], row["wait"]["kind"] if row["wait"] else ""


def listed(world: World, **query: Any) -> list[str]:
    page = views(world).runs(RunQuery(**query), 1_000_000)
    while not page.slice():
        pass
    return [run["run_id"] for run in json.loads(page.answer())["ok"]["runs"]]


def test_a_run_that_waits_for_a_free_slot_is_queued() -> None:
    world = world_of(gpu="a100")
    for name in ("plain", "labelled", "two"):
        world.start("plain")
        assert told(world, world.start(name)) == ("queued", "slots")


CASES: dict[str, tuple[Callable[[], World], str, str]] = {
    "label": (lambda: world_of(slots=2), "labelled", "labels"),
    "slots": (lambda: world_of(slots=2), "big", "labels"),
    "paused": (lambda: world_of(wire.PAUSE), "plain", "worker"),
    "draining": (lambda: world_of(wire.DRAIN), "plain", "worker"),
    "paused, of those that have the label": (lambda: world_of(wire.PAUSE, gpu="a100"), "labelled", "worker"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_run_that_no_free_slot_would_help_waits(case: str) -> None:
    begin, name, kind = CASES[case]
    world = begin()
    run = world.start(name)
    assert told(world, run) == ("waiting", kind)
    assert listed(world, status="waiting") == [run]
    assert listed(world, status="queued") == []


def test_a_run_that_no_worker_registers_waits() -> None:
    world = World()
    holder = world.join("w1", [PLAIN, by_function()])
    world.kill(holder)
    assert told(world, world.start("plain")) == ("waiting", "worker")
    run = world.start("w", input=A)
    assert told(world, run) == ("waiting", "key")
    assert "no worker registers w:key" in views(world).run(run)["waiting"]  # type: ignore[index]


def test_what_is_told_is_what_a_free_slot_would_not_solve() -> None:
    world = world_of()
    world.start("plain")
    row = views(world).run(world.start("two"))
    assert row is not None
    assert (row["status"], row["wait"]["step"], row["wait"]["kind"]) == ("waiting", "b", "labels")


def looks_at(monkeypatch: pytest.MonkeyPatch, world: World) -> tuple[int, int]:
    """How often all workers are looked at to find that of 200 runs none is queued, and in how many slices."""
    monkeypatch.setattr(listing, "SLICE_WORK", 1_000)
    looks: list[str] = []
    slices, look = 1, reach._reach
    monkeypatch.setattr(reach, "_reach", lambda state, step, wish: looks.append(step.action) or look(state, step, wish))  # type: ignore[func-returns-value]
    page = views(world).runs(RunQuery(status="queued"), 1_000_000)
    while not page.slice():
        slices += 1
    return len(looks), slices


def test_a_list_of_runs_that_want_the_same_costs_one_look_at_the_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    world = world_of(slots=1)
    for _ in range(200):
        world.start("labelled")
    assert looks_at(monkeypatch, world) == (1, 1)


def test_a_list_of_runs_that_want_other_things_each_is_looked_at_in_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    world = world_of(slots=1)
    for number in range(19):
        world.join(f"more{number}", ALL, 1)
    for number in range(200):
        world.start("labelled", labels=[LabelDefinition("gpu", number, required=True)])
    assert looks_at(monkeypatch, world) == (200, 5), "200 times 20 workers, and the runs themselves"


def test_a_list_does_not_go_on_with_what_was_true_of_its_first_slice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "SLICE_WORK", 1)
    world = world_of(slots=1)
    world.start("plain")
    for _ in range(4):
        world.start("labelled")
    page = views(world).runs(RunQuery(workflow="labelled"), 1_000_000)
    assert not page.slice()
    world.join("w2", ALL, 0, gpu="a100")
    world.join("w3", ALL, 1, gpu="a100")
    while not page.slice():
        pass
    rows = json.loads(page.answer())["ok"]["runs"]
    assert [row["status"] for row in rows] == ["waiting", "queued", "queued", "running"]


def test_a_worker_that_is_to_drain_is_draining_before_it_has_said_so() -> None:
    world = world_of(wire.DRAIN)
    page = views(world).workers(1_000_000)
    while not page.slice():
        pass
    assert [worker["state"] for worker in json.loads(page.answer())["ok"]] == ["draining"]


def test_a_step_that_was_cancelled_while_it_ran_says_where_and_when() -> None:
    world = World()
    holder = world.join("w1", [WorkflowDefinition("chain", [StepDefinition("a"), StepDefinition("b", [0])])])
    run = world.start("chain")
    (order,) = world.take(holder)
    world.accept(holder, order)
    world.pass_time(1_000)
    world.cancel(run)
    world.fail(holder, order, "cancelled")
    for taker in ("", "image"):
        if taker:
            world.take_over(taker)
        row = views(world).run(run)
        assert row is not None
        first, second = row["steps"]["a"], row["steps"]["b"]
        assert (first["status"], first["worker"], first["finished_at"]) == ("cancelled", "w1", row["finished_at"])
        assert (second["status"], second["worker"], second["finished_at"]) == ("cancelled", None, None)
