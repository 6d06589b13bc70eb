"""The last answer to each recent attempt, so that a repeat is recognised and answered alike.

Rule: bounded by count and by bytes. Two generations: when the young one is full the old one is forgotten.
"""

from __future__ import annotations

from mesh_sdk.protocol.records import Failed, Finished, Returned

Answer = Finished | Failed | Returned

GENERATION_COUNT_MAX = 10_000
GENERATION_BYTES_MAX = 8 * 1024 * 1024


class Answers:
    """Remembers answers by attempt token."""

    def __init__(self) -> None:
        self._young: dict[str, Answer] = {}
        self._old: dict[str, Answer] = {}
        self._bytes = 0

    def remember(self, answer: Answer, size: int) -> None:
        """Keep an answer.

        Args:
            answer: the last report about an attempt.
            size: about how many bytes it takes.
        """
        young = self._young
        young[answer.token] = answer
        self._bytes += size
        if len(young) >= GENERATION_COUNT_MAX or self._bytes >= GENERATION_BYTES_MAX:
            self._old = young
            self._young = {}
            self._bytes = 0

    def find(self, token: str) -> Answer | None:
        """The answer given for this token; None when there was none, or it was long ago."""
        return self._young.get(token) or self._old.get(token)
