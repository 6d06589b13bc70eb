"""Hears what the mesh itself logs as an error: whatever is not told here is a defect.

Rule: no exception is expected of any logger: what networks and processes do is handled, and what is handled is no error. What is
expected are errors that say which fault struck, by their text.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable

EXPECTED = (
    "no snapshot was made",  # its helper was killed, or cut off
    "the lanes of pools .+ have lost their consumers",  # somebody has deleted one
    "the lanes (have no room for a fence|can't be fenced)",
    "not every report could be stored",  # of a worker that stops while the server is away
    r"term \d+ could not be ended in order within",  # its server stood still meanwhile
    r"journal frame \d+ can't be applied: the journal goes on at",  # trimmed ahead of a standby; the witness looks whether it was
    "the journal can't be followed: the journal goes on at",
)
_EXPECTED = re.compile("|".join(EXPECTED))
"""How log texts begin that say what was done about a fault."""


class Ears(logging.Handler):
    """See the module.

    Args:
        report: gets what is wrong.
    """

    def __init__(self, report: Callable[[str], None]) -> None:
        super().__init__(logging.ERROR)
        self._report = report
        self._level = 0

    def emit(self, record: logging.LogRecord) -> None:
        """A log record of an error."""
        error = record.exc_info[1] if record.exc_info else None
        if error is not None or not _EXPECTED.match(record.getMessage()):
            self._report(f"{record.name} logs: {record.getMessage()}: {error!r}")

    def __enter__(self) -> Ears:
        root = logging.getLogger()
        self._level = root.level
        root.setLevel(min(root.level, logging.ERROR))
        root.addHandler(self)
        return self

    def __exit__(self, *error: object) -> None:
        logging.getLogger().removeHandler(self)
        logging.getLogger().setLevel(self._level)
