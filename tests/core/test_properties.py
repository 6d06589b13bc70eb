"""Random worlds: whatever happens, invariants hold, replay equals the live state, and everything ends once."""

from __future__ import annotations

import random

import pytest
from msgspec import structs

from mesh.core.image import digest, encode_image, image, load
from tests.core.world import World, chain, diamond

WORKFLOWS = [
    chain("one", 1, retries=2),
    chain("chain", 3, retries=1, backoff_factor=2.0),
    diamond("diamond", retries=1),
    structs.replace(chain("soft", 3), sticky="SOFT"),
    structs.replace(chain("hard", 2), sticky="HARD"),
]


def a_random_life(seed: int, steps: int) -> World:
    rng = random.Random(seed)
    world = World(seed, finished_max=50)
    runs: list[str] = []
    serial = 0
    for _ in range(steps):
        choice = rng.random()
        if choice < 0.06 or not world.workers:
            serial += 1
            subset = WORKFLOWS if rng.random() < 0.7 else WORKFLOWS[: rng.randint(1, 4)]
            world.join(rng.choice(["w1", "w2", f"w{serial}"]), subset, rng.randint(1, 4))
        elif choice < 0.09:
            world.kill(rng.choice(list(world.workers.values())))
        elif choice < 0.35:
            runs.append(world.start(rng.choice(WORKFLOWS).name, priority=rng.choice([0, 0, 1, 5, 9])))
        elif choice < 0.39 and runs:
            world.decide(_cancel(rng.choice(runs)), _client(world))
        elif choice < 0.45:
            world.pass_time(rng.choice([1, 100, 2000, 6000, 70_000]))
        else:
            act(world, rng)
    return world


def _cancel(run: str):
    from mesh_sdk.protocol.records import Cancel

    return Cancel(run, "why not")


def _client(world: World):
    from mesh.core.inputs import Sender

    return Sender("client", "", world.now)


def act(world: World, rng: random.Random) -> None:
    """One worker takes its lanes and answers some of what it has."""
    from mesh_sdk.protocol import records as wire

    holder = rng.choice(list(world.workers.values()))
    world.take(holder)
    for order in list(holder.running.values()):
        if order.token not in holder.running:
            continue
        what = rng.random()
        if what < 0.4:
            world.finish(holder, order)
        elif what < 0.5:
            world.fail(holder, order)
        elif what < 0.6:
            world.accept(holder, order)
        elif what < 0.65:
            reason = rng.choice([wire.RETURNED_FULL, wire.RETURNED_DRAINING, wire.RETURNED_REDELIVERED])
            world.answer(holder, order.token, wire.Returned(order.run, order.step, order.attempt, order.token, reason))
        elif what < 0.7 and order.token not in holder.lent:
            holder.lent.add(order.token)
            world.decide(wire.Lent(order.run, order.step, order.attempt, order.token), holder.sender)
        elif what < 0.75 and order.token in holder.lent and holder.room > 0:
            holder.lent.discard(order.token)
            world.decide(wire.Resumed(order.run, order.step, order.attempt, order.token), holder.sender)


@pytest.mark.parametrize("seed", range(60))
def test_any_life_replays_to_the_same_state(seed: int) -> None:
    world = a_random_life(seed, 300)
    assert world.same_when_replayed()
    copy = load(encode_image(image(world.state)), 50)
    assert digest(copy) == digest(world.state)


@pytest.mark.parametrize("seed", range(30))
def test_everything_ends_once_there_are_workers(seed: int) -> None:
    world = a_random_life(seed, 200)
    for holder in list(world.workers.values()):
        world.kill(holder)
    for id in ("w1", "w2", *(f"w{n}" for n in range(3, 40))):
        world.join(id, WORKFLOWS, 4)
    for _ in range(30):
        world.run_all()
        world.pass_time(10_000)
        if not world.state.runs:
            break
    for _ in range(8):  # a HARD run whose worker is not back is ended by its schedule timeout
        world.pass_time(100_000)
        world.run_all()
    assert not world.state.runs
    assert len(world.executed) == len(set((r, s, a) for r, s, a, _ in world.executed))
    told = [notice.run for notice in world.notices if type(notice).__name__ == "Done"]
    assert len(told) == len(set(told))
