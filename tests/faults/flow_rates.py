"""A rate through the death of a leader: how many units pass, by the journal's times of the decisions and by the workers' own."""

from __future__ import annotations

import asyncio
import itertools
from bisect import bisect_left
from pathlib import Path

from mesh.core import records as facts
from mesh_sdk import Mesh
from mesh_sdk.transport.connection import connect
from tests.faults import journal
from tests.faults.fleet import Fleet
from tests.faults.flow_fleet import Flow, Show
from tests.faults.flow_limits import RATE

SECONDS = 10
SURPLUS_S = 2
"""What waits beyond those that pass in the measured time, so that the rate alone decides."""
LEAST, MOST, MOST_IN_A_SECOND = 0.99, 1.11, 1.3
"""Times the limit."""


async def rate(folder: Path, seconds: int = SECONDS, times: int = 3, least: float = LEAST) -> Show:
    """A backlog of steps under one rate; the leader is killed when a third of the time has passed.

    Args:
        least: times the limit; on a machine that has much else to do, a leader may be replaced too late for it.
    """
    show = Show(f"rate: {RATE}/s, a backlog, {seconds} s from the first unit, the leader killed after {seconds / 3:.1f} s")
    show.tell(f"{'time':>4} {'measured by':<22} {'units passed':>13} {'most in 1 s':>12} {'longest gap':>12}")
    for number in range(times):
        own = folder / str(number)
        own.mkdir()
        await _once(show, own, number + 1, seconds, least)
    return show


async def _once(show: Show, folder: Path, number: int, seconds: int, least: float) -> None:
    with Fleet(folder) as fleet:
        flow = Flow(fleet)
        for worker in ("w0", "w1"):
            flow.worker(worker, RATE)
        bus = await connect([fleet.server.url], name="test")
        count = (seconds + SURPLUS_S) * RATE
        async with Mesh(url=fleet.server.url) as mesh:
            ends = [asyncio.create_task(mesh.run("rated", {})) for _ in range(count)]
            await flow.until("the first unit", lambda: flow.seen(what="begin"))
            await asyncio.sleep(seconds / 3)
            await flow.kill_leader()
            await asyncio.gather(*ends)
        decided = sorted(
            frame.at / 1000 for _, frame in await journal.frames(bus) for fact in frame.records if type(fact) is facts.StepReleased
        )
        await bus.close()
        begun = [seen.at for seen in flow.seen(what="begin")]
    show.claim(len(begun) == count, f"{count} units, each once")
    passed, most = _tell(show, number, "journal (decisions)", decided, seconds)
    _tell(show, number, "workers (begins)", begun, seconds)
    fewest, at_most = least * RATE * seconds, MOST * RATE * seconds
    show.claim(fewest <= passed <= at_most, f"{passed:,} units decided, {fewest:,.0f} to {at_most:,.0f}")
    show.claim(most <= MOST_IN_A_SECOND * RATE, f"{most} at most in any second, {MOST_IN_A_SECOND * RATE:,.0f} may")


def _tell(show: Show, number: int, by: str, times: list[float], seconds: int) -> tuple[int, int]:
    """A row: units in the time, and the most in any second."""
    passed = bisect_left(times, times[0] + seconds)
    most = max(bisect_left(times, at + 1) - place for place, at in enumerate(times))
    gap = max(later - at for at, later in itertools.pairwise(times))
    show.tell(f"{number:>4} {by:<22} {passed:>13,} {most:>12} {gap:>10.2f} s")
    return passed, most
