"""A sticky run's arrival: the one call of `on_moved` that rebuilds what is kept for the run, and the steps that wait for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mesh_sdk.context import Context
    from mesh_sdk.worker.attempt import Attempt

Beginning = tuple["Attempt", "Context[Any]"]


class Arrival:
    """One call of `on_moved` that goes on.

    Attributes:
        owner: the attempt that makes it, within its own timeout.
        waiting: attempts of the run that began meanwhile; each has a slot and runs nothing yet.
    """

    __slots__ = ("owner", "waiting")

    def __init__(self, owner: Attempt) -> None:
        self.owner = owner
        self.waiting: list[Beginning] = []
