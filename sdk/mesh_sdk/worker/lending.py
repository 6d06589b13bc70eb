"""Lends a step's slots out while the step awaits children, and gets them back for it ahead of new work.

Without it parents could fill every slot and wait for children that have none. Rule: a step's slots are lent once, however many
children it awaits at the same time, and taken back when the last of those waits is over; a step has one claim at most.
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
        """Steps that want their slots back; each is settled when it has them, or needs none any more."""

    @property
    def claimed(self) -> int:
        """How many slots are wanted back."""
        return sum(attempt.slots for attempt in self._claims) if self._claims else 0

    async def wait(self, attempt: Attempt, future: asyncio.Future[Result]) -> Result:
        """Await a child's end in an async step, with the step's slots lent out meanwhile."""
        if future.done():
            return future.result()
        attempt.awaiting += 1
        self._drop(attempt)
        if attempt.has_slot:
            self._lend(attempt)
        try:
            return await asyncio.shield(future)
        finally:
            attempt.awaiting -= 1
            if _wants_slots(attempt):
                await self._take_back(attempt)

    def grant(self) -> None:
        """Give free slots to the steps that have waited longest to go on, as far as they reach."""
        while self._claims:
            attempt = next(iter(self._claims))
            wanted = _wants_slots(attempt)
            if wanted and attempt.slots > self._slots.free:
                return
            self._claims.pop(attempt).set_result(None)
            if wanted:
                self._take(attempt)

    def release(self, attempt: Attempt) -> None:
        """The attempt goes on without its slots, for good."""
        if attempt.released or attempt.answered:
            return
        attempt.released = True
        self._drop(attempt)
        if attempt.has_slot:
            self._lend(attempt)

    def _lend(self, attempt: Attempt) -> None:
        assign = attempt.assign
        attempt.has_slot = False
        self._reports.put(Lent(assign.run, assign.step, assign.attempt, assign.token))
        self._slots.give(attempt.slots)

    async def _take_back(self, attempt: Attempt) -> None:
        if not self._claims and attempt.slots <= self._slots.free:
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
                    self._drop(attempt)
                    raise  # it cleans up without slots
                cancelled = error
        if cancelled is not None:
            raise cancelled  # a timeout of the step's own: what comes after it needs the slots as well

    def _drop(self, attempt: Attempt) -> None:
        """The step wants nothing back for now: nobody need wait behind it."""
        settled = self._claims.pop(attempt, None)
        if settled is not None:
            settled.set_result(None)
            self._slots.on_free()

    def _take(self, attempt: Attempt) -> None:
        self._slots.take(attempt.slots)
        attempt.has_slot = True
        assign = attempt.assign
        self._reports.put(Resumed(assign.run, assign.step, assign.attempt, assign.token))


def _wants_slots(attempt: Attempt) -> bool:
    """Whether a step goes on, and has no slots to do so."""
    return not (attempt.awaiting or attempt.has_slot or attempt.released or attempt.answered or attempt.stop is not None)
