"""One attempt of a step while this worker holds it.

Rule: only the event loop changes these.
"""

from __future__ import annotations

import asyncio
from enum import Enum
from typing import TYPE_CHECKING, Any

from mesh_sdk.protocol.records import Assign
from mesh_sdk.worker.hold import Hold
from mesh_sdk.worker.registry import Action

if TYPE_CHECKING:
    from mesh_sdk.worker.children import Spawned
    from mesh_sdk.worker.locals import Entry


class Stop(Enum):
    """Why a running attempt was told to stop."""

    TIMEOUT = "timeout"
    CANCELLED = "cancelled"
    DRAINING = "draining"
    FENCED = "fenced"


def told_to_stop(attempt: Attempt) -> str:
    """Says that an attempt was told to stop, and why."""
    why = attempt.reason or (attempt.stop.value if attempt.stop is not None else "it has ended")
    return f"step {attempt.action.name} of run {attempt.assign.run} was told to stop: {why}"


def spent_its_time(attempt: Attempt, seconds: float) -> str:
    """Says what an attempt did in the time that it had, and has spent."""
    what = "key function" if attempt.action.is_key else "step"
    did = "waited for a thread, behind others that hang," if attempt.action.is_key and not attempt.entered else "ran"
    return f"{what} {attempt.assign.name!r} {did} for {seconds:.3g} s, its timeout is {attempt.action.timeout_s:g} s"


class Attempt:
    """What the worker knows about one attempt from its arrival to its last report.

    Attributes:
        assign: the order as it came.
        action: what to run.
        hold: the lane message to be freed by the first stored report; None for a private one, or once given away.
        slots: how many slots of this worker it takes while it runs; 0 for a key function.
        started: monotonic seconds, 0.0 while it waits for its slots.
        entered: the user's code may have been reached; before that a task must not be cancelled, it would never report.
        has_slot: it occupies them.
        accepted: an `Accepted` has been reported.
        answered: its last report has been made; a thread may still run.
        released: the user gave the slots back for good.
        awaiting: how many waits for children go on; the slots are lent out while there is any.
        stop: why it was told to stop.
        reason: in the words of whoever stopped it.
        waiters: what a sync step waits in, to be cancelled with it; None before the first.
        entry: what is kept for its sticky run; None without sticky, and while it waits for a slot.
        spawned: the children of this attempt; None before the first.
    """

    __slots__ = (
        "accepted",
        "action",
        "answered",
        "assign",
        "awaiting",
        "entered",
        "entry",
        "has_slot",
        "hold",
        "reason",
        "released",
        "slots",
        "spawned",
        "started",
        "stop",
        "task",
        "timer",
        "waiters",
    )

    def __init__(self, assign: Assign, action: Action, hold: Hold | None, slots: int) -> None:
        self.assign = assign
        self.action = action
        self.hold = hold
        self.slots = slots
        self.started = 0.0
        self.entered = False
        self.has_slot = False
        self.accepted = False
        self.answered = False
        self.released = False
        self.awaiting = 0
        self.stop: Stop | None = None
        self.reason = ""
        self.task: asyncio.Task[None] | None = None
        self.timer: asyncio.TimerHandle | None = None
        self.waiters: set[asyncio.Task[Any]] | None = None
        self.entry: Entry | None = None
        self.spawned: Spawned | None = None

    def take_hold(self) -> Hold | None:
        """The lane message, for the one report that frees it."""
        hold, self.hold = self.hold, None
        return hold
