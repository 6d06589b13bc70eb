"""Lends a step's slot out while the step awaits children, and gets one back for it ahead of new work.

Without it parents could fill every slot and wait for children that have none. Rule: a slot is lent once, however many
children a step awaits at the same time, and taken back when the last of those waits is over; a step has one claim at most.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
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
        self._claims: OrderedDict[Attempt, asyncio.Future[None]] = OrderedDict()
        """Steps that want their slot back; each is settled when it has it, or needs none any more."""

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
            if _wants_slot(attempt):
                await self._take_back(attempt)

    def grant(self) -> bool:
        """Give a free slot to the step that has waited longest to go on. False when none waits."""
        while self._claims:
            attempt, settled = self._claims.popitem(last=False)
            settled.set_result(None)
            if _wants_slot(attempt):
                self._take(attempt)
                return True
        return False

    def _lend(self, attempt: Attempt) -> None:
        assign = attempt.assign
        attempt.has_slot = False
        self._reports.put(Lent(assign.run, assign.step, assign.attempt, assign.token))
        self._slots.give()

    async def _take_back(self, attempt: Attempt) -> None:
        if self._slots.free > 0:
            self._take(attempt)
            return
        settled = self._claims.get(attempt)
        if settled is None:
            settled = self._claims[attempt] = asyncio.get_running_loop().create_future()
        cancelled: asyncio.CancelledError | None = None
        while not settled.done():
            try:
                await asyncio.shield(settled)
            except asyncio.CancelledError as error:
                if attempt.stop is not None:
                    raise  # it cleans up without a slot
                cancelled = error
        if cancelled is not None:
            raise cancelled  # a timeout of the step's own: what comes after it needs the slot as well

    def _take(self, attempt: Attempt) -> None:
        self._slots.take()
        attempt.has_slot = True
        assign = attempt.assign
        self._reports.put(Resumed(assign.run, assign.step, assign.attempt, assign.token))


def _wants_slot(attempt: Attempt) -> bool:
    """Whether a step goes on, and has no slot to do so."""
    return not (attempt.awaiting or attempt.has_slot or attempt.released or attempt.answered or attempt.stop is not None)
