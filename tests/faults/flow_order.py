"""Who is served first: keys in turn beside a flood of one, the urgent before those who wait, and those after a while all the same."""

from __future__ import annotations

import asyncio
import statistics
import time
from pathlib import Path
from typing import Any, NamedTuple

from mesh.core import records as facts
from mesh.core.line import AGED_MS
from mesh_sdk import Mesh
from mesh_sdk.refs import RunRef
from mesh_sdk.transport.connection import connect
from tests.faults import journal
from tests.faults.fleet import Fleet
from tests.faults.flow_fleet import Flow, Show
from tests.faults.sticky_fleet import until_true

SLOTS = 4
RATIO_MOST = 1.5
"""Times the mean wait of an ideal round robin."""
FLOOD, OTHERS = "A", "BCDEF"
GRACE_S = 1.0
KNOWN_S = 60.0


class Served(NamedTuple):
    """How a flood of one key and the runs of others were served.

    Attributes:
        begun: of every key, when its runs began, in seconds since there were free slots.
        ideal: when those of `OTHERS` would have begun at that pace, had keys taken turns from the first on.
    """

    begun: dict[str, list[float]]
    ideal: list[float]

    @property
    def others(self) -> list[float]:
        return sorted(at for key in OTHERS for at in self.begun[key])

    @property
    def ratio(self) -> float:
        return statistics.fmean(self.others) / statistics.fmean(self.ideal)


async def serve(folder: Path, workflow: str, flood: int, each: int, ms: int) -> Served:
    """Have a worker with a few slots serve the flood and the others, all of which wait when its slots get free."""
    with Fleet(folder) as fleet:
        flow = Flow(fleet)
        flow.worker("w0", SLOTS)
        async with Mesh(url=fleet.server.url) as mesh:
            await _fill(flow, mesh, "go")
            keys = FLOOD * flood + OTHERS * each
            refs = [mesh.start_nowait(workflow, {"key": key, "ms": ms}) for key in keys]
            for ref in refs:
                await ref.accepted()
            await _waits(mesh, refs[-1])
            began = time.monotonic()
            flow.open("go")
            await asyncio.gather(*[ref.result() for ref in refs])
        begun: dict[str, list[float]] = {key: [] for key in FLOOD + OTHERS}
        for seen in flow.seen(what="begin"):
            if seen.workflow == workflow and seen.note in begun:
                begun[seen.note].append(seen.at - began)
    at = sorted(moment for moments in begun.values() for moment in moments)
    assert len(at) == len(keys), "each began once"
    return Served(begun, [at[round_ * len(begun) + place] for round_ in range(each) for place in range(1, len(begun))])


async def _fill(flow: Flow, mesh: Mesh, gate: str) -> list[RunRef[Any]]:
    """Fill the worker's slots until the gate is opened."""
    refs = [await mesh.start("in_order", {"gate": gate}) for _ in range(SLOTS)]
    for ref in refs:
        await flow.begins(ref.run_id)
    return refs


async def _waits(mesh: Mesh, ref: RunRef[Any]) -> None:
    """Until the leader has read this start, and thereby those before it, and says that it waits for a slot."""

    async def ask() -> bool:
        info = await mesh.runs.get(ref.run_id)
        return info.wait is not None and info.wait.kind == "slots"

    await until_true(f"{ref.run_id} waits for a slot", ask, KNOWN_S)


async def fairness(folder: Path, flood: int = 5_000, each: int = 20, ms: int = 10) -> tuple[Show, dict[str, Served]]:
    """The flood under a limit by key, and the same without one: in the order of the starts, which must fail."""
    show = Show(
        f"turns: {flood:,} of key {FLOOD} wait, {each} each of {OTHERS[0]}..{OTHERS[-1]}; {SLOTS} slots, max_runs above that, {ms} ms each"
    )
    found: dict[str, Served] = {}
    for name, workflow in (("turns", "in_turn"), ("FIFO", "in_order")):
        own = folder / name
        own.mkdir()
        found[name] = await serve(own, workflow, flood, each, ms)
    ideal = statistics.fmean(found["turns"].ideal)
    show.tell(f"{'key':<10} {'runs':>6} {'mean wait: turns':>17} {'FIFO':>10}    (B..F, ideal round robin: {ideal:.3f} s)")
    for key in FLOOD + OTHERS:
        means = [statistics.fmean(served.begun[key]) for served in found.values()]
        show.tell(f"{key:<10} {len(found['turns'].begun[key]):>6,} {means[0]:>15.3f} s {means[1]:>8.3f} s")
    for name, served in found.items():
        show.tell(f"{name:<10} B..F wait {statistics.fmean(served.others):.3f} s, {served.ratio:.2f} times the ideal at that pace")
    show.claim(found["turns"].ratio <= RATIO_MOST, f"turns: within {RATIO_MOST:g} times")
    show.claim(found["FIFO"].ratio > RATIO_MOST, f"FIFO: not within {RATIO_MOST:g} times: the measure tells them apart")
    return show, found


