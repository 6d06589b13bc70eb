"""A step and its attempts, and the machine that they go through, as a table.

`MOVES` is the whole of it: a transition that is not there is a broken invariant and ends the term.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Raw

from mesh_sdk.protocol.definitions import KEY
from mesh_sdk.protocol.records import NULL, StepError

if TYPE_CHECKING:
    from mesh.core.line import FairKey
    from mesh.core.run import Run
    from mesh.core.slots import Pool, Worker
    from mesh.core.tickets import Ticket

PENDING = "pending"
"""Waits for its parents."""
READY = "ready"
"""Waits for a place."""
DELAYED = "delayed"
"""Waits for the time of its next attempt."""
OUT = "out"
"""An attempt was released and nobody has answered yet."""
HELD = "held"
"""An attempt runs on a worker."""
DONE = "done"
BROKEN = "broken"
"""Its last attempt failed."""
SKIPPED = "skipped"
"""A step before it failed, or the run ended first."""

ENDED = frozenset((DONE, BROKEN, SKIPPED))

MOVES: dict[str, frozenset[str]] = {
    PENDING: frozenset((READY, SKIPPED)),
    READY: frozenset((OUT, SKIPPED)),
    DELAYED: frozenset((READY, SKIPPED)),
    OUT: frozenset((HELD, DONE, DELAYED, READY, BROKEN, SKIPPED)),
    HELD: frozenset((DONE, DELAYED, READY, BROKEN, SKIPPED)),
    DONE: frozenset(),
    BROKEN: frozenset(),
    SKIPPED: frozenset(),
}


class Attempt:
    """One try of a step, from its release until its slot is free. Outlives its run when that is cancelled."""

    __slots__ = ("held", "lent", "number", "pool", "recalled", "slots", "step", "ticket", "token", "until", "worker")

    def __init__(self, step: Step, number: int, token: str, pool: Pool | None, worker: Worker | None) -> None:
        self.step = step
        self.slots = step.slots
        self.number = number
        self.token = token
        self.pool = pool
        """Charged to this pool while nobody has accepted it."""
        self.worker = worker
        """Who holds it, or (private lane) who is to."""
        self.ticket: Ticket | None = None
        """Its places in concurrency groups of its step."""
        self.held = False
        self.lent = False
        self.recalled = False
        """Its worker was asked to give it back if it has not started it."""
        self.until = 0


class Step:
    """One step of one run."""

    state = PENDING
    attempt = 0
    retries = 0
    """Retries of the user's that were used."""
    losses = 0
    """Infrastructure failures."""
    mark = 0
    """Tells the queue entry that counts from older ones."""
    waits = 0
    """How often it has become ready; timers carry it to know whether they still mean it."""
    again_at = 0
    ready_at = 0
    sticky_at = 0
    """When it began to wait for the worker that its run is bound to; 0: it does not, or no longer."""
    started_at = 0
    finished_at = 0
    worker = ""
    """Name of the last worker known to run it."""
    ticket: Ticket | None = None
    """Its wish for places in concurrency groups of its own."""
    parked = False
    """It waits for a place in a group or for a rate, not for a slot."""
    own_turns: tuple[FairKey, int] | None = None
    """Of its own limits: the key whose turn it takes if its run takes none, and how many that has in a round."""
    due: tuple[str, ...] = ()
    """Rates that have let it go: it does not wait behind others for them."""
    let_go_at = 0
    """When its limits let it go last. Only its leader knows."""
    avoid_full = False
    """Came back from a worker without room: waits until the pool's capacity changes."""
    current: Attempt | None = None
    last_token = ""
    """Of the last attempt, whether it still counts or not."""
    output: Raw = NULL
    error: StepError | None = None
    error_kind = ""
    children: dict[str, tuple[str, str]] | None = None
    """position → (input digest, child run id)."""

    def __init__(self, run: Run, index: int, needs: int) -> None:
        self.run = run
        self.index = index
        self.needs = needs

    @property
    def action(self) -> str:
        return self.run.flow.actions[self.index]

    @property
    def name(self) -> str:
        return self.run.flow.step_names[self.index]

    @property
    def recalled(self) -> bool:
        """Whether the attempt that is out was asked for again."""
        return self.current is not None and self.current.recalled

    @property
    def slots(self) -> int:
        """What an attempt of it takes of its worker's slots."""
        return self.run.flow.steps[self.index].slots

    @property
    def is_key(self) -> bool:
        """Whether it is a key function."""
        return self.run.flow.steps[self.index].kind == KEY

    # ---- as one who waits in a line

    @property
    def priority(self) -> int:
        return self.run.flow.steps[self.index].priority or self.run.priority

    @property
    def fair_key(self) -> FairKey | None:
        """Whose turn it takes; None: its own."""
        if self.own_turns is None or self.run.fair_key is not None:
            return self.run.fair_key
        return self.own_turns[0]

    @property
    def weight(self) -> int:
        """Turns of that key in a round."""
        return self.run.weight if self.own_turns is None or self.run.fair_key is not None else self.own_turns[1]

    @property
    def age(self) -> int:
        return self.run.number

    @property
    def is_waiting(self) -> bool:
        """Whether it waits for a slot."""
        return self.state is READY and not self.parked
