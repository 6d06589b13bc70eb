"""Hears what the mesh itself logs as a defect: an exception that nobody had expected.

Rule: what networks and processes do is no defect, whoever logs it; nor is what a user's step raises.
"""

from __future__ import annotations

import logging
from asyncio import CancelledError
from collections.abc import Callable

from mesh_sdk.errors import MeshError
from mesh_sdk.transport.errors import TransportError

EXPECTED = (TransportError, MeshError, CancelledError)


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
        if error is not None and not isinstance(error, EXPECTED):
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
