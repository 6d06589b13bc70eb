"""Dead letters: what could not be read is kept with the reason, in a stream of its own, where the oldest go first.

Rule: an input is freed when its letter is written, unless that finds no room: then the log is all that tells of it.
"""

from __future__ import annotations

import base64
import logging

import msgspec

from mesh.core.records import InputRejected
from mesh.scheduler.chores import Chore, Chores
from mesh_sdk.protocol.subjects import Subjects
from mesh_sdk.transport.bus import Bus, Stored

log = logging.getLogger(__name__)

WAITING_MAX = 10_000
"""Letters to be written; of more only the log tells, and the journal."""
DATA_BYTES_MAX = 256 * 1024


def encode_letter(record: InputRejected, stored: Stored | None, bytes_max: int) -> bytes:
    """A dead letter: what was rejected and why, with the message itself, as far as it still is there, cut to so many bytes."""
    letter = {
        "source": record.source,
        "sequence": record.sequence,
        "index": record.index,
        "reason": record.reason,
        "subject": stored.subject if stored else "",
        "data": base64.b64encode(stored.data[:bytes_max]).decode() if stored else "",
    }
    return msgspec.json.encode(letter)


class Letters:
    """Writes them for one term.

    Args:
        bus, subjects: of the scheduler.
        chores: where they wait for their turn.
    """

    def __init__(self, bus: Bus, subjects: Subjects, chores: Chores) -> None:
        self._bus = bus
        self._subjects = subjects
        self._chores = chores
        self._streams = {"events": subjects.events_stream, "reports": subjects.reports_stream}
        self._waiting: dict[tuple[str, int, int], Chore] = {}

    def add(self, record: InputRejected) -> None:
        """Have a letter written about this."""
        log.warning("dead letter from %s, message %d: %s", record.source, record.sequence, record.reason)
        if len(self._waiting) >= WAITING_MAX:
            log.error("%d dead letters wait to be written: there is none for that one", WAITING_MAX)
            return
        what = f"burying message {record.sequence} of {record.source}"
        self._waiting[(record.source, record.sequence, record.index)] = self._chores.add(what, lambda: self._bury(record))

    def unwritten(self, source: str) -> int | None:
        """The first message of the source whose letter is still to be written; None when there is none."""
        waiting = [sequence for (name, sequence, _), chore in self._waiting.items() if name == source and not chore.aside]
        return min(waiting, default=None)

    async def _bury(self, record: InputRejected) -> None:
        """Its id makes a repeat after a takeover harmless."""
        stored = await self._bus.get(self._streams.get(record.source, self._subjects.triggers_stream), record.sequence)
        letter = encode_letter(record, stored, DATA_BYTES_MAX)
        source = record.source if record.source in self._streams else "triggers"
        id = f"dead-{record.source}-{record.sequence}-{record.index}"
        await self._bus.append(self._subjects.dead(source), letter, message_id=id)
        self._waiting.pop((record.source, record.sequence, record.index), None)
