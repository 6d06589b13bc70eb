"""After the lanes were lost: who holds what. What nobody claims in time gets a new attempt, at once when every worker has answered."""

from __future__ import annotations

from typing import Any

from mesh.core import records as facts
from mesh.core.effects import Address
from mesh.core.inputs import HoldingAsked, LanesLost, Sender
from mesh.core.spawning import Spawning
from mesh.core.step import READY, Attempt
from mesh_sdk.protocol import records as wire

LANES_CLAIM_MS = 2_000
"""How long workers have at most to say what they hold after the lanes were lost."""


class Claiming(Spawning):
    """The part of the core that decides about lost lanes.

    Which answers are still missing is not journaled: a new leader asks again.
    """

    _question: int
    _unheard: set[Address]
    _claims_until: int
    """When the time to claim is over, core time; 0: nobody has been asked, for the lanes are not made anew yet."""

    def _attempt(self, report: Any, sender: Sender) -> Attempt | None:
        raise NotImplementedError

    def lanes_lost(self, input: LanesLost, sender: Sender) -> None:
        """The lanes had to be made again: for a while workers say what they hold."""
        self._unheard = set()
        self._claims_until = 0
        self.record(facts.LanesReset(self.state.now + LANES_CLAIM_MS))

    def holding_asked(self, input: HoldingAsked, sender: Sender) -> None:
        """From here on answers to this question count, and the time to claim runs: what is left of the old lanes can't come any more."""
        self._claims_until = self.state.now + LANES_CLAIM_MS
        self._question = input.question
        self._unheard = {(worker.id, worker.incarnation) for worker in self.state.workers.values()}

    def holding(self, report: wire.Holding, sender: Sender) -> None:
        """A worker says what it holds."""
        for run, step, number, token in report.attempts:
            attempt = self._attempt(wire.Accepted(run, step, number, token), sender)
            if attempt is None or token not in self.state.unclaimed:
                continue
            if attempt.worker is None:
                self.hold(attempt, sender.name)
            else:
                self.record(facts.StepClaimed(token))
        if report.question == self._question and self._unheard:
            self._unheard.discard((sender.name, sender.incarnation))
            if not self._unheard and self.state.lanes_until:
                self.settle_lanes()

    def hold(self, attempt: Attempt, worker: str) -> None:
        """The attempt is known to run there.

        If that worker drains, is in another pool by now or had no free slot for it, the pool that was charged has room.
        """
        holder, pool = self.state.workers[worker], attempt.pool
        free = pool.free if pool is not None else 0
        self.record(facts.StepAccepted(attempt.token, worker))
        if not holder.takes_work:
            self.pump(holder.pool)
        if pool is not None and pool.free > free:
            self.pump(pool)

    def settle_lanes(self) -> None:
        """The time to claim is over: what nobody has claimed gets a new attempt."""
        for token in list(self.state.unclaimed):
            attempt = self.state.attempts.get(token)
            if attempt is None or attempt.held:
                continue
            self.hand_back(attempt, "lanes lost")
            if attempt.step.state is READY:
                self.place(attempt.step)
            self.loosen(attempt.step.run)
        self.record(facts.LanesSettled())
        for pool in list(self.state.pools.values()):
            self.pump(pool)
