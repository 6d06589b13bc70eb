"""Whether one incarnation takes more work: what it asks the shared lane for, and what it refuses of that which comes.

Rule: a worker that drains takes only what its own running steps may wait for; one that is paused takes its private lane only.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from mesh_sdk.protocol import records
from mesh_sdk.protocol.records import Assign
from mesh_sdk.worker.demand import PAUSED_LOOKS, Demand
from mesh_sdk.worker.held import Held
from mesh_sdk.worker.hold import Hold
from mesh_sdk.worker.licence import Licence
from mesh_sdk.worker.registry import Registry
from mesh_sdk.worker.reports import Reports

log = logging.getLogger(__name__)


class Intake:
    """The way in.

    Args:
        registry: what can be run.
        held: what is held already.
        reports: no more is asked for while too many of them wait.
        licence: says until when the worker may start something.
        boot: seconds since boot.
        on_room: there is room for more shared work than before.
        on_drain: an operator has the worker end.

    Attributes:
        paused: an operator has the worker take nothing more from the shared lane.
        draining: it is to end.
        asking: counts what comes by the shared lane.
    """

    def __init__(
        self,
        registry: Registry,
        held: Held,
        reports: Reports,
        licence: Licence,
        boot: Callable[[], float],
        on_room: Callable[[], None],
        on_drain: Callable[[], None],
    ) -> None:
        self.paused = False
        self.draining = False
        self.asking = Demand()
        self._registry = registry
        self._held = held
        self._reports = reports
        self._licence = licence
        self._boot = boot
        self._on_room = on_room
        self._on_drain = on_drain

    def demand(self, room: int) -> int:
        """How many shared messages to ask for.

        Args:
            room: slots that are free, and that nobody here waits for.
        """
        if self.draining or self.paused:
            return self.asking.returnable
        if room <= 0 or self._reports.full or self._boot() >= self._licence.confirmed_until:
            return 0
        return self.asking.messages(room)

    def refusal(self, assign: Assign, hold: Hold | None, refusal: str) -> str:
        """Why an attempt goes back, "" when it does not.

        Args:
            assign: what came.
            hold: its message of the shared lane; None from the private one.
            refusal: why it would go back in any case.
        """
        if self.draining and not (hold is None and self.is_needed(assign)):
            return records.RETURNED_DRAINING
        if self.paused and hold is not None:
            return refusal or records.RETURNED_PAUSED
        return refusal

    def is_needed(self, assign: Assign) -> bool:
        """Whether a step that runs here may wait for this one, which can run nowhere else."""
        return self._registry.is_hard(assign.workflow) and self._held.has_parent_of(assign)

    def drain(self) -> None:
        """Take no more."""
        self.draining = True
        self.asking.hand_back()

    def steer(self, what: str) -> None:
        """Do as an operator says. The leader says it again at times."""
        if what == records.DRAIN:
            log.info("an operator has the worker drain")
            self._on_drain()
        elif what == records.RESUME and self.paused:
            log.info("an operator has the worker go on")
            self.paused = False
            self._on_room()
        elif what == records.PAUSE and not self.paused:
            log.info("an operator has the worker pause: it finishes what it holds, and asks for nothing more")
            self.paused = True
            if not self.draining:
                self.asking.hand_back(PAUSED_LOOKS)
