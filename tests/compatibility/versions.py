"""Processes of two versions side by side: the present code, and a copy that is of the next minor version."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
from msgspec import Raw

from mesh.core import records as facts
from mesh.scheduler.journal import decode_frame
from mesh_sdk.protocol.records import ReportFrame
from mesh_sdk.transport.bus import Delivery, Reader
from mesh_sdk.transport.connection import Link
from tests.compatibility import load, next_minor
from tests.faults.fleet import SCHEDULER, Fleet, Process
from tests.faults.journal import NAMES

SNAPSHOT = (sys.executable, "-m", "mesh.scheduler.snapshot")
FINISHED_MAX = 10_000
SNAPSHOT_S = 20.0
READ_S = 20.0


class Version:
    """One version of the packages, and how its processes are started.

    Args:
        fleet: where.
        path: its PYTHONPATH; "" for the present code.
    """

    def __init__(self, fleet: Fleet, path: str = "") -> None:
        self._fleet = fleet
        # The current directory holds the present code: it must not come first.
        self.environment = {"PYTHONPATH": path, "PYTHONSAFEPATH": "1"} if path else {}

    def scheduler(self) -> Process:
        """Start one; it is not ready yet."""
        return self._fleet.start(SCHEDULER, **self.environment)

    def worker(self, id: str) -> Process:
        """Start one; it is not ready yet."""
        return load.worker(self._fleet, id, **self.environment)

    def snapshot(self) -> subprocess.CompletedProcess[str]:
        """Have its helper make a snapshot."""
        command = [*SNAPSHOT, self._fleet.server.url, NAMES.namespace, str(FINISHED_MAX)]
        environment = os.environ | self.environment
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=SNAPSHOT_S)


def next_version(fleet: Fleet, folder: Path, *, novel: bool = False) -> Version:
    """The next minor version."""
    return Version(fleet, next_minor.make(folder, novel=novel))


class Told:
    """All that is ever journaled, also what is trimmed afterwards, and by which version."""

    def __init__(self, bus: Link) -> None:
        self._bus = bus
        self._reader: Reader | None = None
        self._arrived = asyncio.Event()
        self.sequence = 0
        self.records: list[facts.Fact] = []
        self.lengths: dict[int, int] = {}
        """How many elements a frame of this term has: the next version's have one more."""

    async def __aenter__(self) -> Told:
        self._reader = self._bus.reader(NAMES.journal_stream, NAMES.journal, 1, self._take, window=1024)
        await self._reader.start()
        return self

    async def __aexit__(self, *error: object) -> None:
        if self._reader is not None:
            await self._reader.close()

    def _take(self, delivery: Delivery) -> None:
        assert delivery.sequence == self.sequence + 1, "it was trimmed ahead of this test"
        self.sequence = delivery.sequence
        frame = decode_frame(delivery.data)
        self.records += frame.records
        self.lengths[frame.term] = len(msgspec.json.decode(delivery.data, type=list[Raw]))
        self._arrived.set()

    async def whole(self) -> list[facts.Fact]:
        """Every record, once this has read to the journal's present end."""
        state = await self._bus.stream_state(NAMES.journal_stream)
        assert state is not None
        async with asyncio.timeout(READ_S):
            while self.sequence < state.last:
                self._arrived.clear()
                await self._arrived.wait()
        return self.records

    def terms(self) -> list[bool]:
        """Of each term, in order: whether its leader was of the next version."""
        return [length > len(facts.JournalFrame.__struct_fields__) for _, length in sorted(self.lengths.items())]


def lengths_of_reports(stored: list[bytes]) -> Iterator[tuple[str, bool]]:
    """(worker, whether it is of the next version) of each frame of reports."""
    for data in stored:
        parts = msgspec.json.decode(data, type=list[object])
        yield str(parts[1]), len(parts) > len(ReportFrame.__struct_fields__)
