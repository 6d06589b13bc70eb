"""Encoding and decoding of frames: whole frames fast, record by record when one of them is bad. Pure.

Rule: bytes from the wire never raise anything but `BadFrame`, and one bad record never takes its neighbours along.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

import msgspec
from msgspec import Raw

from mesh_sdk.protocol import beats, records
from mesh_sdk.protocol.records import VERSION, LaneFrame, NoticeFrame, ReportFrame, TriggerFrame

Frame = TypeVar("Frame", bound=msgspec.Struct)
Value = TypeVar("Value")
Beat = TypeVar("Beat", beats.LeaderBeat, beats.WorkerBeat)

PAYLOAD_BYTES_MAX = 512 * 1024
"""The largest input, output or error that travels."""

FRAME_BYTES_MAX = 256 * 1024
"""A sender closes a frame before it grows past this, unless one record alone does; a server's usual max_payload is 1 MiB."""

FRAME_RECORDS_MAX = 512

encode: Callable[[Any], bytes] = msgspec.json.Encoder().encode


class BadFrame(msgspec.DecodeError):
    """The bytes are no frame of this version; the message says why."""


SPARE_LEVELS = 100
"""So much deeper nested, or on a stack so much higher, what was taken can be read again: within frames, the journal and images."""

_SHORT = 400
"""Bytes that are never nested deeply."""


def read_sparingly(decode: Callable[[bytes], Value], data: bytes, levels: int = SPARE_LEVELS) -> Value:
    """Decode JSON that somebody else is to read again, with so much less of the stack than there is.

    Raises:
        RecursionError: it is nested too deeply for that.
    """
    if not levels or len(data) < _SHORT:
        return decode(data)
    return read_sparingly(decode, data, levels - 1)


class FrameCodec(Generic[Frame]):
    """Decodes one kind of frame.

    Args:
        frame: the frame's struct; its last required field is `records`.
        record: the union of its records.
        spare: what its receiver leaves of the stack, so that what it takes can be read again by whoever it goes on to.
    """

    def __init__(self, frame: type[Frame], record: Any, *, spare: int = 0) -> None:
        self._spare = spare
        self._frame = msgspec.json.Decoder(frame).decode
        self._record = msgspec.json.Decoder(record).decode
        self._loose = msgspec.json.Decoder(list[Raw]).decode
        self._type = frame
        self._place = frame.__struct_fields__.index("records")

    def decode(self, data: bytes) -> tuple[Frame, list[tuple[int, str]]]:
        """Decode a frame.

        Returns:
            The frame with every record that could be read, and `(index, reason)` for each that couldn't. With bad
            records the good ones keep their order, but not their index.

        Raises:
            BadFrame: when the frame itself can't be read, or is of another version.
        """
        try:
            frame = read_sparingly(self._frame, data, self._spare)
            str(data, "utf-8")  # payloads are not looked into, and would be believed
        except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError, RecursionError):
            return self._decode_loosely(data)
        if frame.version != VERSION:  # type: ignore[attr-defined]
            raise BadFrame(f"version {frame.version!r} of the wire contract, this is version {VERSION}")  # type: ignore[attr-defined]
        return frame, []

    def _decode_loosely(self, data: bytes) -> tuple[Frame, list[tuple[int, str]]]:
        try:
            parts = self._loose(data)
            version = msgspec.json.decode(parts[0]) if parts else None
            if version != VERSION:
                raise BadFrame(f"version {version!r} of the wire contract, this is version {VERSION}")
            raws = msgspec.json.decode(parts[self._place], type=list[Raw])
            head = list(parts)
            head[self._place] = Raw(b"[]")
            frame = self._frame(msgspec.json.encode(head))
        except BadFrame:
            raise
        except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError, RecursionError, IndexError) as error:
            raise BadFrame(f"not a {self._type.__name__}: {error}") from None
        good: list[Any] = []
        bad: list[tuple[int, str]] = []
        for index, raw in enumerate(raws):
            try:
                str(raw, "utf-8")
                good.append(read_sparingly(self._record, bytes(raw), self._spare))
            except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError, RecursionError) as error:
                bad.append((index, str(error)))
        frame.records = good  # type: ignore[attr-defined]
        return frame, bad


def _beats(kind: type[Beat]) -> Callable[[bytes], Beat]:
    decoder = msgspec.json.Decoder(kind)

    def decode(data: bytes) -> Beat:
        try:
            beat = decoder.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise BadFrame(f"not a {kind.__name__}: {error}") from None
        if beat.version != VERSION:
            raise BadFrame(f"version {beat.version!r} of the wire contract, this is version {VERSION}")
        return beat

    return decode


trigger_frames = FrameCodec(TriggerFrame, records.Trigger, spare=SPARE_LEVELS)
report_frames = FrameCodec(ReportFrame, records.Report, spare=SPARE_LEVELS)
lane_frames = FrameCodec(LaneFrame, records.Order)
notice_frames = FrameCodec(NoticeFrame, records.Notice)
decode_leader_beat = _beats(beats.LeaderBeat)
decode_worker_beat = _beats(beats.WorkerBeat)
