"""Random lives: whatever happens, invariants hold, followers equal the leader, and everything ends once."""

from __future__ import annotations

import pytest

from mesh_sdk.protocol import records as wire
from tests.core.lives import end_everything, live
from tests.core.world import World


@pytest.mark.parametrize("seed", range(20))
def test_followers_of_any_life_equal_its_leader(seed: int) -> None:
    world = World(seed, finished_max=50)
    live(world, seed, 300)
    world.check_followers()
    world.check_once()
    assert len(world.state.finished) <= 50


@pytest.mark.parametrize("seed", range(20))
def test_a_loaded_image_decides_the_same_from_then_on(seed: int) -> None:
    world = World(seed, finished_max=50)
    live(world, seed, 100 + 3 * seed)
    world.add_twin()
    live(world, seed + 1000, 60)
    world.add_twin()
    live(world, seed + 2000, 60)


@pytest.mark.parametrize("seed", range(20))
def test_everything_ends_once_there_are_workers(seed: int) -> None:
    world = World(seed, finished_max=10_000)
    started = live(world, seed, 200)
    end_everything(world)
    _check_ends(world, started)


@pytest.mark.parametrize("seed", range(30))
def test_nothing_is_lost_or_doubled_when_leaders_die(seed: int) -> None:
    world = World(seed, finished_max=10_000)
    started = live(world, seed, 200, deaths=0.15)
    assert world.takeovers
    end_everything(world)
    world.check_followers()
    _check_ends(world, started)


def _check_ends(world: World, started: list[str]) -> None:
    world.check_once()
    told = [notice.run for _, notice in world.notices if isinstance(notice, wire.Done)]
    for run in started:
        id = world.state.repeats.get(run, run)
        ended = world.state.finished.get(id)
        assert ended is not None, f"{run} was started, and nobody knows it"
        assert not ended.client or world.takeovers or id in told
