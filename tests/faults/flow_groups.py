"""Groups under kills of the leader: `max_runs` at every moment, and CANCEL_IN_PROGRESS in a burst."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from pathlib import Path
from typing import Any

from mesh_sdk import Mesh, RunCancelled
from mesh_sdk.refs import RunRef
from mesh_sdk.transport.connection import connect
from tests.faults.fleet import Fleet
from tests.faults.flow_fleet import Flow, Show, most_at_once
from tests.faults.flow_limits import MAX_RUNS
from tests.longlife.backlog import Tally

LIMITED = ("by_path", "ByFunction", "of_step")
"""A key by its path, by a key function, and of a step."""
WORKERS = 3
STEP_MS = (20, 400)
FAILS_PART = 20
"""One of so many runs fails once before it succeeds."""
SEED = 6
BURST = 10


async def max_runs(
    folder: Path, runs: int = 10_000, keys: int = 50, slots: int = 40, every_s: float = 3.0, kills: int | None = None
) -> Show:
    """Runs of many keys while the leader is killed again and again: never more than `max_runs` of a key, and all of them end once.

    Args:
        kills: how many at most; None: until all runs have ended.
    """
    show = Show(f"max_runs: {runs:,} runs over {keys} keys, {WORKERS} workers with {slots} slots each, a leader kill every {every_s:g} s")
    chance = random.Random(SEED)
    with Fleet(folder) as fleet:
        flow = Flow(fleet)
        for number in range(WORKERS):
            flow.worker(f"w{number}", slots)
        bus = await connect([fleet.server.url], name="tally")
        async with Mesh(url=fleet.server.url) as mesh, Tally(bus) as tally:
            began = time.monotonic()
            async with flow.killing(every_s, kills):
                ends = [
                    mesh.run(LIMITED[key % len(LIMITED)], _input(f"k{key}", chance)) for key in (number % keys for number in range(runs))
                ]
                results = await asyncio.gather(*ends, return_exceptions=True)
            took = time.monotonic() - began
        await bus.close()
        _tell_runs(show, flow, tally, results, took)
    return show


def _input(key: str, chance: random.Random) -> dict[str, Any]:
    return {"key": key, "ms": chance.randint(*STEP_MS), "fails": int(chance.randrange(FAILS_PART) == 0)}


def _tell_runs(show: Show, flow: Flow, tally: Tally, results: list[Any], took: float) -> None:
    seen = [each for each in flow.seen() if each.step == "only"]
    failures = Counter(f"{type(each).__name__}: {each}"[:200] for each in results if isinstance(each, BaseException))
    attempts = Counter((each.run, each.attempt) for each in seen if each.what == "begin")
    show.tell(f"{took:.1f} s, {len(flow.kills)} kills, {len(attempts):,} attempts, at most {most_at_once(seen)} at once over all keys")
    show.tell(f"{'limit':<12} {'keys':>5} {'runs':>7} {'max_runs':>9} {'most at once':>13}")
    for name in LIMITED:
        mine = [each for each in seen if each.workflow == name]
        most = {key: most_at_once(each for each in mine if each.note == key) for key in {each.note for each in mine}}
        show.tell(f"{name:<12} {len(most):>5} {len({each.run for each in mine}):>7,} {MAX_RUNS:>9} {max(most.values(), default=0):>13}")
        over = {key: count for key, count in most.items() if count > MAX_RUNS}
        show.claim(not over, f"{name}: never more than {MAX_RUNS} of one key at any moment{f', but {over}' if over else ''}")
        show.claim(max(most.values(), default=0) == MAX_RUNS, f"{name}: the limit was reached")
    show.claim(bool(flow.kills), f"the leader was killed {len(flow.kills)} times")
    show.claim(not failures, f"{len(results):,} results awaited, {sum(failures.values())} errors {dict(failures.most_common(3)) or ''}")
    show.claim(
        (tally.started, tally.ended, tally.wrong) == (len(results), len(results), []),
        f"journal: {tally.started:,} runs started, {tally.ended:,} ended {tally.wrong[:3] or ''}",
    )
    show.claim(max(attempts.values(), default=0) == 1, "no attempt was executed twice")


async def bursts(folder: Path, keys: int = 10, times: int = 5) -> Show:
    """CANCEL_IN_PROGRESS: bursts of starts on several keys at once, a leader killed in the middle of each but the first."""
    show = Show(
        f"CANCEL_IN_PROGRESS: {BURST} starts in a burst on one key; {keys} keys at once, {times} times with a leader kill amid them"
    )
    show.tell(f"{'burst':<28} {'keys':>5} {'starts':>7} {'completed':>10} {'cancelled':>10} {'most at once':>13}")
    with Fleet(folder) as fleet:
        flow = Flow(fleet)
        flow.worker("w0", keys * BURST)
        flow.worker("w1", keys * BURST)
        async with Mesh(url=fleet.server.url) as mesh:
            for time_ in range(times + 1):
                middle = BURST * time_ // (times + 1)
                refs = await _burst(flow, mesh, f"burst{time_}", keys, middle)
                await _tell_burst(show, flow, f"kill after {middle} starts" if middle else "no kill", f"burst{time_}", refs)
    return show


async def _burst(flow: Flow, mesh: Mesh, name: str, keys: int, middle: int) -> dict[str, list[RunRef[Any]]]:
    """Starts of every key, and (unless `middle` is 0) a kill after so many; every step stands at a gate until the others are cancelled."""
    refs: dict[str, list[RunRef[Any]]] = {f"{name}.{key}": [] for key in range(keys)}
    for number in range(BURST):
        if middle and number == middle:
            await flow.kill_leader()
        for key, started in refs.items():
            started.append(await mesh.start("newest", {"key": key, "gate": name}))
    for started in refs.values():
        await asyncio.gather(*[ref.result() for ref in started[:-1]], return_exceptions=True)
    flow.open(name)
    return refs


async def _tell_burst(show: Show, flow: Flow, how: str, name: str, refs: dict[str, list[RunRef[Any]]]) -> None:
    completed = cancelled = 0
    wrong: list[str] = []
    most = 0
    for key, started in refs.items():
        ends = await asyncio.gather(*[ref.result() for ref in started], return_exceptions=True)
        completed += sum(isinstance(end, str) for end in ends)
        cancelled += sum(isinstance(end, RunCancelled) for end in ends)
        most = max(most, most_at_once(each for each in flow.seen() if each.note == key))
        if not isinstance(ends[-1], str) or not all(
            isinstance(end, RunCancelled) and "CANCEL_IN_PROGRESS" in str(end) for end in ends[:-1]
        ):
            wrong.append(f"{key}: {[str(end) for end in ends]}")
    show.tell(f"{how:<28} {len(refs):>5} {len(refs) * BURST:>7} {completed:>10} {cancelled:>10} {most:>13}")
    show.claim(not wrong, f"{name}: of each key the newest alone completed, {BURST - 1} were cancelled for it {wrong[:2] or ''}")
    show.claim(most == 1, f"{name}: never two of a key at once")
