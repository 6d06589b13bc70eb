"""The attempts that one incarnation of the worker holds.

Rule: an attempt stands here from its arrival to its last report.
"""

from __future__ import annotations

import asyncio

from mesh_sdk.protocol.records import Assign
from mesh_sdk.worker.attempt import Attempt


class Held(dict[str, Attempt]):
    """Attempts by token: a dict, since every step passes here."""

    def __init__(self) -> None:
        super().__init__()
        self._idle: asyncio.Future[None] | None = None

    def told(self) -> list[tuple[str, int, int, str]]:
        """What the leader is told of them: run, step, attempt, token."""
        return [(each.assign.run, each.assign.step, each.assign.attempt, each.assign.token) for each in self.values()]

    def has_parent_of(self, assign: Assign) -> bool:
        """Whether a step of the run runs here that started this one's run, and may wait for it."""
        parent = assign.origin.parent_run if assign.origin is not None else ""
        return bool(parent) and any(each.assign.run == parent and each.started and each.stop is None for each in self.values())

    def emptied(self) -> None:
        """Nothing is held now."""
        if self._idle is not None and not self._idle.done():
            self._idle.set_result(None)

    async def wait_empty(self, timeout: float) -> bool:
        """Wait until nothing is held. False when something still is after `timeout` seconds."""
        if not self:
            return True
        self._idle = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(timeout):
                await self._idle
        except TimeoutError:
            return False
        return True
