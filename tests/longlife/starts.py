"""Starts by the hundred thousand, stored as the client stores them: in frames, one in flight."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable

from msgspec import Raw

from mesh_sdk.protocol.ids import run_id
from mesh_sdk.protocol.records import VERSION, Start, TriggerFrame
from mesh_sdk.protocol.subjects import Subjects
from mesh_sdk.transport.bus import Bus
from mesh_sdk.transport.frames import FrameWriter

FLUSH_S = 600.0
_BETWEEN = 512


class Publisher:
    """One client that starts runs of `workflow` and awaits none.

    Args:
        bus: the connection.
        workflow: what is started.
        priority: the subject that the starts are stored under.
        ms: what every input says.
    """

    def __init__(self, bus: Bus, workflow: str, priority: int = 1, ms: int = 0) -> None:
        self.name = f"longlife{secrets.token_hex(4)}"
        self.stored = 0
        self._unique = secrets.token_bytes(6)
        self._workflow = workflow
        self._ms = ms
        self._writer = FrameWriter(
            bus,
            Subjects().trigger(priority),
            lambda records, resent: TriggerFrame(VERSION, self.name, records, resent),
            name=self.name,
            on_stored=self._count,
        )

    def _count(self, holds: list[object]) -> None:
        self.stored += len(holds)

    async def publish(self, count: int, text: str = "", told: Callable[[int], None] | None = None) -> float:
        """Store `count` starts with inputs of `{"n": …, "ms": …, "p": text}`; the seconds that it took."""
        began = time.perf_counter()
        for n in range(count):
            id = run_id(time.time_ns() // 1_000_000, self._unique, n)
            input = f'{{"n":{n},"ms":{self._ms},"p":"{text}"}}'.encode()
            self._writer.put(Start(id, self._workflow, Raw(input)), 100 + len(input))
            if self._writer.full:
                await self._writer.wait_room()
            if n % _BETWEEN == 0:
                await asyncio.sleep(0)
                if told is not None:
                    told(n)
        await self._writer.flush(FLUSH_S)
        return time.perf_counter() - began

    async def close(self) -> None:
        """Store no more."""
        await self._writer.close()
