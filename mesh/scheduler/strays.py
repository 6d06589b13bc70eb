"""Messages in the journal that no scheduler wrote: passed over by everybody, counted, set aside with the reason.

Rule: a message without an expected last sequence is no frame. Why that is safe: a scheduler writes nothing to the journal
without one, so such a message is nobody's decision, and whether a message has one never changes, so all who read the journal
pass over the same ones. A frame with one was stored only because its writer named the very last message before it, strays
included, and so had read up to there. Whoever forges the expectation too has to name the last message like any scheduler: what
comes of it is a frame of another writer, which ends the term of the leader, and one that can't be applied stops them all, loudly.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping

from mesh.core.records import InputRejected
from mesh.scheduler.letters import encode_letter
from mesh_sdk.protocol.subjects import Subjects
from mesh_sdk.transport.bus import Bus, Stored

log = logging.getLogger(__name__)

EXPECTATION = "Nats-Expected-Last-Subject-Sequence"
REASON = "it carries no expected last sequence: no scheduler wrote it"
_SOURCE = "journal"
_DATA_BYTES_MAX = 64 * 1024


def is_frame(subject: str, headers: Mapping[str, str] | None, subjects: Subjects) -> bool:
    """Whether a message of the journal's stream claims to be a frame; what does not is passed over."""
    return subject == subjects.journal and headers is not None and EXPECTATION in headers


class Strays:
    """Counts them, each once.

    Args:
        bus, subjects: where those that a leader meets are set aside.
    """

    def __init__(self, bus: Bus, subjects: Subjects) -> None:
        self._bus = bus
        self._subjects = subjects
        self._last = 0
        self.count = 0
        self.on_buried: Callable[[], None] = lambda: None

    def passed(self, sequence: int, subject: str) -> bool:
        """One was met. False when it was known already."""
        if sequence <= self._last:
            return False
        self._last = sequence
        self.count += 1
        if self.count & (self.count - 1) == 0:  # the first, the second, the fourth…
            log.error(
                "journal message %d on %r is passed over (%d so far): %s; who may publish there?", sequence, subject, self.count, REASON
            )
        return True

    def bury(self, stray: Stored) -> None:
        """One that the leader has met: keep it among the dead letters."""
        if not self.passed(stray.sequence, stray.subject):
            return
        letter = encode_letter(InputRejected(_SOURCE, stray.sequence, -1, REASON), stray, _DATA_BYTES_MAX)
        id = f"dead-{_SOURCE}-{stray.sequence}"
        self._bus.append_soon(self._subjects.dead(_SOURCE), letter, message_id=id).add_done_callback(_told)
        self.on_buried()


def _told(stored: asyncio.Future[int]) -> None:
    if not stored.cancelled() and (error := stored.exception()) is not None:
        log.warning("a message of the journal that no scheduler wrote could not be set aside: %s", error)
