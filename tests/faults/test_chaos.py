"""Workers and schedulers are killed at random under load: every run ends, nothing is done twice, all states agree."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import time
from contextlib import suppress

import pytest

from mesh.core import records as facts
from mesh.core.image import digest
from mesh.core.state import State
from mesh.scheduler.follower import Follower
from mesh_sdk import Mesh
from mesh_sdk.protocol.subjects import Subjects
from mesh_sdk.transport.connection import Link
from mesh_sdk.transport.errors import TransportError
from tests.faults import journal
from tests.faults.fleet import SCHEDULER, WORKER, Fleet, Process

NAMES = Subjects()
FINISHED_MAX = 10_000
KILL_EVERY_S = 2.0
IN_FLIGHT = 60
TAIL_S = 60.0
SERVER_SHARE = 0.4
LONG = (pytest.mark.chaos, pytest.mark.timeout(300))


class Killer:
    """Kills a random process every two seconds, and starts another in its place."""

    def __init__(self, fleet: Fleet, seed: int, server: bool) -> None:
        self.fleet = fleet
        self.server = server
        self.random = random.Random(seed)
        self.schedulers = [fleet.scheduler() for _ in range(2)]
        self.workers = [fleet.worker() for _ in range(3)]
        self.kills: list[str] = []

    async def run(self, for_s: float) -> None:
        end = time.monotonic() + for_s
        while time.monotonic() < end:
            await asyncio.sleep(KILL_EVERY_S)
            if self.server and self.random.random() < SERVER_SHARE:
                self.kills.append("server")
                await asyncio.to_thread(self._restart_server)
            group, command = self.random.choice(((self.schedulers, SCHEDULER), (self.workers, WORKER)))
            place = self.random.randrange(len(group))
            self.kills.append(f"{command[-1]} {place}")
            await asyncio.to_thread(self._replace, group, place, command)

    def _restart_server(self) -> None:
        self.fleet.server.kill()
        self.fleet.server.restart()

    def _replace(self, group: list[Process], place: int, command: tuple[str, ...]) -> None:
        group[place].kill()
        group[place] = self.fleet.start(command)


@pytest.mark.parametrize(
    ("runs", "ms", "for_s", "server"),
    [
        (500, 60, 9.0, False),
        pytest.param(500, 2, 20.0, False, marks=LONG, id="short steps"),
        pytest.param(2_000, 100, 30.0, False, marks=LONG, id="2000 runs"),
        pytest.param(2_000, 60, 30.0, True, marks=LONG, id="and the server"),
    ],
)
async def test_random_kills(fleet: Fleet, bus: Link, runs: int, ms: int, for_s: float, server: bool) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    killer = await asyncio.to_thread(Killer, fleet, seed, server)
    results: dict[int, object] = {}
    async with Mesh(url=fleet.server.url) as mesh:
        numbers = itertools.count()
        killing = asyncio.create_task(killer.run(for_s))

        async def work() -> None:
            while (n := next(numbers)) < runs or not killing.done():
                results[n] = await mesh.run("Chain", {"n": n, "ms": ms})

        samples: dict[int, str] = {}
        sampling = asyncio.create_task(_sample(bus, samples))
        try:
            async with asyncio.timeout(for_s + TAIL_S):
                await asyncio.gather(*[work() for _ in range(IN_FLIGHT)])
                await killing
        finally:
            sampling.cancel()
            print(f"{len(results)} runs, kills: {', '.join(killer.kills)}")
        assert results == {n: n + 3 for n in range(len(results))}
        for scheduler in killer.schedulers:
            await asyncio.to_thread(scheduler.line, "ready")
        await _digests_agree(bus)
    frames = await journal.frames(bus)
    _check_samples(frames, samples)
    found = [record for _, frame in frames for record in frame.records]
    journal.check_once(found)
    journal.check_executions(fleet.executions())
    finished = [record for record in found if isinstance(record, facts.StepFinished)]
    assert len(finished) == 3 * len(results), "each step is completed once"
    assert sum(isinstance(record, facts.RunFinished) for record in found) == len(results)
    ended = {(run, step, attempt) for run, step, attempt, what, _ in fleet.executions() if what == "end"}
    assert {(record.run, "abc"[record.step], record.attempt) for record in finished} <= ended


async def _sample(bus: Link, samples: dict[int, str]) -> None:
    """The leader's digests while it works."""
    while True:
        with suppress(TransportError):
            answer = json.loads(await bus.request(NAMES.api("digest"), b"{}", 2.0))["ok"]
            samples[answer["sequence"]] = answer["digest"]
        await asyncio.sleep(1.0)


def _check_samples(frames: list[tuple[int, journal.JournalFrame]], samples: dict[int, str]) -> None:
    """A replay of the whole journal has the leaders' digests where they had them."""
    state = State(FINISHED_MAX)
    compared = 0
    for sequence, frame in frames:
        state.now = frame.at
        for record in frame.records:
            if isinstance(record, facts.TermStarted):
                state.term = sequence
            state.apply(record)
        if sequence in samples:
            compared += 1
            assert digest(state) == samples[sequence], f"the leader of frame {sequence} had another state than its journal tells"
    assert compared >= len(samples) - 1 > 0, "only a leader that was killed before its frame stood has a sample that does not count"


async def _digests_agree(bus: Link) -> None:
    """Leader, standby and a cold replay agree at one sequence, once nothing happens any more."""
    async with asyncio.timeout(10):
        while True:
            leader = json.loads(await bus.request(NAMES.api("digest"), b"{}", 2.0))["ok"]
            standbys = [answer for answer in await journal.digests(bus) if not answer["leads"] and answer["sequence"] == leader["sequence"]]
            follower = Follower(bus, NAMES, FINISHED_MAX)
            await follower.start()
            await follower.wait_for(leader["sequence"], 10.0)
            await follower.stop()
            if standbys and follower.sequence == leader["sequence"]:
                break
            await asyncio.sleep(0.1)
    assert [answer["digest"] for answer in standbys] == [leader["digest"]]
    assert digest(follower.state) == leader["digest"]
