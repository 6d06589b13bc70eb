"""Who a worker is: told to the scheduler, and shown to steps as `context.worker`."""

from __future__ import annotations

from dataclasses import dataclass

from mesh_sdk.labels import Label
from mesh_sdk.worker.registry import Registry


@dataclass(slots=True)
class Identity:
    """One worker.

    Attributes:
        worker: its id.
        chosen: the id was chosen by an operator, so somebody else may hold it.
        named: its name.
        slots: how many it has; a step takes one of them, or as many as it declares.
        registry: what it has registered.
        values: its labels; to change them, put others in their place, for other threads read them.
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
