"""What a client stores: starts and cancels, in frames, one writer for each priority.

Rule: a start whose frame is refused for good ends the waiting for its run; whatever may still succeed, the writer tries again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from mesh_sdk.errors import MeshError, Unavailable
from mesh_sdk.protocol.records import VERSION, Cancel, Start, Steer, Trigger, TriggerFrame
from mesh_sdk.protocol.subjects import Subjects
from mesh_sdk.transport.bus import Bus
from mesh_sdk.transport.errors import Disconnected, TimedOut
from mesh_sdk.transport.frames import FrameWriter

_RECORD_BYTES = 160
"""About what a start has besides its payload and texts: the writer wants a hint, not a measure."""


class _Lane:
    """One writer, and the runs of the frame that it is filling."""

    __slots__ = ("frame", "runs", "writer")

    def __init__(self, writer: FrameWriter) -> None:
        self.writer = writer
        self.frame: asyncio.Future[int] | None = None
        self.runs: list[str] = []


class Triggers:
    """Stores starts and cancels.

    Args:
        bus: the connection.
        subjects: of the namespace.
        client: the client's id, where notices go.
        on_refused: told of runs whose start will never be stored, and why.
    """

    def __init__(self, bus: Bus, subjects: Subjects, client: str, on_refused: Callable[[list[str], MeshError], None]) -> None:
        self._bus = bus
        self._subjects = subjects
        self._client = client
        self._on_refused = on_refused
        self._starts: dict[int, _Lane] = {}
        self._control: FrameWriter | None = None

    def start(self, record: Start, size: int, priority: int) -> asyncio.Future[int]:
        """Store a start. The future is shared by all records of its frame: shield it.

        Args:
            record: the start.
            size: bytes of its input.
            priority: 1 to 9.
        """
        lane = self._starts.get(priority)
        if lane is None:
            lane = self._starts[priority] = _Lane(self._writer(self._subjects.trigger(priority), str(priority)))
        frame = lane.writer.put(record, size + _RECORD_BYTES)
        if frame is not lane.frame:
            lane.frame, lane.runs = frame, []
            frame.add_done_callback(self._watch(lane.runs))
        lane.runs.append(record.run)
        return frame

    def _watch(self, runs: list[str]) -> Callable[[asyncio.Future[int]], None]:
        def ended(frame: asyncio.Future[int]) -> None:
            error = None if frame.cancelled() else frame.exception()
            if error is not None and not isinstance(error, Disconnected):
                self._on_refused(runs, Unavailable(f"the server refused the start: {error}"))

        return ended

    def control(self, record: Cancel | Steer) -> asyncio.Future[int]:
        """Store the request to cancel a run, or to steer a worker. The future is shared: shield it."""
        if self._control is None:
            self._control = self._writer(self._subjects.trigger_control, "control")
        return self._control.put(record, _RECORD_BYTES + (len(record.reason) if isinstance(record, Cancel) else 0))

    @property
    def full(self) -> bool:
        """Whether so much waits to be stored that nobody should add to it."""
        for lane in self._starts.values():  # noqa: SIM110 - on the way of every start, and a generator costs
            if lane.writer.full:
                return True
        return False

    async def wait_room(self) -> None:
        """Return when there is room again."""
        for lane in list(self._starts.values()):
            await lane.writer.wait_room()

    async def flush(self, timeout: float) -> bool:
        """Give what was put some time to be stored; whether all of it was."""
        writers = [lane.writer for lane in self._starts.values()]
        if self._control is not None:
            writers.append(self._control)
        results = await asyncio.gather(*(writer.flush(timeout) for writer in writers), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException) and not isinstance(result, TimedOut):
                raise result
        return not any(results)

    async def close(self) -> None:
        """Store no more."""
        for lane in self._starts.values():
            await lane.writer.close()
        if self._control is not None:
            await self._control.close()

    def _writer(self, subject: str, name: str) -> FrameWriter:
        def wrap(records: list[Trigger], resent: int) -> TriggerFrame:
            return TriggerFrame(VERSION, self._client, records, resent)

        return FrameWriter(self._bus, subject, wrap, name=f"{self._client}-{name}")
