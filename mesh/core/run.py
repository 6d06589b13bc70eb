"""A run: its steps, what started it, how it ended."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from msgspec import Raw

from mesh.core.graph import Flow
from mesh.core.step import BROKEN, DONE, SKIPPED, Step
from mesh_sdk.protocol.definitions import LabelDefinition
from mesh_sdk.protocol.records import CANCELLED, FAILED, FAILED_TIMEOUT, SUCCEEDED, TIMED_OUT

if TYPE_CHECKING:
    from mesh.core.run_keys import RunKeys
    from mesh.core.tickets import Ticket

LIVE = "live"
OVER = (SUCCEEDED, FAILED, CANCELLED, TIMED_OUT)

MOVES: dict[str, frozenset[str]] = {LIVE: frozenset(OVER), **dict.fromkeys(OVER, frozenset[str]())}
"""The run's machine: it lives until it ends, once."""


class Run:
    """One execution of a workflow."""

    status = LIVE
    reason = ""
    client = ""
    also: list[str] | None = None
    """Further clients that started it with the same key."""
    key = ""
    event = ""
    worker = ""
    """Whom a sticky run is bound to."""
    loose = False
    """Its worker is gone, takes no more, or has been full for too long: whoever has room first may take it."""
    tied = False
    """A sticky child: it was bound to its parent's worker when it was spawned, and follows the parent."""
    begun = False
    """Something of it has run, or may have."""
    moves = 0
    """How often it was bound to another worker after it had begun."""
    start_at = 0
    finished_at = 0
    refused: tuple[str, str] | None = None
    """(error type, message) of a start that was refused."""
    parent: tuple[str, int, str, str] | None = None
    metadata: dict[str, str] | None = None
    labels: list[LabelDefinition] | None = None
    """Wanted of the workers of all its steps, whatever these say themselves about labels of the same names."""
    keyed: RunKeys | None = None
    """What was taken from its input for its limits."""
    wanted_at = 0
    """Since when it wants its places, core time."""
    ticket: Ticket | None = None
    """Its wish for places in concurrency groups."""
    fair_key: tuple[str, str] | None = None
    """Whose turn its steps take; None: their own."""
    weight = 1
    """Turns of that key in a round."""
    out = 0
    """Attempts of it that are not over; counted where it has a ticket."""
    spawned: list[str] | None = None
    """Ids of its children, in the order they came."""

    def __init__(self, id: str, flow: Flow, input: Raw, priority: int, number: int, started_at: int) -> None:
        self.id = id
        self.flow = flow
        self.input = input
        self.priority = priority
        self.number = number
        """Order of the starts, over all runs."""
        self.started_at = started_at
        self.left = flow.size
        """Steps that have not ended."""
        needs = flow.needs
        self.steps = [Step(self, index, needs[index]) for index in range(flow.size)]

    def outcome(self) -> str:
        """How a run ends whose steps have all ended."""
        status = SUCCEEDED
        for step in self.steps:
            if step.state == BROKEN:
                if step.error_kind != FAILED_TIMEOUT:
                    return FAILED
                status = TIMED_OUT
            elif step.state == SKIPPED and status == SUCCEEDED:
                status = FAILED
        return status

    @property
    def assigned(self) -> bool:
        """Whether a step of it was ever given to a worker."""
        return any(step.attempt and not step.is_key for step in self.steps)

    @property
    def placed(self) -> bool:
        """Whether an attempt that counts is on a worker right now: then a sticky run stays where it is."""
        return any(step.current is not None and not step.is_key for step in self.steps)

    def broken_steps(self) -> list[Step]:
        """The steps that failed for good."""
        return [step for step in self.steps if step.state == BROKEN]

    def output(self) -> bytes:
        """JSON of the result: the final step's output, or an object of them when there are several."""
        finals = self.flow.finals
        if not finals:
            return b"null"
        if len(finals) == 1:
            return _payload(self.steps[finals[0]])
        names = self.flow.step_names
        return b"{" + b",".join(msgspec.json.encode(names[i]) + b":" + _payload(self.steps[i]) for i in finals) + b"}"


def _payload(step: Step) -> bytes:
    return bytes(step.output) if step.state == DONE else b"null"
