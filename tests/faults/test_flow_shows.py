"""The shows of `make flow`, short."""

from __future__ import annotations

from pathlib import Path

from tests.faults.flow_fleet import Show
from tests.faults.flow_groups import bursts, max_runs
from tests.faults.flow_order import fairness, urgent
from tests.faults.flow_placement import affinity
from tests.faults.flow_rates import rate


def check(show: Show) -> None:
    assert not show.wrong, str(show)


async def test_never_more_than_max_runs_while_leaders_are_killed(tmp_path: Path) -> None:
    check(await max_runs(tmp_path, runs=300, keys=9, slots=20, every_s=1.5, kills=2))


async def test_the_newest_of_a_burst_alone_completes_though_the_leader_dies_amid_it(tmp_path: Path) -> None:
    check(await bursts(tmp_path, keys=3, times=1))


async def test_no_more_units_pass_than_may_though_the_leader_dies(tmp_path: Path) -> None:
    check(await rate(tmp_path, seconds=4, times=1, least=0))


async def test_a_flood_delays_no_other_key(tmp_path: Path) -> None:
    show, _ = await fairness(tmp_path, flood=150, each=5, ms=2)
    check(show)


async def test_the_urgent_pass_those_who_wait(tmp_path: Path) -> None:
    check(await urgent(tmp_path, low=100, high=10))


async def test_labels_say_where(tmp_path: Path) -> None:
    check(await affinity(tmp_path, runs=40, others=10))
