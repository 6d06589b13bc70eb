"""Writes down every acknowledgement that a process gets from a stored stream: what `stored` means is what it was told.

Rule: it looks at the future that the product itself waits for, and changes nothing.
"""

from __future__ import annotations

import asyncio
import json
from hashlib import blake2b
from typing import Any

from mesh_sdk.protocol import codec
from mesh_sdk.protocol.records import Failed, Finished, Start
from mesh_sdk.transport.wire import Wire
from tests.chaos.history import History

STREAMS = ("events", "trigger", "report", "journal")
"""Third token of the subjects of streams that survive everything; lanes and buckets in memory promise nothing."""


def digest(stream: str, data: bytes) -> str:
    """Names what a message says. A frame of starts tells too how often it was sent; whichever of them is stored, it is the one."""
    if stream == "trigger":
        data = json.dumps(json.loads(data)[:3]).encode()
    return blake2b(data, digest_size=8).hexdigest()


def watch(history: History) -> None:
    """Watch every connection of this process."""
    store = Wire.store

    def watched(self: Wire, subject: str, data: bytes, headers: bytes, timeout: float) -> asyncio.Future[int]:
        future = store(self, subject, data, headers, timeout)
        tokens = subject.split(".")
        if tokens[0] == "mesh" and len(tokens) > 2 and tokens[2] in STREAMS:
            future.add_done_callback(lambda done: _acknowledged(history, tokens[2], data, done))
        return future

    Wire.store = watched  # type: ignore[method-assign]


def _acknowledged(history: History, stream: str, data: bytes, done: asyncio.Future[int]) -> None:
    if not done.cancelled() and done.exception() is None:
        history.say("ack", stream=stream, sequence=done.result(), digest=digest(stream, data), **_contents(stream, data))


def _contents(stream: str, data: bytes) -> dict[str, Any]:
    if stream == "report":
        records = codec.report_frames.decode(data)[0].records
        return {
            "finished": [record.token for record in records if isinstance(record, Finished)],
            "failed": [record.token for record in records if isinstance(record, Failed)],
        }
    if stream == "trigger":
        return {"runs": [record.run for record in codec.trigger_frames.decode(data)[0].records if isinstance(record, Start)]}
    return {}
