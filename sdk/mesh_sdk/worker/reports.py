"""What the worker tells the scheduler: one writer of frames for each incarnation, and the acknowledgements that follow.

Rule: a lane message is acknowledged only once the report that answers it is stored.
"""

from __future__ import annotations

import asyncio

from mesh_sdk.protocol.records import VERSION, Report, ReportFrame
from mesh_sdk.protocol.subjects import Subjects
from mesh_sdk.transport.bus import Bus
from mesh_sdk.transport.frames import FrameWriter
from mesh_sdk.worker.hold import Hold

RECORD_BYTES = 128
"""About what a report without payload takes."""


class Reports:
    """The reports of one incarnation.

    Args:
        bus: the connection.
        subjects: of the namespace.
        worker: the worker's id.
        incarnation: this start of it.
    """

    def __init__(self, bus: Bus, subjects: Subjects, worker: str, incarnation: str) -> None:
        def wrap(reports: list[Report], _resent: int) -> ReportFrame:
            return ReportFrame(VERSION, worker, incarnation, reports)

        self._writer = FrameWriter(bus, subjects.report, wrap, name=f"{worker}.{incarnation}", on_stored=_acknowledge)

    def put(self, report: Report, size: int = RECORD_BYTES, hold: Hold | None = None) -> asyncio.Future[int]:
        """Have a report sent.

        Args:
            report: the record.
            size: about its bytes.
            hold: the lane message to be freed when it is stored.

        Returns:
            Done when the report is stored; shared with others, so await it through `asyncio.shield`.
        """
        return self._writer.put(report, size, hold)

    @property
    def full(self) -> bool:
        """Too much is waiting to be stored: take no more work."""
        return self._writer.full

    @property
    def waiting(self) -> int:
        """Reports that are not stored yet."""
        return self._writer.waiting

    async def flush(self, timeout: float) -> None:
        """Wait until everything put so far is stored.

        Raises:
            TimedOut: it was not, in time.
        """
        await self._writer.flush(timeout)

    async def close(self) -> None:
        """Send no more."""
        await self._writer.close()


def _acknowledge(holds: list[Hold | None]) -> None:
    for hold in holds:
        if hold is not None:
            hold.answered()