async def urgent(folder: Path, low: int = 400, high: int = 20) -> Show:
    """High priority: before all who wait, whether those stand still or are being served."""
    show = Show(f"priority: {SLOTS} slots, {low} of priority 1 wait, {high} of priority 9 come")
    with Fleet(folder) as fleet:
        flow = Flow(fleet)
        flow.worker("w0", SLOTS)
        bus = await connect([fleet.server.url], name="test")
        async with Mesh(url=fleet.server.url) as mesh:
            full = await _fill(flow, mesh, "go")
            lows = [await mesh.start("in_order", {"key": "low", "ms": 5}) for _ in range(low)]
            highs = [await mesh.start("in_order", {"key": "high", "ms": 5}, priority=9) for _ in range(high)]
            for ref in (lows[-1], highs[-1]):
                await _waits(mesh, ref)
            flow.open("go")
            await asyncio.gather(*[ref.result() for ref in (*full, *highs)])
            while len(highs) < 2 * high:
                highs.append(await mesh.start("in_order", {"key": "high", "ms": 5}, priority=9))
                await highs[-1].result()
            still = sum(ref.run_id not in {seen.run for seen in flow.seen(what="begin")} for ref in lows)
            await asyncio.gather(*[ref.result() for ref in lows])
        order = [seen.note for seen in flow.seen(what="begin") if seen.note]
        passed = _passed_over(await journal.records(bus), {ref.run_id for ref in lows}, {ref.run_id for ref in highs})
        await bus.close()
    before = order[: order.index("low")].count("high") if "low" in order else 0
    show.claim(before >= high, f"of {high} that came while every slot was taken, {before} began before the first of the others")
    show.tell(f"{still} of priority 1 still waited when the last of {high} more, one after the other, had been served")
    show.claim(not any(passed), f"given out to priority 1 between a start of priority 9 and its step: {sum(passed)} of {low}")
    return show


def _passed_over(records: list[facts.Fact], low: set[str], high: set[str]) -> list[int]:
    """Of each run of high priority, how many of low priority were given out after it had started and before it was."""
    waits: dict[str, int] = {}
    found = []
    for record in records:
        if isinstance(record, facts.RunStarted) and record.run in high:
            waits[record.run] = 0
        elif isinstance(record, facts.StepReleased) and record.run in low:
            waits = {run: count + 1 for run, count in waits.items()}
        elif isinstance(record, facts.StepReleased) and record.run in waits:
            found.append(waits.pop(record.run))
    return found


async def ageing(folder: Path, priorities: tuple[int, ...] = (8, 5, 1), loops: int = 40, ms: int = 50) -> Show:
    """A steady flood of priority 9, more than the slots can serve at once: each level that a step is behind costs it ten seconds."""
    level_s = AGED_MS / 1000
    show = Show(f"ageing: {SLOTS} slots, {loops} callers start one of priority 9 after the other, {ms} ms each; {level_s:g} s a level")
    with Fleet(folder) as fleet:
        flow = Flow(fleet)
        flow.worker("w0", SLOTS)
        async with Mesh(url=fleet.server.url) as mesh:
            waits: list[float] = []

            async def flood() -> None:
                while True:
                    began = time.monotonic()
                    await mesh.run("in_order", {"key": "high", "ms": ms}, priority=9)
                    waits.append(time.monotonic() - began - ms / 1000)

            callers = [asyncio.create_task(flood()) for _ in range(loops)]
            await flow.until("the flood", lambda: len(waits) > 2 * loops)
            show.tell(f"{'priority':>8} {'waited':>9} {'bound':>7} {'served before it':>17}")
            lows = {priority: (time.monotonic(), len(waits), await _low(mesh, priority)) for priority in priorities}
            for priority, (began, before, ref) in lows.items():
                await asyncio.wait_for(ref.result(), 2 * level_s * (9 - priority) + GRACE_S)
                waited = (await asyncio.to_thread(flow.begun, ref.run_id))[0].at - began  # the flood goes on meanwhile
                bound = level_s * (9 - priority)
                show.tell(f"{priority:>8} {waited:>7.2f} s {bound:>5.0f} s {len(waits) - before:>17,}")
                show.claim(
                    0.9 * bound < waited <= bound + max(waits) + GRACE_S, f"{bound:g} s beyond its turn ({max(waits):.2f} s) at most"
                )
            for caller in callers:
                caller.cancel()
            await asyncio.wait(callers)
        show.claim(all(caller.cancelled() for caller in callers), "the flood did not end")
    return show


async def _low(mesh: Mesh, priority: int) -> RunRef[Any]:
    return await mesh.start("in_order", {"key": "low", "ms": 1}, priority=priority)
