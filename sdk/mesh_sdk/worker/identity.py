"""Who a worker is: told to the scheduler, and shown to steps as `context.worker`."""

from __future__ import annotations

from dataclasses import dataclass

from mesh_sdk.labels import Label
from mesh_sdk.worker.registry import Registry


@dataclass(frozen=True, slots=True)
class Identity:
    """One worker.

    Attributes:
        worker: its id.
        chosen: the id was chosen by an operator, so somebody else may hold it.
        named: its name.
        slots: how many steps it runs at once.
        registry: what it has registered.
        values: its labels; the worker changes them in place.
    """

    worker: str
    chosen: bool
    named: str
    slots: int
    registry: Registry
    values: dict[str, Label]

    def id(self) -> str:
        """The worker's id."""
        return self.worker

    def name(self) -> str:
        """The worker's name."""
        return self.named

    def labels(self) -> dict[str, Label]:
        """A copy of the worker's labels."""
        return dict(self.values)

    def has_workflow(self, name: str) -> bool:
        """Whether a workflow of this name is registered on the worker."""
        return self.registry.definition(name) is not None
