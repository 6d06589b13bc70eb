"""The journal of a test, read as it stands: what was recorded, and whether anything was recorded twice."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from contextlib import suppress
from typing import Any

from mesh.core import records as facts
from mesh.core.records import JournalFrame
from mesh.scheduler.journal import decode_frame, encode_frame
from mesh.scheduler.strays import is_frame
from mesh_sdk.protocol.codec import encode
from mesh_sdk.protocol.subjects import Subjects
from mesh_sdk.transport.bus import Bus, Delivery

NAMES = Subjects()
READ_S = 30.0
__all__ = [
    "NAMES",
    "JournalFrame",
    "check_executions",
    "check_once",
    "decode_frame",
    "digests",
    "encode",
    "encode_frame",
    "frames",
    "records",
]


async def frames(bus: Bus) -> list[tuple[int, JournalFrame]]:
    """Every frame with its sequence."""
    found: list[tuple[int, JournalFrame]] = []
    state = await bus.stream_state(NAMES.journal_stream)
    if state is None or not state.messages:
        return found
    end = asyncio.Event()

    def take(delivery: Delivery) -> None:
        if is_frame(delivery.subject, delivery.headers, NAMES):
            found.append((delivery.sequence, decode_frame(delivery.data)))
        if delivery.sequence >= state.last:
            end.set()

    reader = bus.reader(NAMES.journal_stream, NAMES.all_journals, 1, take, window=1024)
    await reader.start()
    await asyncio.wait_for(end.wait(), READ_S)
    await reader.close()
    return found


async def records(bus: Bus) -> list[facts.Fact]:
    """Every record, in order."""
    return [record for _, frame in await frames(bus) for record in frame.records]


def check_once(found: list[facts.Fact]) -> None:
    """No run started or ended twice, no step completed twice, no attempt number of a step given out twice."""
    counts: Counter[tuple[object, ...]] = Counter()
    for record in found:
        if isinstance(record, facts.RunStarted):
            counts["start", record.run] += 1
        elif isinstance(record, facts.RunFinished):
            counts["end", record.run] += 1
        elif isinstance(record, facts.StepFinished):
            counts["done", record.run, record.step] += 1
        elif isinstance(record, facts.StepReleased):
            counts["out", record.run, record.step, record.attempt] += 1
    twice = [what for what, count in counts.items() if count > 1]
    assert not twice, f"recorded more than once: {twice[:5]}"


def check_executions(executions: list[tuple[str, str, int, str, int]]) -> None:
    """No attempt was executed twice."""
    counts = Counter((run, step, attempt) for run, step, attempt, what, _ in executions if what == "start")
    twice = [what for what, count in counts.items() if count > 1]
    assert not twice, f"executed more than once: {twice[:5]}"


async def digests(bus: Bus) -> list[dict[str, Any]]:
    """What both schedulers say that their state is, or whoever answers within a second."""
    answers: list[dict[str, Any]] = []
    inbox = bus.new_inbox()
    subscription = await bus.subscribe(inbox, lambda subject, reply, data: answers.append(json.loads(data)))
    bus.publish(NAMES.control("schedulers"), b'{"ask":"digest"}', inbox)
    with suppress(TimeoutError):
        async with asyncio.timeout(1):
            while len(answers) < 2:
                await asyncio.sleep(0.02)
    await subscription.close()
    return answers
