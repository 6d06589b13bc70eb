"""The faults of a chaos run and their schedule, drawn from its seed.

Tracks go on side by side, each with one fault at a time: workers, schedulers and clients, network, servers, the network between the
servers, clocks. A track deals its kinds like a deck of cards, so that each comes up. Rule: a fault ends with what it broke back at work.
"""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any

from tests.chaos.clocks import Clocks
from tests.chaos.fleet import CLIENTS, SCHEDULERS, Fleet, Place
from tests.chaos.history import History
from tests.chaos.network import Mode, Network
from tests.chaos.servers import Servers
from tests.chaos.workload import WORKERS

Fault = Callable[[random.Random], Coroutine[Any, Any, str]]

PAUSE_S = (0.5, 3.5)
"""Between two faults of a track."""
PATIENCE_S = 8.0
STREAMS = ("JOURNAL", "TRIGGERS", "REPORTS", "EVENTS", "LANES")
NETWORK = {
    Mode.CUT: (0.0, 5.0),
    Mode.HOLE: (1.0, 14.0),
    Mode.DEAF: (1.0, 10.0),
    Mode.MUTE: (1.0, 10.0),
    Mode.HALF_OPEN: (2.0, 14.0),
    Mode.DELAY: (3.0, 8.0),
}
"""How long each of them lasts, in seconds."""
BETWEEN_SERVERS = "between the servers"
CALM_S = {BETWEEN_SERVERS: (2.0, 12.0)}
"""Tracks that pause for longer: with a server cut off all the time, the death of another would leave a cluster for moments only."""
PARTED_S = (2.0, 12.0)
PARTED = (Mode.CUT, Mode.HOLE, Mode.DEAF, Mode.MUTE)
JUMPS_S = (-86_400, -3_600, -60, -3, 3, 60, 3_600, 86_400)
JUMPED_S = (1.0, 8.0)


