"""A list that is told whole, of workers or workflows, put together in slices.

Rule: what was there at the beginning is told, each as it is when its turn comes.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

from msgspec import Raw

from mesh.scheduler.answers import ANSWER_BYTES_MAX, ApiError
from mesh_sdk.protocol.codec import encode

SLICE_ROWS = 200


class Whole:
    """One list in the making.

    Args:
        what: it is of, for the message.
        rows: what is told.
        max_payload: bytes of the largest answer.
    """

    def __init__(self, what: str, rows: Iterator[dict[str, Any]], max_payload: int) -> None:
        self._what = what
        self._source = rows
        self._room = max_payload - ANSWER_BYTES_MAX
        self._rows: list[Raw] = []

    def slice(self) -> bool:
        """Some more rows; True when all are there.

        Raises:
            ApiError: no answer carries them.
        """
        before = len(self._rows)
        for row in islice(self._source, SLICE_ROWS):
            self._rows.append(Raw(encode(row)))
            self._room -= len(self._rows[-1]) + 1
        if self._room < 0:
            raise ApiError("PayloadTooLarge", f"there are so many {self._what} that no answer carries them: ask for each by its name")
        return len(self._rows) - before < SLICE_ROWS

    def answer(self) -> bytes:
        """The list."""
        return encode({"ok": self._rows})
