"""Whoever waits and is cancelled in the very moment in which the wait is over is cancelled all the same."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from mesh_sdk.protocol.beats import WorkerBeat
from mesh_sdk.protocol.codec import encode
from mesh_sdk.protocol.records import VERSION
from mesh_sdk.protocol.subjects import Subjects
from mesh_sdk.transport.bus import Callback
from mesh_sdk.worker.held import Held
from mesh_sdk.worker.holder import Holder, Record


class _Bus:
    """An id that another worker holds; keeps who listens for its beats."""

    def __init__(self) -> None:
        self.listening: asyncio.Future[Callback] = asyncio.get_running_loop().create_future()

    def bucket(self, _name: str) -> _Bus:
        return self

    async def get(self, _key: str) -> tuple[bytes, int]:
        return encode(Record("another", "i2")), 1

    async def subscribe(self, _subject: str, callback: Callback) -> _Bus:
        self.listening.set_result(callback)
        return self

    async def close(self) -> None: ...


async def _is_cancelled(task: asyncio.Task[Any]) -> None:
    task.cancel()
    async with asyncio.timeout(10):
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_while_it_waits_for_the_last_attempt():
    held = Held()
    held["token"] = None  # type: ignore[assignment]
    waiting = asyncio.create_task(held.wait_empty(10))
    await asyncio.sleep(0)
    held.clear()
    held.emptied()
    await _is_cancelled(waiting)


async def test_while_it_listens_for_who_holds_its_id():
    bus = _Bus()
    claiming = asyncio.create_task(Holder(bus, Subjects("n"), "w-1").claim("i1"))  # type: ignore[arg-type]
    hear = await bus.listening
    await asyncio.sleep(0)
    hear("", "", encode(WorkerBeat(VERSION, "w-1", "i2", "", 1, 0, 0, 1, 0, False, 0)))
    await _is_cancelled(claiming)