class Faults:
    """Makes faults until it is cancelled.

    Args:
        fleet, network, clocks, servers: what they happen to.
        history: where each is written down, from when to when.
        seed: of the schedule.
        lease_s: how long a worker's presence lives.
        after_all_died: called whenever all servers have been killed at once and are back.
    """

    def __init__(
        self, fleet: Fleet, network: Network, clocks: Clocks, servers: Servers, history: History, seed: int, lease_s: float,
        after_all_died: Callable[[float], Awaitable[None]],
    ) -> None:  # fmt: skip
        self._fleet, self._network, self._clocks, self._servers, self._history = fleet, network, clocks, servers, history
        self._seed = seed
        self._to_part: list[int] = []
        """Servers whose turn it is to be cut off."""
        self._lease_s = lease_s
        self._after_all_died = after_all_died
        self._stopping = asyncio.Event()

    async def run(self, for_s: float) -> None:
        """All tracks, for so long; the faults of that moment are brought to their end."""
        asyncio.get_running_loop().call_later(for_s, self._stopping.set)
        tracks = [asyncio.create_task(self._track(name, faults)) for name, faults in self._tracks().items()]
        await asyncio.wait(tracks, return_when=asyncio.FIRST_EXCEPTION)
        self._stopping.set()  # one that broke: the others end what they have begun
        await asyncio.wait(tracks)
        for track in tracks:
            track.result()

    def _tracks(self) -> dict[str, dict[str, Fault]]:
        servers: dict[str, Fault] = {"all servers killed at once": self._kill_all_servers, "server stopped (SIGTERM)": self._end_server}
        if len(self._servers) > 1:
            servers |= {
                "server killed": self._kill_server, "server paused": self._pause_server, "stream leader killed": self._kill_stream_leader,
            }  # fmt: skip
        if self._servers.small_disk is not None:
            servers["disk full"] = self._fill_disk
        tracks: dict[str, dict[str, Fault]] = {
            "workers": {
                "worker killed": self._kill_worker, "worker stopped (SIGTERM)": self._end_worker, "worker paused": self._pause_worker,
                "worker paused past its lease": self._pause_past_lease,
            },
            "schedulers and clients": {
                "scheduler killed": self._kill_scheduler, "leader killed": self._kill_leader, "leader paused": self._pause_leader,
                "leader stopped (SIGTERM)": self._end_leader, "client killed": self._kill_client,
            },
            "network": {f"network {mode.value}": self._network_fault(mode) for mode in NETWORK},
            "servers": servers,
        }  # fmt: skip
        if len(self._servers) > 1:
            tracks[BETWEEN_SERVERS] = {f"servers partitioned, {mode.value}": self._partition(mode) for mode in PARTED}
        if not self._clocks.why_not:
            whose = {"leader": lambda: [self._leader()], "standby": lambda: [*{*SCHEDULERS} - {self._leader()}]}
            whose |= {"worker": lambda: [*WORKERS], "client": lambda: [*CLIENTS]}
            tracks["clocks"] = {f"clock of a {who} jumps": self._jump(names) for who, names in whose.items()}
        return tracks

    async def _track(self, name: str, faults: dict[str, Fault]) -> None:
        chance = random.Random(f"{self._seed} {name}")
        deck: list[str] = []
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), chance.uniform(*CALM_S.get(name, PAUSE_S)))
            if self._stopping.is_set():
                return
            if not deck:
                deck = chance.sample(list(faults), len(faults))
            kind = deck.pop()
            began = time.monotonic()
            target = await faults[kind](chance)
            self._history.say("fault", kind=kind, target=target, since=began, until=time.monotonic())

    async def _for(self, seconds: float) -> None:
        """Let a fault last, or until faults end."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)

    # ---- processes --------------------------------------------------------------------------------------------------

    async def _kill_worker(self, chance: random.Random) -> str:
        return await self._kill(chance.choice(WORKERS), chance.choice((0.0, 0.5, 4.0)))

    async def _kill_scheduler(self, chance: random.Random) -> str:
        return await self._kill(chance.choice(SCHEDULERS), chance.choice((0.0, 3.0)))

    async def _kill_leader(self, chance: random.Random) -> str:
        return await self._kill(self._leader(), chance.choice((0.0, 3.0)))

    async def _kill_client(self, chance: random.Random) -> str:
        return await self._kill(chance.choice(CLIENTS), 0.0)

    async def _kill(self, name: str, away_s: float) -> str:
        place = self._fleet.places[name]
        async with place.lock:
            await asyncio.to_thread(place.process.kill)
            await self._for(away_s)
            await self._start(place)
        return name

    async def _end_worker(self, chance: random.Random) -> str:
        return await self._end(chance.choice(WORKERS), chance.choice((0.0, 3.0)))

    async def _end_leader(self, chance: random.Random) -> str:
        return await self._end(self._leader(), 0.0)

    async def _end(self, name: str, away_s: float) -> str:
        place = self._fleet.places[name]
        async with place.lock:
            before = time.monotonic()
            code = await place.end()
            self._history.say("ended", name=name, code=code, took_s=time.monotonic() - before, log=str(place.process.log))
            await self._for(away_s)
            await self._start(place)
        return name

    async def _pause_worker(self, chance: random.Random) -> str:
        return await self._pause(chance.choice(WORKERS), chance.uniform(0.3, 4.0))

    async def _pause_past_lease(self, chance: random.Random) -> str:
        return await self._pause(chance.choice(WORKERS), self._lease_s + chance.uniform(1.0, 3.0))

    async def _pause_leader(self, chance: random.Random) -> str:
        return await self._pause(self._leader(), chance.uniform(1.0, 8.0))

    async def _pause(self, name: str, seconds: float) -> str:
        place = self._fleet.places[name]
        async with place.lock:
            place.process.send(signal.SIGSTOP)
            await self._for(seconds)
            place.process.send(signal.SIGCONT)
        return f"{name} for {seconds:.1f} s"

    async def _start(self, place: Place) -> None:
        """Start it again and give it a moment: what else is broken at that time may keep it from being ready for long."""
        began = time.monotonic()
        place.start()
        ready = await place.ready(PATIENCE_S)
        self._history.say("started", name=place.name, ready=ready, took_s=time.monotonic() - began)

    def _leader(self) -> str:
        return self._fleet.leader() or SCHEDULERS[0]

    # ---- network ----------------------------------------------------------------------------------------------------

    def _network_fault(self, mode: Mode) -> Fault:
        async def fault(chance: random.Random) -> str:
            name = chance.choice((self._leader(), *SCHEDULERS, *WORKERS, *CLIENTS))
            everywhere = range(len(self._servers))
            servers = everywhere if chance.random() < 0.6 else [chance.choice(everywhere)]
            seconds = chance.uniform(*NETWORK[mode])
            self._network.set(name, servers, mode)
            await self._for(seconds)
            self._network.set(name, servers, Mode.PASS)
            return f"{name} to {'all servers' if servers is everywhere else f'n{servers[0]}'} for {seconds:.1f} s"

        return fault

    # ---- clocks -----------------------------------------------------------------------------------------------------

    def _jump(self, names: Callable[[], list[str]]) -> Fault:
        async def fault(chance: random.Random) -> str:
            """Away, and back again, which is a jump too; what starts meanwhile starts with the wrong time."""
            name, by, seconds = chance.choice(names()), chance.choice(JUMPS_S), chance.uniform(*JUMPED_S)
            self._clocks.shift(name, by)
            await self._for(seconds)
            self._clocks.shift(name, 0)
            return f"{name} by {by:+d} s for {seconds:.1f} s"

        return fault

    # ---- servers ----------------------------------------------------------------------------------------------------

    async def _kill_server(self, chance: random.Random) -> str:
        return await self._kill_one(chance.randrange(len(self._servers)), chance.choice((0.0, 2.0, 6.0)))

    async def _kill_stream_leader(self, chance: random.Random) -> str:
        stream = f"mesh_default_{chance.choice(STREAMS)}"
        leader = await self._servers.leader(stream)
        index = leader if leader is not None else chance.randrange(len(self._servers))
        return f"{await self._kill_one(index, chance.choice((0.0, 2.0)))}, leader of {stream}"

    async def _kill_one(self, index: int, away_s: float) -> str:
        await asyncio.to_thread(self._servers.kill, index)
        await self._for(away_s)
        await asyncio.to_thread(self._servers.restart, index)
        return f"n{index}"

    async def _end_server(self, chance: random.Random) -> str:
        index = chance.randrange(len(self._servers))
        await asyncio.to_thread(self._servers.restart, index)
        return f"n{index}"

    async def _pause_server(self, chance: random.Random) -> str:
        index, seconds = chance.randrange(len(self._servers)), chance.uniform(1.0, 8.0)
        self._servers.send(index, signal.SIGSTOP)
        await self._for(seconds)
        self._servers.send(index, signal.SIGCONT)
        return f"n{index} for {seconds:.1f} s"

    async def _kill_all_servers(self, chance: random.Random) -> str:
        """The stand-in for a power cut."""
        died = time.monotonic()
        await asyncio.to_thread(self._servers.kill, *range(len(self._servers)))
        await self._for(chance.choice((0.0, 2.0)))
        await asyncio.to_thread(self._servers.start)
        await self._after_all_died(died)
        return "all"

    def _partition(self, mode: Mode) -> Fault:
        async def fault(chance: random.Random) -> str:
            """One server after the other, in an order that is drawn; its clients stay connected to it."""
            if not self._to_part:
                self._to_part = chance.sample(range(len(self._servers)), len(self._servers))
            index, seconds = self._to_part.pop(), chance.uniform(*PARTED_S)
            self._servers.part(index, mode)
            await self._for(seconds)
            self._servers.part(index, Mode.PASS)
            return f"n{index} from the others for {seconds:.1f} s"

        return fault

    async def _fill_disk(self, chance: random.Random) -> str:
        """A stream that met a full disk takes nothing more until its server starts again."""
        index, seconds = len(self._servers) - 1, chance.uniform(1.0, 5.0)
        await asyncio.to_thread(self._servers.fill)
        await self._for(seconds)
        self._servers.free()
        await asyncio.to_thread(self._servers.restart, index)
        return f"n{index} for {seconds:.1f} s"
