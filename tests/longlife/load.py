"""Steady work of every kind: short runs, chains, sticky ones, families, events, retries, cancels; each is awaited and checked."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from typing import Any

from mesh_sdk import Mesh, MeshError, RunCancelled

MIX = {"one": 40, "chain": 12, "soft": 12, "hard": 4, "family": 4, "told": 12, "shaky": 6, "held": 6, "cancel": 4}
IN_FLIGHT_MAX = 400
WITHIN_S = 60.0
"""A run that takes longer is wrong: no fault of the churn delays one so much."""
WRONG_MAX = 20
HARD_WITHIN_S = 400.0
"""A HARD run whose worker has died for good waits for it until its schedule timeout."""


class Load:
    """Starts `rate` runs a second.

    Args:
        rate: on average.
        random: of the mix.
    """

    def __init__(self, rate: float, random: random.Random) -> None:
        self._rate = rate
        self._random = random
        self._tasks: set[asyncio.Task[None]] = set()
        self.counts: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.skipped = 0

    async def run(self, mesh: Mesh) -> None:
        """Start runs until cancelled."""
        loop = asyncio.get_running_loop()
        names, weights = list(MIX), list(MIX.values())
        due = loop.time()
        while True:
            due += 1 / self._rate
            if (left := due - loop.time()) > 0:
                await asyncio.sleep(left)
            if len(self._tasks) >= IN_FLIGHT_MAX:
                self.skipped += 1
                continue
            task = loop.create_task(self._one(mesh, self._random.choices(names, weights)[0], self._random.randrange(1000)))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def settle(self) -> None:
        """Await what was begun, but no HARD run whose worker will never be back."""
        await asyncio.wait(self._tasks or {asyncio.create_task(asyncio.sleep(0))}, timeout=WITHIN_S)
        for task in self._tasks:
            task.cancel()

    async def _one(self, mesh: Mesh, kind: str, n: int) -> None:
        try:
            await self._begin(mesh, kind, n)
            self.counts[kind] += 1
        except (MeshError, TimeoutError) as error:
            self.wrong = [*self.wrong, f"{kind}: {type(error).__name__} {error}"][:WRONG_MAX]
            self.counts["wrong"] += 1

    async def _begin(self, mesh: Mesh, kind: str, n: int) -> None:
        input: dict[str, Any] = {"n": n, "ms": 200, "text": "x" * (n * 2)}
        if kind == "told":
            await mesh.events.publish("longlife:event", input)
        elif kind == "cancel":
            ref = await mesh.start("held", input | {"ms": 5_000})
            await asyncio.sleep(n / 2_000)
            await ref.cancel("enough")
            try:
                await ref.result(timeout=WITHIN_S)
            except RunCancelled:
                return
        elif kind == "hard":
            ref = await mesh.start("hard", input, sticky_worker="home")
            assert await ref.result(timeout=HARD_WITHIN_S) == n
        else:
            result = await (await mesh.start(kind, input)).result(timeout=WITHIN_S)
            assert result == (2 * n if kind == "family" else n), (kind, result)

    def __str__(self) -> str:
        told = ", ".join(f"{name} {count}" for name, count in sorted(self.counts.items()))
        return f"{sum(self.counts.values())} runs ({told}), {self.skipped} skipped{'; ' + '; '.join(self.wrong) if self.wrong else ''}"
