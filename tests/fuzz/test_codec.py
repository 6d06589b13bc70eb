"""The codec against bytes of every kind: nothing but `BadFrame`, no good record lost, and every record back as it was.

What is tested follows from the types of the records themselves: a new record, field or frame is covered as it stands there.
"""

from __future__ import annotations

import random
from inspect import getmembers, isclass
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct

from mesh.core import records as facts
from mesh.core.inputs import SELF, Sender, Unreadable
from mesh.core.records import JournalFrame
from mesh.scheduler.inbox import MESSAGE_BYTES_MAX, Inbox, Source
from mesh.scheduler.journal import decode_frame, encode_frame
from mesh_sdk.protocol import definitions, records
from mesh_sdk.protocol.beats import LeaderBeat, WorkerBeat
from mesh_sdk.protocol.codec import BadFrame, FrameCodec, decode_leader_beat, decode_worker_beat, encode
from mesh_sdk.protocol.records import VERSION, Record
from mesh_sdk.protocol.subjects import Subjects
from mesh_sdk.transport.bus import Delivery
from tests.fuzz.strangers import BAD_RECORDS, TOKENS, broken, random_bytes
from tests.protocol.strategies import CODECS, frames, of

KINDS = pytest.mark.parametrize(("kind", "codec"), list(CODECS.items()), ids=[kind.__name__ for kind in CODECS])
STRUCTS = sorted(
    {
        kind
        for module in (records, definitions, facts)
        for _, kind in getmembers(module, isclass)
        if issubclass(kind, Struct) and kind not in (Struct, Record, facts.Fact)
    },
    key=lambda kind: (kind.__module__, kind.__name__),
)
BEATS = pytest.mark.parametrize(
    ("kind", "decode"), [(LeaderBeat, decode_leader_beat), (WorkerBeat, decode_worker_beat)], ids=["leader", "worker"]
)
seeds = st.integers(0, 2**32)


def fields(kind: Any) -> tuple[Any, ...]:
    """The records of a frame's union."""
    (listed,) = [get_args(field.type)[0] for field in msgspec.structs.fields(kind) if field.name == "records"]
    return get_args(listed)


# ---- what is written is read ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", STRUCTS, ids=lambda kind: f"{kind.__module__.rpartition('.')[2]}-{kind.__name__}")
@given(data=st.data())
def test_encoding_and_decoding_is_the_identity(kind: type[Struct], data: st.DataObject) -> None:
    value = data.draw(of(kind))
    read = msgspec.json.decode(encode(value), type=kind)
    assert type(read) is kind
    assert read == value
    assert encode(read) == encode(value)


def test_every_record_travels_in_a_frame() -> None:
    """Else it would be fuzzed here and nowhere read."""
    travelling = {record for kind in CODECS for record in fields(kind)}
    assert {kind for kind in STRUCTS if issubclass(kind, Record)} == travelling
    assert {kind for kind in STRUCTS if issubclass(kind, facts.Fact)} == set(fields(JournalFrame))
    tags = [kind.__struct_config__.tag for kind in (*travelling, *fields(JournalFrame))]
    assert len({(tag, index < len(travelling)) for index, tag in enumerate(tags)}) == len(tags)


@given(frame=of(JournalFrame))
def test_a_journal_frame_is_read_as_it_was_written(frame: JournalFrame) -> None:
    assert encode_frame(decode_frame(encode_frame(frame))) == encode_frame(frame)


# ---- whatever else comes --------------------------------------------------------------------------------------------------------


def check_frame(codec: FrameCodec[Any], kind: type[Struct], data: bytes) -> None:
    """`BadFrame` with a reason; or a frame of records, and a reason for each that isn't there."""
    try:
        frame, bad = codec.decode(data)
    except BadFrame as error:
        _check_reason(error)
        return
    assert isinstance(frame, kind)
    assert all(isinstance(record, fields(kind)) for record in frame.records)  # type: ignore[attr-defined]
    indexes = [index for index, _ in bad]
    assert indexes == sorted(set(indexes))
    assert all(0 <= index < len(bad) + len(frame.records) for index in indexes)  # type: ignore[attr-defined]
    assert all(reason for _, reason in bad)
    again, bad = codec.decode(encode(frame))
    assert not bad
    assert encode(again) == encode(frame)
    encode(frame).decode()  # whoever passes it on sends text


def _check_reason(error: Exception) -> None:
    assert str(error)


@KINDS
@given(data=st.data(), seed=seeds)
def test_broken_frames(kind: type[Struct], codec: FrameCodec[Any], data: st.DataObject, seed: int) -> None:
    good = encode(data.draw(frames(kind)))
    for _ in range(5):
        check_frame(codec, kind, broken(random.Random(seed), good))
        seed += 1


@KINDS
@given(seed=seeds)
def test_random_bytes(kind: type[Struct], codec: FrameCodec[Any], seed: int) -> None:
    check_frame(codec, kind, random_bytes(random.Random(seed)))


