"""What lines keep of those who wait in them no more: of a leader, and of a standby, which does not know whom its leader has parked."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from mesh.core import line as lines
from mesh.core.line import ENTRIES_SWEPT
from mesh.core.placement import Queue
from mesh.core.state import State
from mesh_sdk.protocol import records as wire
from mesh_sdk.protocol.definitions import ConcurrencyDefinition, LabelDefinition, RateDefinition, StepDefinition, WorkflowDefinition
from tests.core.holder import Holder
from tests.core.test_line import Waiting
from tests.core.world import World

MANY = 300
WEEK_MS = 7 * 86_400_000
PLAIN = WorkflowDefinition("w", [StepDefinition("a")])
KEYED = WorkflowDefinition("w", [StepDefinition("a")], concurrency=[ConcurrencyDefinition(100, key="input.k")])
RATED = WorkflowDefinition("w", [StepDefinition("a", rate_limits=[RateDefinition("input.k", 1, WEEK_MS)])])
CHAINED = WorkflowDefinition("w", [StepDefinition("a"), StepDefinition("b", [0])], sticky="HARD")


def queue(state: State) -> Queue:
    return state.routes.queue("w:a")


def entries(state: State) -> int:
    return len(queue(state).ready) + sum(len(line) for _, line in queue(state).wanting())


def key(name: object) -> bytes:
    return b'{"k":"%s"}' % str(name).encode()


def serve(world: World, holder: Holder) -> None:
    """Everything that the worker has been given."""
    while world.take(holder):
        for order in list(holder.running.values()):
            world.finish(holder, order)


def cancelled_first(world: World, holder: Holder) -> None:
    world.start("w", input=key("a"))
    world.cancel(world.start("w", input=key("a")))


def parked_first(world: World, holder: Holder) -> None:
    world.start("w", input=key("slow"))
    world.start("w", input=key("slow"))


@pytest.mark.parametrize(
    ("workflow", "before"),
    [(PLAIN, cancelled_first), (KEYED, cancelled_first), (RATED, parked_first)],
    ids=["cancelled", "cancelled, with a key", "parked for its rate"],
)
def test_a_standby_keeps_nothing_of_what_has_gone_by(workflow: WorkflowDefinition, before: Callable[[World, Holder], None]) -> None:
    world = World(finished_max=10)
    holder = world.join("w1", [workflow], 1)
    before(world, holder)
    for number in range(MANY):
        world.start("w", input=key(number))
        serve(world, holder)
    assert world.standby.waiting <= 1
    assert entries(world.state) <= 1
    assert entries(world.standby) <= 2 * world.standby.waiting + ENTRIES_SWEPT


def test_of_those_that_are_cancelled_behind_one_who_waits_little_is_kept() -> None:
    world = World(finished_max=10)
    world.join("w1", [PLAIN], 1)
    runs = [world.start("w") for _ in range(MANY)]
    for run in runs[2:]:
        world.cancel(run)
    for state in (world.state, world.standby):
        assert state.waiting == 1
        assert entries(state) <= 2 + ENTRIES_SWEPT, "also when nobody comes any more"


def test_of_those_that_are_cancelled_behind_one_who_waits_for_a_rate_little_is_kept() -> None:
    world = World(finished_max=10)
    world.join("w1", [RATED], 10)
    for _ in range(2):
        world.start("w", input=key("slow"))
    for _ in range(MANY):
        world.cancel(world.start("w", input=key("slow")))
    assert world.state.waiting == 1
    assert len(world.state.limits.lines["slow"]._line) <= 2 * 2 + ENTRIES_SWEPT


def test_of_those_that_are_cancelled_behind_one_who_waits_for_its_worker_little_is_kept() -> None:
    world = World(finished_max=10)
    holder = world.join("w1", [CHAINED], 2 * ENTRIES_SWEPT)
    runs = [world.start("w") for _ in range(2 * ENTRIES_SWEPT)]
    world.take(holder)
    world.decide(wire.Steer(holder.id, wire.PAUSE))
    for order in list(holder.running.values()):
        world.finish(holder, order)
    for run in runs[1:]:
        world.cancel(run)
    for state in (world.state, world.standby):
        assert len(state.away[holder.id]) <= 2 + ENTRIES_SWEPT


@pytest.mark.parametrize("slots", [1, 0], ids=["no slot is free", "nobody could run it"])
def test_what_runs_wanted_is_forgotten_with_them(slots: int) -> None:
    world = World(finished_max=10)
    world.join("w1", [PLAIN], 1, **({"job": 0} if slots else {}))
    world.start("w")
    for number in range(20):
        label = LabelDefinition("job", -number, comparator=">=", required=True)
        world.cancel(world.start("w", labels=[label]))
    for state in (world.state, world.standby):
        assert not queue(state).wanting()


def test_keys_that_were_served_one_at_a_time_are_forgotten() -> None:
    world = World(finished_max=10)
    holder = world.join("w1", [KEYED], 1)
    for number in range(20):
        world.start("w", input=key(number))
        serve(world, holder)
    for state in (world.state, world.standby):
        assert [level.turns._next for level in queue(state).ready._levels.values()] == [{}]


# ---- one line -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("keys", [1, 20], ids=["no keys", "keys"])
@pytest.mark.parametrize("seed", range(3))
def test_sweeping_costs_little_and_what_is_kept_is_what_waits(keys: int, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    looked, swept = [0], lines.swept

    def counted(heap: list[object]) -> list[object]:
        looked[0] += len(heap)
        return swept(heap)

    monkeypatch.setattr(lines, "swept", counted)
    rng, waiting = random.Random(seed), Waiting()
    there: list[object] = []
    happened = 0
    for phase in (0.8, 0.5, 0.2, 0.5, 0.05):
        for _ in range(2_000):
            happened += 1
            if rng.random() < phase or not there:
                there.append(waiting.push(f"{rng.randrange(keys)}" if keys > 1 else "", at=happened))
                continue
            place = rng.randrange(len(there))
            there[place], there[-1] = there[-1], there[place]
            step = there.pop()
            step.state = "out"
            if rng.random() < 0.5:
                waiting.line.served(step)
            else:
                waiting.line.left(step)
            assert len(waiting.line) <= 2 * len(there) + ENTRIES_SWEPT
    assert set(waiting.line.waiting()) == set(there)
    assert looked[0] <= 6 * happened, "of every one that comes or goes, some entries are looked at"


def test_what_leaves_unsaid_is_swept_by_those_who_come() -> None:
    waiting = Waiting()
    first = waiting.push()
    for _ in range(MANY):
        assert len(waiting.line) <= 2 * 2 + ENTRIES_SWEPT
        waiting.push().state = "skipped"
    assert list(waiting.line.waiting()) == [first]
