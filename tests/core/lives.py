"""Random lives of a world: whatever a seed says happens, in any order."""

from __future__ import annotations

import random
from contextlib import nullcontext

from msgspec import structs

from mesh.core.waiting import waiting_for
from mesh_sdk.protocol import records as wire
from tests.core.holder import Holder
from tests.core.lost_lanes import lanes_lost
from tests.core.workflows import chain, diamond
from tests.core.world import World

WORKFLOWS = [
    structs.replace(chain("one", 1, retries=2), on_events=["e.*"]),
    chain("chain", 3, retries=1, backoff_factor=2.0, timeout_ms=3_000),
    structs.replace(diamond("diamond", retries=1, priority=3), on_events=["e.d*"]),
    structs.replace(chain("soft", 3, schedule_timeout_ms=60_000), sticky="SOFT"),
    structs.replace(diamond("hard"), sticky="HARD"),
    structs.replace(diamond("both"), sticky="SOFT", sticky_timeout_ms=2_000),
]
TAKERS = ("standby", "replay", "image")


def live(world: World, seed: int, steps: int, *, deaths: float = 0.0) -> list[str]:
    """Let things happen. `deaths` is how often the leader dies. Returns the ids of what was started."""
    rng = random.Random(seed)
    runs: list[str] = []
    for step in range(steps):
        dies = rng.random() < deaths
        cut, taker = rng.random() * 1.2, rng.choice(TAKERS)
        frame = world.leader_dies(min(cut, 1.0), taker) if dies else nullcontext()
        with frame:
            for _ in range(rng.randint(1, 6) if dies else 1):
                _happen(world, rng, runs, step)
        world.check_ledger()
        world.core.settle()
        left = world.core.take()
        assert not left, f"a decision was left half done: {left}"
    return runs


def _happen(world: World, rng: random.Random, runs: list[str], step: int) -> None:
    choice = rng.random()
    if choice < 0.05 or not world.workers:
        subset = WORKFLOWS if rng.random() < 0.7 else WORKFLOWS[: rng.randint(1, 6)]
        world.join(rng.choice(["w1", "w2", f"w{step}"]), subset, rng.randint(1, 4))
    elif choice < 0.08:
        world.kill(rng.choice(list(world.workers.values())))
    elif choice < 0.09:
        world.leave(rng.choice(list(world.workers.values())))
    elif choice < 0.30:
        runs.append(_start(world, rng))
    elif choice < 0.33:
        world.event(rng.choice(["e.x", "e.d", "other"]), step + 1)
    elif choice < 0.36 and runs:
        world.cancel(rng.choice([*runs[-20:], world.run_id()]))
    elif choice < 0.42:
        world.pass_time(rng.choice([1, 100, 2000, 6000, 70_000]))
    elif choice < 0.44 and world.dead:
        _from_the_grave(world, rng)
    elif choice < 0.45:
        lanes_lost(world)
    else:
        act(world, rng, rng.choice(list(world.workers.values())))


def _start(world: World, rng: random.Random) -> str:
    name = rng.choice(WORKFLOWS).name
    options: dict[str, object] = {"priority": rng.choice([0, 0, 1, 5, 9])}
    if rng.random() < 0.1:
        options["delay_ms"] = rng.choice([50, 3000])
    if rng.random() < 0.1:
        options["key"] = rng.choice("xyz")
    if name in ("soft", "hard") and rng.random() < 0.3:
        options["worker"] = rng.choice(["w1", "w2"])
    return world.start(name, client=rng.choice(["client", "other"]), **options)  # type: ignore[arg-type]


def _from_the_grave(world: World, rng: random.Random) -> None:
    """A worker that counts as dead was not: it reports what it did."""
    holder = rng.choice(world.dead)
    for order in list(holder.running.values()):
        rng.choice([world.finish, world.fail, world.accept])(holder, order)


def act(world: World, rng: random.Random, holder: Holder) -> None:
    """One worker takes its lanes and answers some of what it has."""
    world.take(holder)
    for order in list(holder.running.values()):
        if order.token in holder.running:
            _answer(world, rng, holder, order)


def _answer(world: World, rng: random.Random, holder: Holder, order: wire.Assign) -> None:
    what = rng.random()
    lent = order.token in holder.lent
    if what < 0.38:
        world.finish(holder, order)
    elif what < 0.48:
        world.fail(holder, order, rng.choice([wire.FAILED_ERROR, wire.FAILED_TIMEOUT, wire.FAILED_INVALID]), rng.choice([0, 0, -1, 700]))
    elif what < 0.58:
        world.accept(holder, order)
    elif what < 0.64:
        world.give_back(holder, order, rng.choice([wire.RETURNED_FULL, wire.RETURNED_DRAINING, wire.RETURNED_STALLED]))
    elif what < 0.70 and not lent:
        world.lend(holder, order)
    elif what < 0.76 and lent and holder.room > 0:
        world.resume(holder, order)
    elif what < 0.80:
        world.spawn(holder, order, rng.choice(["one", "soft"]), rng.choice("12"), sticky=rng.random() < 0.5)
    elif what < 0.82:
        world.decide(wire.Refresh(order.run, order.step, order.attempt, order.token, 5_000), holder.sender)


def end_everything(world: World) -> None:
    """Enough workers, and time: every run must end."""
    for holder in list(world.workers.values()):
        world.kill(holder)
    ids = {run.worker for run in world.state.runs.values() if run.worker} | {"w1", "w2"}
    for id in sorted(ids):
        world.join(id, WORKFLOWS, 4)
    for _ in range(60):
        world.run_all()
        world.pass_time(10_000)
        if not world.state.runs:
            return
    waiting = [waiting_for(world.state, step).cause for run in world.state.runs.values() for step in run.steps]
    raise AssertionError(f"{len(world.state.runs)} runs do not end: {waiting[:5]}")
