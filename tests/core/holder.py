"""A worker as the world sees it: what it runs, and how much room it has."""

from __future__ import annotations

from dataclasses import dataclass, field

from mesh.core.inputs import Sender
from mesh_sdk.protocol import records as wire


@dataclass
class Holder:
    """One incarnation."""

    id: str
    incarnation: str
    slots: int
    running: dict[str, wire.Assign] = field(default_factory=dict)
    lent: set[str] = field(default_factory=set)
    forgotten: set[str] = field(default_factory=set)
    """Workflows that it does not register any more."""
    kept: set[str] = field(default_factory=set)
    """Runs that it keeps something for in `context.local`."""

    sizes: dict[str, int] = field(default_factory=dict)
    """Slots of what it runs, where that is not 1."""

    @property
    def sender(self) -> Sender:
        return Sender(self.id, self.incarnation)

    @property
    def room(self) -> int:
        return self.slots - sum(self.sizes.get(token, 1) for token in self.running if token not in self.lent)
