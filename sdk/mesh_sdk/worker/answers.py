"""The last answer to each attempt: given once, and the recent ones remembered, so that a repeat is recognised and answered alike.

Rule: bounded by count and by bytes. Two generations: when the young one is full the old one is forgotten.
"""

from __future__ import annotations

from mesh_sdk.worker.hold import Hold
from mesh_sdk.worker.outcome import Outcome, size_of
from mesh_sdk.worker.reports import Reports

GENERATION_COUNT_MAX = 10_000
GENERATION_BYTES_MAX = 8 * 1024 * 1024


class Answers:
    """Gives answers, and remembers them by attempt token.

    Args:
        reports: of the incarnation.
    """

    def __init__(self, reports: Reports) -> None:
        self._reports = reports
        self._young: dict[str, Outcome] = {}
        self._old: dict[str, Outcome] = {}
        self._bytes = 0

    def give(self, answer: Outcome, hold: Hold | None = None) -> None:
        """Report about an attempt for the last time.

        Args:
            answer: how it ended.
            hold: the lane message to be freed when the report is stored.
        """
        size = size_of(answer)
        self._remember(answer, size)
        self._reports.put(answer, size, hold)

    def repeat(self, token: str, hold: Hold | None = None) -> bool:
        """Give the same answer again. False when there was none, or it was long ago."""
        answer = self._young.get(token) or self._old.get(token)
        if answer is None:
            return False
        self._reports.put(answer, size_of(answer), hold)
        return True

    def _remember(self, answer: Outcome, size: int) -> None:
        young = self._young
        young[answer.token] = answer
        self._bytes += size
        if len(young) >= GENERATION_COUNT_MAX or self._bytes >= GENERATION_BYTES_MAX:
            self._old = young
            self._young = {}
            self._bytes = 0
