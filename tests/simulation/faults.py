"""What goes wrong: a schedule drawn from the seed while the mesh works.

Rule: a fault is something that machines, networks and operators do; nothing here touches the mesh's own state.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from tests.simulation.parts import Machine
from tests.simulation.process import OUTSIDE, Process

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
            "freeze leader": lambda: self._freeze(self._leaders()),
            "freeze scheduler": lambda: self._freeze(world.schedulers),
            "freeze worker": lambda: self._freeze(world.workers),
            "block worker": self._block_worker,
            "stop worker": lambda: self._stop(world.workers),
            "stop leader": lambda: self._stop(self._leaders()),
            "cut": self._cut,
            "slow": self._slow,
            "restart server": self._restart_server,
            "stall": self._stall,
            "steal lease": self._steal_lease,
            "drop lanes": self._drop_lanes,
        }

    async def cause(self) -> None:
        """Cause one after the other, for ever."""
        while True:
            await asyncio.sleep(self._world.plan.every_s * self._rng.expovariate(1.0))
            kind = self._rng.choice(self._world.plan.kinds)
            self._world.trace(f"fault: {kind}")
            self._causes[kind]()

    def _pick(self, machines: Sequence[MachineKind]) -> MachineKind | None:
        running = [machine for machine in machines if machine.up]
        return self._rng.choice(running) if running else None

    def _leaders(self) -> list[Machine]:
        leaders = [machine for machine in self._world.schedulers if machine.up and getattr(machine, "engine", None)]
        return [machine for machine in leaders if machine.engine._term is not None]

    def _later(self, seconds: float, call: Callable[[], None]) -> None:
        asyncio.get_running_loop().call_later(seconds, call, context=OUTSIDE.context)

    # ---- processes

    def _kill(self, machines: Sequence[Machine]) -> None:
        machine = self._pick(machines)
        if machine is not None and machine.process is not None:
            machine.process.after(self._rng.choice([1, 5, 50, 500]), machine.kill)

    def _freeze(self, machines: Sequence[Machine]) -> None:
        machine = self._pick(machines)
        if machine is not None and machine.process is not None:
            process = machine.process
            seconds = self._rng.choice([0.2, 0.7, 3.0, 9.0]) * self._rng.random()
            process.after(self._rng.choice([1, 5, 50]), lambda: self._stand_still([process, *process.threads], seconds))

    def _block_worker(self) -> None:
        """Its event loop, not its heartbeats."""
        machine = self._pick(self._world.workers)
        if machine is not None and machine.process is not None:
            process, seconds = machine.process, self._rng.choice([0.3, 1.5, 7.0]) * self._rng.random()
            process.after(self._rng.choice([1, 5, 50]), lambda: self._stand_still([process], seconds))

    def _stand_still(self, processes: list[Process], seconds: float) -> None:
        self._world.trace(f"{processes[0].name} stands still for {seconds:.2f} s")
        for process in processes:
            process.freeze()
            self._later(seconds, process.thaw)

    def _stop(self, machines: Sequence[Machine]) -> None:
        machine = self._pick(machines)
        if machine is not None and machine.process is not None:
            self._world.trace(f"{machine.process.name} is told to stop")
            machine.process.context.copy().run(machine.stop)

    # ---- connections

    def _cut(self) -> None:
        if self._server.connections:
            connection = self._rng.choice(self._server.connections)
            self._world.trace(f"a connection of {connection.process.name} is cut")
            connection.cut()

    def _slow(self) -> None:
        if self._server.connections:
            connection = self._rng.choice(self._server.connections)
            seconds = self._rng.choice([0.05, 0.5, 3.0]) * self._rng.random()
            self._world.trace(f"a connection of {connection.process.name} stands for {seconds:.2f} s")
            connection.slow(seconds)

    # ---- the server

    def _restart_server(self) -> None:
        if self._server.up:
            self._server.stop()
            self._later(self._rng.choice([0.05, 0.5, 3.0]) * self._rng.random(), self._start_server)

    def _start_server(self) -> None:
        if not self._server.up:
            self._server.start()

    def _stall(self) -> None:
        """JetStream stands still (a stream changes its leader): what was sent lands later."""
        self._server.stalled_until = self._network.loop.time() + self._rng.choice([0.1, 1.0, 4.0]) * self._rng.random()

    def _steal_lease(self) -> None:
        """The lease expires, or names somebody else."""
        stream = self._server.streams.get(f"KV_{self._world.subjects.leader_bucket}")
        if stream is None or not self._server.up:
            return
        if self._rng.random() < 0.5:
            stream.purge("", 0)
        else:
            subject = f"$KV.{self._world.subjects.leader_bucket}.0"
            self._server._keep(stream, subject, b"NATS/1.0\r\nNats-TTL: 3000ms\r\n\r\n", b"somebody")

    def _drop_lanes(self) -> None:
        """An operator deletes the lanes."""
        if self._server.up and self._world.subjects.lanes_stream in self._server.streams:
            self._server.api._delete(self._world.subjects.lanes_stream, {})
