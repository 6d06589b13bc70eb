"""Sync steps that wait for children: each keeps its slots and its thread. A wait that could never end is refused.

Rule: a wait is refused only when it surely can't end: the slots that are not held by sync steps which wait are too few for any
of the children, nothing has changed for STUCK_AFTER_S, a leader is there to ask, and it knows no other worker for those children.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from mesh_sdk.errors import MeshError, SpawnError, StepCancelled
from mesh_sdk.worker.attempt import Attempt, told_to_stop
from mesh_sdk.worker.slots import Slots

log = logging.getLogger(__name__)

STUCK_AFTER_S = 5.0

Result = TypeVar("Result")


class Parked:
    """One sync step that waits for one child."""

    __slots__ = ("attempt", "refused", "task", "tied", "workflow")

    def __init__(self, attempt: Attempt, workflow: str, tied: bool, task: asyncio.Task[Any]) -> None:
        self.attempt = attempt
        self.workflow = workflow
        self.tied = tied
        self.task = task
        self.refused = ""
        """Why."""


class Parking:
    """The waits of one incarnation's sync steps.

    Args:
        slots: the worker's.
        only_here: whether this worker is the only one that could run a workflow; asks the leader.
        size: how many slots the largest step of a workflow takes, 1 when that is not known here.
    """

    def __init__(self, slots: Slots, only_here: Callable[[str], Awaitable[bool]], size: Callable[[str], int]) -> None:
        self._slots = slots
        self._only_here = only_here
        self._size = size
        self._parked: list[Parked] = []
        self._timer: asyncio.TimerHandle | None = None
        self._check: asyncio.Task[None] | None = None

    async def wait(self, attempt: Attempt, workflow: str, tied: bool, work: Coroutine[Any, Any, Result]) -> Result:
        """Wait on behalf of a sync step.

        Args:
            attempt: of the step.
            workflow: the child's.
            tied: the child can run on this worker only.
            work: the wait itself.

        Raises:
            SpawnError: it could never end.
            StepCancelled: the step was told to stop meanwhile, or before.
        """
        if attempt.stop is not None:  # nobody would wake it any more
            work.close()
            raise StepCancelled(told_to_stop(attempt))
        task: asyncio.Task[Result] = asyncio.ensure_future(work)
        parked = Parked(attempt, workflow, tied, task)
        self._parked.append(parked)
        if attempt.waiters is None:
            attempt.waiters = set()
        attempt.waiters.add(task)
        self._changed()
        try:
            return await task
        except asyncio.CancelledError:
            if parked.refused:
                raise SpawnError(parked.refused) from None
            if attempt.stop is not None:
                raise StepCancelled(told_to_stop(attempt)) from None
            task.cancel()
            raise
        finally:
            attempt.waiters.discard(task)
            self._parked.remove(parked)
            self._changed()

    @property
    def holds_all(self) -> bool:
        """Whether every slot in use is held by a step that waits: none comes free before its child has run, here perhaps."""
        return bool(self._parked) and self._held() >= self._slots.used

    def close(self) -> None:
        """Refuse nothing more."""
        if self._timer is not None:
            self._timer.cancel()
        if self._check is not None:
            self._check.cancel()

    def _reason(self, parked: Parked) -> str:
        assign = parked.attempt.assign
        waits = f"step {assign.workflow}:{assign.name} waits for its child {parked.workflow!r} with result_sync()"
        held, total = self._held(), self._slots.total
        if held < total:
            why = f"the child takes {self._size(parked.workflow)} slots, and steps that wait so keep {held} of the {total} slots"
        else:
            why = f"so do the steps in all {total} slots"
        return (
            f"{waits}, and {why} of this worker, the only one that could run the children: none of the waits could ever end; "
            "make the step async (its slots are lent out while it waits), or give the worker more slots"
        )

    def _held(self) -> int:
        return sum({id(each.attempt): each.attempt.slots for each in self._parked if each.attempt.has_slot}.values())

    def _full(self) -> bool:
        """Whether the slots that are left are too few for any of the children."""
        left = self._slots.total - self._held()
        return all(self._size(each.workflow) > left for each in self._parked)

    def _changed(self) -> None:
        """Whoever waits, waits since now in this company."""
        self.close()
        self._timer = None
        if self.holds_all:
            self._slots.on_free()  # its child may stand behind one that takes more slots than are left
        if self._parked and self._full():
            self._timer = asyncio.get_running_loop().call_later(STUCK_AFTER_S, self._look)

    def _look(self) -> None:
        self._check = asyncio.ensure_future(self._refuse_last())

    async def _refuse_last(self) -> None:
        parked = list(self._parked)
        try:
            for workflow in {each.workflow for each in parked if not each.tied}:
                if not await self._only_here(workflow):
                    return
        except MeshError as error:
            log.warning("all slots wait for children, and no leader says whether another worker could run them: %s", error)
            return
        if parked == self._parked and self._full():
            parked[-1].refused = self._reason(parked[-1])
            parked[-1].task.cancel()