@KINDS
@given(data=st.data(), seed=seeds)
def test_every_record_that_is_good_survives_those_that_are_not(
    kind: type[Struct], codec: FrameCodec[Any], data: st.DataObject, seed: int
) -> None:
    rng = random.Random(seed)
    frame = data.draw(frames(kind))
    good = [encode(record) for record in frame.records]
    mixed = [*good, *rng.sample(BAD_RECORDS, rng.randint(1, 5))]
    order = list(range(len(mixed)))
    rng.shuffle(order)
    mine = iter(range(len(good)))
    order = [next(mine) if at < len(good) else at for at in order]  # the good ones stay in their own order
    frame.records = []
    whole = encode(frame).replace(b"[]", b"[" + b",".join(mixed[at] for at in order) + b"]", 1)
    read, bad = codec.decode(whole)
    assert [encode(record) for record in read.records] == good
    assert [index for index, _ in bad] == [place for place, at in enumerate(order) if at >= len(good)]
    assert all(reason for _, reason in bad)


@KINDS
@pytest.mark.parametrize("number", [b"9" * 40, b"9" * 5_000, b"1e999", b"-1", b"1.5", b"NaN", b'"1"', b"true", b"null", b"[[1]]", b"{}"])
def test_what_is_no_version_is_refused(kind: type[Struct], codec: FrameCodec[Any], number: bytes) -> None:
    with pytest.raises(BadFrame):
        codec.decode(b"[" + number + b',"a","b",[],[],[]]')


@KINDS
def test_a_frame_of_more_than_a_message_carries_is_read_or_refused(kind: type[Struct], codec: FrameCodec[Any]) -> None:
    frame = b'[1,"a",[],0]' if codec is CODECS[records.TriggerFrame] else b'[1,"a","b",[]]'
    if kind in (records.LaneFrame, records.NoticeFrame):
        frame = b"[1,1,[]]"
    assert codec.decode(frame)[1] == []
    large = frame.replace(b"[]", b"[" + b",".join([b'["nothing"]'] * 100_000) + b"]")
    read, bad = codec.decode(large)
    assert (len(read.records), len(bad)) == (0, 100_000)


@BEATS
@given(data=st.data(), seed=seeds)
def test_beats(kind: type[Struct], decode: Any, data: st.DataObject, seed: int) -> None:
    good = encode(data.draw(frames(kind)))
    assert encode(decode(good)) == good
    rng = random.Random(seed)
    for bytes_ in (broken(rng, good), random_bytes(rng), *(good.replace(b",", b"," + token + b",", 1) for token in TOKENS)):
        try:
            assert isinstance(decode(bytes_), kind)
        except BadFrame as error:
            _check_reason(error)


@BEATS
def test_a_beat_of_another_version_is_refused(kind: type[Struct], decode: Any) -> None:
    with pytest.raises(BadFrame, match="version 2 "):
        decode(b'[2,"a","b","c",1,1,1,1,1]' if kind is WorkerBeat else b'[2,"a",1,1]')


@given(frame=of(JournalFrame), seed=seeds)
def test_broken_journal_frames(frame: JournalFrame, seed: int) -> None:
    """A follower takes these as a frame that it can't apply, and nothing worse."""
    try:
        decode_frame(broken(random.Random(seed), encode_frame(frame)))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        _check_reason(error)


# ---- what the leader makes of it --------------------------------------------------------------------------------------------------

_heard: list[Source] = []
INBOX = Inbox(Subjects(), _heard.append)


def _check_decoded(source: Source, data: bytes, subject: str = "mesh.default.events.a") -> None:
    delivery = Delivery(5, 1_700_000_000_000, subject, data, 0, {"Mesh-Metadata": data[:100].decode(errors="replace")})
    for input, sender in source.decode(delivery):
        assert isinstance(sender, Sender)
        if isinstance(input, Unreadable):
            assert (input.sequence, bool(input.reason), sender) == (5, True, SELF)


@given(data=st.data(), seed=seeds)
def test_every_source_makes_inputs_or_rejections_of_whatever_it_reads(data: st.DataObject, seed: int) -> None:
    rng = random.Random(seed)
    for kind in (records.TriggerFrame, records.ReportFrame):
        good = encode(data.draw(frames(kind)))
        for source in INBOX.sources:
            _check_decoded(source, broken(rng, good))
            _check_decoded(source, random_bytes(rng))
            _check_decoded(source, rng.choice(BAD_RECORDS))


@pytest.mark.parametrize("source", INBOX.sources, ids=lambda source: source.name)
def test_what_is_too_large_is_not_even_looked_at(source: Source) -> None:
    data = b"[" * (MESSAGE_BYTES_MAX + 1)
    ((input, _),) = source.decode(Delivery(5, 0, "mesh.default.events.a", data, 0, None))
    assert isinstance(input, Unreadable)
    assert f"{len(data):,}" in input.reason


def test_the_version_is_what_the_tests_think() -> None:
    """Else those above that write it out would prove nothing."""
    assert VERSION == 1
