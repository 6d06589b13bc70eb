"""Lends a step's slot out while the step awaits children, and gets one back for it ahead of new work.

Without it parents could fill every slot and wait for children that have none. Rule: a slot is lent once, however many
children a step awaits at the same time, and taken back when the last of those waits is over.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TypeVar

from mesh_sdk.protocol.records import Lent, Resumed
from mesh_sdk.worker.attempt import Attempt
from mesh_sdk.worker.reports import Reports
from mesh_sdk.worker.slots import Slots

Result = TypeVar("Result")


class Lending:
    """The slots of one incarnation that are lent out.

    Args:
        slots: the worker's.
        reports: of the incarnation.
    """

    def __init__(self, slots: Slots, reports: Reports) -> None:
        self._slots = slots
        self._reports = reports
        self._claims: deque[asyncio.Future[None]] = deque()

    async def wait(self, attempt: Attempt, future: asyncio.Future[Result]) -> Result:
        """Await a child's end in an async step, with the step's slot lent out meanwhile."""
        if future.done():
            return future.result()
        attempt.awaiting += 1
        if attempt.has_slot:
            self._lend(attempt)
        try:
            return await asyncio.shield(future)
        finally:
            attempt.awaiting -= 1
            if not attempt.awaiting and not (attempt.has_slot or attempt.released or attempt.stop):
                await self._take_back(attempt)

    def grant(self) -> bool:
        """Give a free slot to the step that has waited longest to go on. False when none waits."""
        while self._claims:
            claim = self._claims.popleft()
            if not claim.done():
                self._slots.take()
                claim.set_result(None)
                return True
        return False

    def _lend(self, attempt: Attempt) -> None:
        assign = attempt.assign
        attempt.has_slot = False
        self._reports.put(Lent(assign.run, assign.step, assign.attempt, assign.token))
        self._slots.give()

    async def _take_back(self, attempt: Attempt) -> None:
        if self._slots.free > 0:
            self._slots.take()
        else:
            claim: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._claims.append(claim)
            try:
                await claim
            except asyncio.CancelledError:
                if claim.done() and not claim.cancelled():
                    self._slots.give()
                raise
        attempt.has_slot = True
        if not attempt.answered:
            assign = attempt.assign
            self._reports.put(Resumed(assign.run, assign.step, assign.attempt, assign.token))
