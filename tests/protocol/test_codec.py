"""Frames: what is written is read back, and whatever else arrives is a `BadFrame` or costs the bad record alone."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh_sdk.protocol.codec import BadFrame, FrameCodec, encode
from mesh_sdk.protocol.records import VERSION, Assign, Finished, LaneFrame, Record, ReportFrame, Start, TriggerFrame
from tests.protocol.strategies import CODECS, frames, json

KINDS = pytest.mark.parametrize(("kind", "codec"), list(CODECS.items()), ids=[kind.__name__ for kind in CODECS])


@KINDS
@given(data=st.data())
def test_a_frame_is_read_as_it_was_written(kind: type[msgspec.Struct], codec: FrameCodec[Any], data: st.DataObject) -> None:
    written = encode(data.draw(frames(kind)))
    read, bad = codec.decode(written)
    assert not bad
    assert encode(read) == written


@KINDS
@given(data=st.binary(max_size=200) | json.map(encode))
def test_bytes_of_any_kind_raise_nothing_but_bad_frame(kind: type[msgspec.Struct], codec: FrameCodec[Any], data: bytes) -> None:
    with suppress(BadFrame):
        assert isinstance(codec.decode(data)[0], kind)


@KINDS
@given(data=st.data(), records=st.lists(json, max_size=4))
def test_records_of_any_kind_raise_nothing(
    kind: type[msgspec.Struct], codec: FrameCodec[Any], data: st.DataObject, records: list[object]
) -> None:
    frame = data.draw(frames(kind))
    frame.records = records
    read, bad = codec.decode(encode(frame))
    assert len(read.records) + len(bad) == len(records)
    assert all(isinstance(record, Record) for record in read.records)


@KINDS
@given(data=st.data(), places=st.lists(st.tuples(st.integers(0, 5), json), min_size=1, max_size=3))
def test_a_bad_record_takes_no_neighbour_along(
    kind: type[msgspec.Struct], codec: FrameCodec[Any], data: st.DataObject, places: list[tuple[int, object]]
) -> None:
    frame = data.draw(frames(kind))
    good = [encode(record) for record in frame.records]
    mixed: list[object] = list(frame.records)
    for place, thing in places:
        mixed.insert(place, ["no such record", thing])
    frame.records = mixed
    read, bad = codec.decode(encode(frame))
    assert [encode(record) for record in read.records] == good
    assert [index for index, _ in bad] == [index for index, record in enumerate(mixed) if isinstance(record, list)]
    assert all(reason for _, reason in bad)


@KINDS
@given(data=st.data(), cut=st.floats(0, 1, exclude_max=True))
def test_half_a_frame_is_a_bad_frame(kind: type[msgspec.Struct], codec: FrameCodec[Any], data: st.DataObject, cut: float) -> None:
    written = encode(data.draw(frames(kind)))
    with pytest.raises(BadFrame):
        codec.decode(written[: int(cut * len(written))])


@KINDS
@pytest.mark.parametrize("version", [0, 2, -1, None, "1", 1.5, [1]])
def test_another_version_is_refused_and_named(kind: type[msgspec.Struct], codec: FrameCodec[Any], version: object) -> None:
    with pytest.raises(BadFrame, match="version"):
        codec.decode(encode([version, *[""] * 5]))


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"null", b"1", b"{}", b"[1]", b"[1,", b"\xff\xfe", b"[" * 100_000, b'[1,"c",[' + b"[" * 100_000]
)
def test_these_are_no_frames(data: bytes) -> None:
    for codec in CODECS.values():
        with pytest.raises(BadFrame):
            codec.decode(data)


def test_fields_and_elements_that_came_later_are_ignored() -> None:
    data = b'[1,"c",[["start","r","w",{"a":1},0,null,"",0,"",[],"new field",{"x":[]}]],0,"new element"]'
    frame, bad = CODECS[TriggerFrame].decode(data)
    assert not bad
    assert frame.records == [Start("r", "w", msgspec.Raw(b'{"a":1}'))]


def test_fields_that_are_not_there_have_their_defaults() -> None:
    frame, bad = CODECS[TriggerFrame].decode(b'[1,"c",[["start","r","w",null]]]')
    assert not bad
    assert (frame.resent, frame.records[0].priority, frame.records[0].metadata) == (0, 0, None)


def test_a_required_field_that_is_not_there_costs_that_record() -> None:
    frame, bad = CODECS[ReportFrame].decode(b'[1,"w1","i1",[["finished","r",0,1,"t"],["accepted","r",0,1,"t"]]]')
    assert len(frame.records) == 1
    assert bad[0][0] == 0
    assert "length" in bad[0][1]


def test_a_payload_travels_untouched() -> None:
    payload = b'{"b":1,  "a":1.0e0,"\\u00e9":"\\ud83d\\ude00"}'
    frame, _ = CODECS[ReportFrame].decode(encode(ReportFrame(VERSION, "w", "i", [Finished("r", 0, 1, "t", msgspec.Raw(payload))])))
    assert bytes(frame.records[0].output) == payload


def test_records_of_another_kind_of_frame_are_bad() -> None:
    order = Assign("r", 0, 1, "t", "w", "s", msgspec.Raw(b"1"), {})
    frame, bad = CODECS[ReportFrame].decode(encode([VERSION, "w", "i", [order]]))
    assert not frame.records
    assert "assign" in bad[0][1]
    assert CODECS[LaneFrame].decode(encode([VERSION, 1, [order]]))[1] == []
