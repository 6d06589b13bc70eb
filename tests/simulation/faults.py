"""What goes wrong: a schedule drawn from the seed while the mesh works.

Rule: a fault is something that machines, networks and operators do; nothing here touches the mesh's own state.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from tests.simulation.limits import LABELS
from tests.simulation.parts import Machine, SchedulerMachine
from tests.simulation.process import OUTSIDE, Process
from tests.simulation.stream import Away

if TYPE_CHECKING:
    from tests.simulation.world import World

MachineKind = TypeVar("MachineKind", bound=Machine)


class Faults:
    """Causes the faults of one world."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._rng = world._rng("faults")
        self._network = world.network
        self._server = world.server
        self._causes: dict[str, Callable[[], None]] = {
            "kill scheduler": lambda: self._kill(world.schedulers),
            "kill leader": lambda: self._kill(self._leaders()),
            "kill worker": lambda: self._kill(world.workers),
            "kill user": lambda: self._kill(world.users),
            "kill helper": self._kill_helper,
            "freeze leader": lambda: self._freeze(self._leaders()),
            "freeze scheduler": lambda: self._freeze(world.schedulers),
            "freeze worker": lambda: self._freeze(world.workers),
            "freeze user": lambda: self._freeze(world.users),
            "block worker": self._block_worker,
            "stop worker": lambda: self._stop(world.workers),
            "stop leader": lambda: self._stop(self._leaders()),
            "cut": self._cut,
            "slow": self._slow,
            "restart server": self._restart_server,
            "stall": self._stall,
            "steal lease": self._steal_lease,
            "drop lanes": self._drop_lanes,
            "drop consumer": self._drop_consumer,
            "lanes away": self._lanes_away,
            "relabel worker": self._relabel_worker,
        }
        self._kind = ""
        """Of the fault that is being caused."""

    async def cause(self) -> None:
        """Cause one after the other, for ever."""
        while True:
            await asyncio.sleep(self._world.plan.every_s * self._rng.expovariate(1.0))
            kind = self._kind = self._rng.choice(self._world.plan.kinds)
            self._world.trace(f"fault: {kind}")
            self._causes[kind]()

    def _strikes(self, kind: str = "") -> None:
        """Something is really hit: what is drawn may find nothing that it could do."""
        self._server.struck[kind or self._kind] += 1

    def _pick(self, machines: Sequence[MachineKind]) -> MachineKind | None:
        running = [machine for machine in machines if machine.up]
        return self._rng.choice(running) if running else None

    def _leaders(self) -> list[SchedulerMachine]:
        return [machine for machine in self._world.schedulers if machine.up and machine.term]

    def _later(self, seconds: float, call: Callable[[], None]) -> None:
        asyncio.get_running_loop().call_later(seconds, call, context=OUTSIDE.context)

    # ---- processes

    def _kill(self, machines: Sequence[Machine]) -> None:
        """In the middle of what it does."""
        machine = self._pick(machines)
        if machine is not None and machine.process is not None:
            machine.process.after(self._rng.choice([1, 5, 50, 500]), partial(self._end, machine, self._kind))

    def _end(self, machine: Machine, kind: str) -> None:
        self._strikes(kind)
        machine.kill()

    def _kill_helper(self) -> None:
        """The next one that makes a snapshot for a leader."""
        self._world.helpers.doom(self._rng.choice([5, 50, 200]), partial(self._strikes, self._kind))

    def _freeze(self, machines: Sequence[Machine]) -> None:
        machine = self._pick(machines)
        if machine is not None and machine.process is not None:
            process = machine.process
            seconds = self._rng.choice([0.2, 0.7, 3.0, 9.0]) * self._rng.random()
            freeze = partial(self._stand_still, [process, *process.threads], seconds, self._kind)
            process.after(self._rng.choice([1, 5, 50]), freeze)

    def _block_worker(self) -> None:
        """Its event loop, not its heartbeats."""
        machine = self._pick(self._world.workers)
        if machine is not None and machine.process is not None:
            process, seconds = machine.process, self._rng.choice([0.3, 1.5, 7.0]) * self._rng.random()
            process.after(self._rng.choice([1, 5, 50]), partial(self._stand_still, [process], seconds, self._kind))

    def _stand_still(self, processes: list[Process], seconds: float, kind: str) -> None:
        self._strikes(kind)
        self._world.trace(f"{processes[0].name} stands still for {seconds:.2f} s")
        for process in processes:
            process.freeze()
        self._later(seconds, partial(self._wake, processes))

    def _wake(self, processes: list[Process]) -> None:
        for machine in self._leaders():
            if machine.process is processes[0] and not machine.process.dead and machine.term < self._world.auditor.state.term:
                self._strikes("leader wakes late")
        for process in processes:
            process.thaw()

    def _stop(self, machines: Sequence[Machine]) -> None:
        machine = self._pick(machines)
        if machine is not None and machine.process is not None:
            self._strikes()
            self._world.trace(f"{machine.process.name} is told to stop")
            machine.process.context.copy().run(machine.stop)

    def _relabel_worker(self) -> None:
        """Whoever runs it has it say something else of itself."""
        machine = self._pick(self._world.workers)
        if machine is not None:
            self._strikes()
            machine.relabel(self._rng.choice(LABELS))

    # ---- connections

    def _cut(self) -> None:
        if self._server.connections:
            self._strikes()
            connection = self._rng.choice(self._server.connections)
            self._world.trace(f"a connection of {connection.process.name} is cut")
            connection.cut()

    def _slow(self) -> None:
        if self._server.connections:
            self._strikes()
            connection = self._rng.choice(self._server.connections)
            seconds = self._rng.choice([0.05, 0.5, 3.0]) * self._rng.random()
            self._world.trace(f"a connection of {connection.process.name} stands for {seconds:.2f} s")
            connection.slow(seconds)

    # ---- the server

    def _restart_server(self) -> None:
        if self._server.up:
            self._strikes("restart lone server" if self._server.lone else "restart cluster")
            self._server.stop()
            self._later(self._rng.choice([0.05, 0.5, 3.0]) * self._rng.random(), self._start_server)

    def _start_server(self) -> None:
        if not self._server.up:
            self._server.start()

    def _stall(self) -> None:
        """JetStream stands still (a stream changes its leader): what was sent lands later."""
        self._strikes()
        self._server.stalled_until = self._network.loop.time() + self._rng.choice([0.1, 1.0, 4.0]) * self._rng.random()

    def _steal_lease(self) -> None:
        """The lease expires, or names somebody else."""
        stream = self._server.streams.get(f"KV_{self._world.subjects.leader_bucket}")
        if stream is None or not self._server.up:
            return
        self._strikes()
        if self._rng.random() < 0.5:
            stream.purge("", 0)
        else:
            subject = f"$KV.{self._world.subjects.leader_bucket}.0"
            self._server._keep(stream, subject, b"NATS/1.0\r\nNats-TTL: 3000ms\r\n\r\n", b"somebody")

    def _drop_lanes(self) -> None:
        """An operator deletes the lanes."""
        if self._server.up and self._world.subjects.lanes_stream in self._server.streams:
            self._strikes()
            self._server.api._delete(self._world.subjects.lanes_stream, {})

    def _drop_consumer(self) -> None:
        """An operator deletes the consumer of a pool."""
        stream = self._server.streams.get(self._world.subjects.lanes_stream)
        if self._server.up and stream is not None and stream.consumers:
            self._strikes()
            self._server.api._delete_consumer(f"{stream.name}.{self._rng.choice(list(stream.consumers))}", {})

    def _lanes_away(self) -> None:
        """The server of a cluster that has the lanes is restarted, or stands still."""
        stream = self._server.streams.get(self._world.subjects.lanes_stream)
        if self._server.lone or not self._server.up or stream is None or stream.away:
            return
        how = self._rng.choice(tuple(Away))
        self._strikes(f"lanes' server {how.name.lower()}")
        self._server.leave(stream, how)
        self._later(self._rng.choice([0.2, 3.0, 9.0]) * self._rng.random(), partial(self._server.come_back, stream))
