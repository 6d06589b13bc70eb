"""Streams and consumers as things: make, look at, read, purge. Everything goes through the stream's leader.

Rule: nothing here keeps state; each function is one conversation with the JetStream API over a `Wire`.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
from msgspec import Struct

from mesh_sdk.transport.bus import Stored, StreamSettings, StreamState
from mesh_sdk.transport.errors import (
    CODE_CONSUMER_EXISTS,
    CODE_NO_MESSAGE,
    CODE_STREAM_NAME_IN_USE,
    NoResponders,
    Refused,
    ServerError,
    StreamMissing,
    refusal,
)
from mesh_sdk.transport.headers import number, parse, status, time_ns, value

if TYPE_CHECKING:
    from mesh_sdk.transport.wire import Wire

API = "$JS.API."

_TIMEOUT_S = 5.0
_NS = 1_000_000_000
_MARKER_TTL_S = 60
"""How long the marker of an expired key stands: long enough for every watcher to see it, or to reconnect and compare."""
_READ_BATCH = 512
_STATUS_END = 204
_STATUS_NONE = 404


class _Failure(Struct):
    error: ServerError | None = None


class _State(Struct):
    first_seq: int
    last_seq: int
    messages: int
    bytes: int


class _Limits(Struct):
    max_bytes: int = -1
    num_replicas: int = 1


class _StreamInfo(Struct):
    created: str
    state: _State
    config: _Limits


class _Subjects(Struct):
    subjects: dict[str, int] | None = None


class _SubjectsInfo(Struct):
    state: _Subjects


class _Message(Struct):
    subject: str
    seq: int
    time: datetime
    data: bytes = b""
    hdrs: bytes = b""


class _MessageAnswer(Struct):
    message: _Message


class _Names(Struct):
    total: int = 0
    consumers: list[str] | None = None


class _Purged(Struct):
    purged: int = 0


Answer = TypeVar("Answer")

_failure = msgspec.json.Decoder(_Failure).decode
_encode = msgspec.json.Encoder().encode


async def call(wire: Wire, name: str, body: Any, answer: type[Answer], timeout: float = _TIMEOUT_S) -> Answer:
    """One call of the JetStream API.

    Args:
        name: what follows `$JS.API.`.
        body: encoded as JSON; None sends nothing.
        answer: the struct to decode.

    Raises:
        StreamMissing: also when nobody answers for the stream.
        Refused, TimedOut, Disconnected.
    """
    try:
        data = await wire.ask(API + name, b"" if body is None else _encode(body), timeout)
    except NoResponders:
        raise StreamMissing(f"{name}: nobody answers", 503) from None
    try:
        error = _failure(data).error if b'"error"' in data else None
        if error is None:
            return msgspec.json.decode(data, type=answer)
    except msgspec.DecodeError as wrong:
        raise Refused(f"{name}: not an answer of the JetStream API: {wrong}") from None
    raise refusal(error.err_code, error.description, name)


def configuration(settings: StreamSettings) -> dict[str, Any]:
    """The settings as the server's API spells them."""
    age = int(settings.max_age_s * _NS)
    window = int(settings.duplicate_window_s * _NS)
    config: dict[str, Any] = {
        "name": settings.name,
        "description": settings.description,
        "subjects": list(settings.subjects),
        "storage": "memory" if settings.memory else "file",
        "retention": "limits",
        "discard": "old" if settings.discard_old else "new",
        "num_replicas": settings.replicas,
        "max_bytes": settings.max_bytes,
        "max_msgs": -1,
        "max_msgs_per_subject": settings.max_per_subject,
        "max_msg_size": -1,
        "max_consumers": -1,
        "max_age": age,
        "duplicate_window": min(window, age) if age else window,
        "allow_direct": settings.direct,
        "allow_atomic": settings.atomic,
        "allow_msg_ttl": settings.ttl,
        "allow_rollup_hdrs": settings.rollup or settings.ttl,
        "deny_purge": False,
        "deny_delete": False,
    }
    if settings.ttl:
        config["subject_delete_marker_ttl"] = _MARKER_TTL_S * _NS
    if settings.republish is not None:
        config["republish"] = {"src": settings.republish[0], "dest": settings.republish[1]}
    return config


def _state(info: _StreamInfo) -> StreamState:
    state, config = info.state, info.config
    return StreamState(
        info.created, state.first_seq, state.last_seq, state.messages, state.bytes, config.max_bytes, max(1, config.num_replicas)
    )


async def ensure_stream(wire: Wire, settings: StreamSettings, timeout: float) -> StreamState:
    """Create the stream, or bring the one that is there to these settings."""
    config = configuration(settings)
    try:
        return _state(await call(wire, f"STREAM.CREATE.{settings.name}", config, _StreamInfo, timeout))
    except Refused as error:
        if error.code != CODE_STREAM_NAME_IN_USE:
            raise
    return _state(await call(wire, f"STREAM.UPDATE.{settings.name}", config, _StreamInfo, timeout))


async def delete_stream(wire: Wire, stream: str, timeout: float) -> None:
    """Delete a stream; one that is not there is as good as deleted."""
    await _delete(wire, f"STREAM.DELETE.{stream}", timeout)


async def stream_state(wire: Wire, stream: str, timeout: float = _TIMEOUT_S) -> StreamState | None:
    """What the stream holds; None when there is no such stream."""
    try:
        return _state(await call(wire, f"STREAM.INFO.{stream}", None, _StreamInfo, timeout))
    except StreamMissing as error:
        if error.code == 503:
            raise
        return None


