"""What a new leader sends on behalf of the one before it: all that was recorded, is unanswered and is not in the lanes.

Rule: everything here may have been sent already, so it must be harmless twice.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from mesh.core.effects import Effects, assign, withdrawals
from mesh.core.records import InputRejected
from mesh.core.state import State
from mesh.core.step import Attempt
from mesh.scheduler.inbox import Inbox
from mesh.scheduler.lanes import Lanes
from mesh.scheduler.outbox import Outbox
from mesh_sdk.protocol.codec import BadFrame, lane_frames
from mesh_sdk.protocol.records import Assign
from mesh_sdk.protocol.subjects import Subjects
from mesh_sdk.transport.bus import Bus
from mesh_sdk.transport.errors import TransportError

log = logging.getLogger(__name__)

_AGAIN_S = 0.1


class Takeover:
    """Made when a term begins, for what is unanswered then.

    Args:
        bus: the connection.
        subjects: the namespace's names.
        state: as the journal tells it, TermStarted included.
        inbox: read to the end of REPORTS first: what is answered there needs no sending.
        outbox: sends.
        lanes: adopts what stands in them.
        term: this one.
        sequence: of the journal's last frame.
        rejected: inputs that the journal's tail rejected; their dead letters may be missing.
    """

    def __init__(
        self, bus: Bus, subjects: Subjects, state: State, inbox: Inbox, outbox: Outbox, lanes: Lanes, term: int,
        sequence: Callable[[], int], rejected: list[InputRejected],
    ) -> None:  # fmt: skip
        self._bus = bus
        self._subjects = subjects
        self._state = state
        self._inbox = inbox
        self._outbox = outbox
        self._lanes = lanes
        self._term = term
        self._sequence = sequence
        self._rejected = rejected
        self._unanswered = {token: attempt for token, attempt in state.attempts.items() if not attempt.held}

    async def run(self, lanes_lost: Callable[[], bool]) -> None:
        """Send it, however long the servers make that last.

        Args:
            lanes_lost: whether the lanes are to be made anew: then what nobody claims is given out anew, and nothing is sent here.
        """
        while True:
            try:
                await self._catch_up(lanes_lost)
                self._lanes.adopted.set()
                return
            except TransportError as error:
                log.warning("what the leader before left could not be sent again yet: %s", error)
                await asyncio.sleep(_AGAIN_S)

    async def _catch_up(self, lanes_lost: Callable[[], bool]) -> None:
        await self._outbox.publish_definitions([flow.definition for flow in self._state.flows.values()])
        rejections = Effects()
        rejections.rejected += self._rejected
        self.send(rejections)
        if not self._unanswered and not self._state.attempts:
            return
        end = await self._bus.stream_state(self._subjects.reports_stream)
        while end is not None and self._inbox.reports.sequence < end.last and not _read_to_the_end(self._inbox):  # noqa: ASYNC110 - a reader's end is a state, no event
            await asyncio.sleep(0.01)
        if lanes_lost():
            return
        there = await self._in_lanes()
        effects = withdrawals(self._state)
        for token, attempt in self._unanswered.items():
            if token not in there and token not in self._state.unclaimed and self._is_out(token, attempt):
                _resend(attempt, effects)
        self.send(effects)

    def send(self, effects: Effects) -> None:
        """Send what follows from the journal as it stands."""
        self._outbox.send(self._outbox.prepare(effects, []), self._sequence())

    def _is_out(self, token: str, attempt: Attempt) -> bool:
        """Still to be sent: nobody holds it, and it was not withdrawn."""
        withdrawn = attempt.worker is not None and attempt.step.current is not attempt
        return self._state.attempts.get(token) is attempt and not attempt.held and not withdrawn

    async def _in_lanes(self) -> set[str]:
        """Tokens of the assignments that the lanes still hold. The dead leader's messages become this one's to free."""
        found: set[str] = set()
        attempts = self._state.attempts
        for stored in reversed(await self._bus.read(self._subjects.lanes_stream, self._subjects.all_lanes)):
            if stored.subject == self._subjects.lane_fence:
                continue
            try:
                frame, _ = lane_frames.decode(stored.data)
            except BadFrame:
                continue
            tokens = [order.token for order in frame.records if type(order) is Assign]
            found.update(tokens)
            if frame.term < self._term:
                self._lanes.adopt(stored.subject, stored.sequence, [t for t in tokens if t in attempts and not attempts[t].held])
        return found


def _read_to_the_end(inbox: Inbox) -> bool:
    reader = inbox.reports.reader
    return reader is not None and reader.caught_up and not inbox.reports.waiting


def _resend(attempt: Attempt, effects: Effects) -> None:
    order = assign(attempt)
    if attempt.worker is not None:
        effects.private.setdefault((attempt.worker.id, attempt.worker.incarnation), []).append(order)
    elif attempt.pool is not None:
        effects.shared.setdefault(attempt.pool.id, []).append(order)
