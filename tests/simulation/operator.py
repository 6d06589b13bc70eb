"""A simulated operator: has workers pause, go on and drain, whoever of them the leader knows.

Rule: at the end nothing stays paused: that was promised to whoever waits.
"""

from __future__ import annotations

import asyncio
import random

from mesh_sdk import Mesh
from mesh_sdk.errors import MeshError, Unavailable
from tests.simulation.parts import ClientMachine, Reporter


class OperatorMachine(ClientMachine):
    """The operator.

    Args:
        name, rng, reporter: of the machine.
        pace_s: mean time between two words to workers.

    Attributes:
        has_to_end: everything is to go on.
    """

    def __init__(self, name: str, rng: random.Random, reporter: Reporter, pace_s: float) -> None:
        super().__init__(name, rng, reporter)
        self._pace_s = pace_s
        self.has_to_end = False

    async def use(self, mesh: Mesh) -> None:
        """Steer, then have everything go on."""
        while not self.has_to_end:
            await asyncio.sleep(self._pace_s * self.rng.expovariate(1.0))
            try:
                await self._act(mesh)
            except MeshError as error:
                self.reporter.trace(f"{self.name} is refused: {error}")
        await asyncio.sleep(0.5)  # what a life before this one had written may still be on its way
        while await self._resume_all(mesh):
            await asyncio.sleep(0.5)

    async def _act(self, mesh: Mesh) -> None:
        workers = [worker.id for worker in await mesh.workers.list()]
        if not workers or self.has_to_end:
            return
        worker, choice = self.rng.choice(workers), self.rng.random()
        what = "pause" if choice < 0.5 else "resume" if choice < 0.85 else "drain"
        self.reporter.trace(f"{self.name}: {what} {worker}")
        await {"pause": mesh.workers.pause, "resume": mesh.workers.resume, "drain": mesh.workers.drain}[what](worker)

    async def _resume_all(self, mesh: Mesh) -> bool:
        """Whether somebody has to be told once more."""
        try:
            for worker in await mesh.workers.list():
                await mesh.workers.resume(worker.id)
        except Unavailable as error:
            self.reporter.trace(f"{self.name} is refused: {error}")
            return True
        except MeshError as error:  # it has gone since: whoever comes in its place is not paused
            self.reporter.trace(f"{self.name}: {error}")
            return True
        return False