async def subjects(wire: Wire, stream: str, pattern: str) -> list[str]:
    """The subjects that a stream holds messages of; more than the server tells at once (100,000) are left out."""
    info = await call(wire, f"STREAM.INFO.{stream}", {"subjects_filter": pattern}, _SubjectsInfo)
    return list(info.state.subjects or ())


async def ensure_consumer(wire: Wire, stream: str, name: str, subject: str, *, ack_wait_s: float, memory: bool) -> None:
    """A durable pull consumer with explicit acks; created or left as it is."""
    config = {
        "name": name,
        "durable_name": name,
        "filter_subject": subject,
        "ack_policy": "explicit",
        "ack_wait": int(ack_wait_s * _NS),
        "max_ack_pending": 100_000,
        "max_waiting": 8192,
        "deliver_policy": "all",
        "mem_storage": memory,
    }
    body = {"stream_name": stream, "config": config, "action": "create"}
    try:
        await call(wire, f"CONSUMER.CREATE.{stream}.{name}.{subject}", body, _Failure)
    except Refused as error:
        if error.code != CODE_CONSUMER_EXISTS:
            raise


async def delete_consumer(wire: Wire, stream: str, name: str) -> None:
    """Delete a consumer; one that is not there is as good as deleted."""
    await _delete(wire, f"CONSUMER.DELETE.{stream}.{name}")


async def _delete(wire: Wire, what: str, timeout: float = _TIMEOUT_S) -> None:
    try:
        await call(wire, what, None, _Failure, timeout)
    except StreamMissing as error:
        if error.code == 503:
            raise


async def consumers(wire: Wire, stream: str) -> list[str]:
    """Names of the stream's consumers."""
    found: list[str] = []
    while True:
        page = await call(wire, f"CONSUMER.NAMES.{stream}", {"offset": len(found)}, _Names)
        found += page.consumers or []
        if not page.consumers or len(found) >= page.total:
            return found


async def purge(wire: Wire, stream: str, *, subject: str = "", before: int = 0) -> int:
    """Remove messages (of a subject) with a sequence below `before` (0: all). Returns how many."""
    body: dict[str, Any] = {}
    if subject:
        body["filter"] = subject
    if before:
        body["seq"] = before
    return (await call(wire, f"STREAM.PURGE.{stream}", body, _Purged)).purged


async def message(wire: Wire, stream: str, which: dict[str, Any]) -> Stored | None:
    """One message through the stream's leader, by `seq`, by `last_by_subj`, or by `seq` and `next_by_subj`."""
    try:
        found = (await call(wire, f"STREAM.MSG.GET.{stream}", which, _MessageAnswer)).message
    except Refused as error:
        if error.code == CODE_NO_MESSAGE:
            return None
        raise
    time_ms = int(found.time.timestamp() * 1000)
    return Stored(found.seq, time_ms, found.subject, found.data, parse(found.hdrs) if found.hdrs else {})


async def read(wire: Wire, stream: str, subject: str, start: int = 1) -> list[Stored]:
    """Everything the stream holds of a subject from a sequence on, in order.

    Any replica may answer the batches, and one may lag behind: so the leader is asked what follows the last of them.
    """
    found: list[Stored] = []
    at = start
    while True:
        batch = await read_batch(wire, stream, subject, at)
        found += batch
        if batch:
            at = batch[-1].sequence + 1
            continue
        behind = await message(wire, stream, {"seq": at, "next_by_subj": subject})
        if behind is None:
            return found
        found.append(behind)
        at = behind.sequence + 1


async def read_batch(wire: Wire, stream: str, subject: str, start: int) -> list[Stored]:
    """The next messages of a subject from a sequence on, by direct get; none when the stream allows no direct get."""
    found: list[Stored] = []

    def part(headers: bytes | None, data: bytes) -> bool:
        if status(headers) or headers is None:
            return True
        found.append(stored(headers, data))
        return False

    body = _encode({"seq": start, "next_by_subj": subject, "batch": _READ_BATCH})
    try:
        await wire.ask(f"{API}DIRECT.GET.{stream}", body, _TIMEOUT_S, part)
    except NoResponders:
        return []
    return found


async def last_direct(wire: Wire, stream: str, subject: str) -> Stored | None:
    """The last message of a subject from any replica: cheap, and perhaps not the newest.

    Raises:
        StreamMissing: there is no such stream, or none that allows this.
    """
    kept: list[bytes] = []

    def part(headers: bytes | None, data: bytes) -> bool:
        if headers is not None:
            kept.append(headers)
        return True

    try:
        data = await wire.ask(f"{API}DIRECT.GET.{stream}.{subject}", b"", _TIMEOUT_S, part)
    except NoResponders:
        raise StreamMissing(f"{stream}: nobody answers a direct get", 503) from None
    if not kept or status(kept[0]):
        return None
    return stored(kept[0], data)


def stored(headers: bytes, data: bytes) -> Stored:
    """The message inside an answer to a direct get."""
    when = (value(headers, b"Nats-Time-Stamp") or b"").decode()
    subject = (value(headers, b"Nats-Subject") or b"").decode()
    return Stored(number(headers, b"Nats-Sequence"), time_ns(when) // 1_000_000, subject, data, parse(headers))
