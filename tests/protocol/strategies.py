"""Values of the wire contract, made by hypothesis from the types of the records themselves."""

from __future__ import annotations

import os
from functools import cache
from types import NoneType
from typing import Any, get_args, get_origin

import msgspec
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from msgspec import Raw

from mesh_sdk.protocol import records
from mesh_sdk.protocol.codec import FrameCodec, lane_frames, notice_frames, report_frames, trigger_frames
from mesh_sdk.protocol.records import LaneFrame, NoticeFrame, ReportFrame, TriggerFrame

settings.register_profile("bounded", derandomize=True, deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))
settings.register_profile("long", deadline=None, max_examples=2000, suppress_health_check=list(HealthCheck))
settings.load_profile(os.environ.get("MESH_HYPOTHESIS", "bounded"))

CODECS: dict[type[msgspec.Struct], FrameCodec[Any]] = {
    TriggerFrame: trigger_frames,
    ReportFrame: report_frames,
    LaneFrame: lane_frames,
    NoticeFrame: notice_frames,
}

words = st.sampled_from(["", "a", "w1", "größe", "two words", '"', "\x00", "\U0001f600", "0" * 32])
numbers = st.sampled_from([0, 1, -1, 7, 2**53, -(2**53)])
scalars = st.none() | st.booleans() | numbers | st.just(0.5) | words
json = scalars | st.lists(scalars, max_size=3) | st.dictionaries(words, scalars | st.lists(scalars, max_size=2), max_size=2)

_PLAIN: dict[Any, st.SearchStrategy[Any]] = {
    str: words,
    int: numbers,
    float: st.sampled_from([0.0, 0.5, -2.0, 1e300]),
    bool: st.booleans(),
    NoneType: st.none(),
    Raw: json.map(lambda value: Raw(msgspec.json.encode(value))),
}


@cache
def of(kind: Any) -> st.SearchStrategy[Any]:
    """Any value of a type that stands in a record; small ones, because the shape is what matters."""
    if kind in _PLAIN:
        return _PLAIN[kind]
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is list:
        return st.lists(of(arguments[0]), max_size=3)
    if origin is dict:
        return st.dictionaries(of(arguments[0]), of(arguments[1]), max_size=2)
    if origin is tuple and arguments[-1] is ...:
        return st.lists(of(arguments[0]), max_size=3).map(tuple)
    if origin is tuple:
        return st.tuples(*map(of, arguments))
    if arguments:
        return st.one_of(*map(of, arguments))
    return st.builds(kind, **{field.name: of(field.type) for field in msgspec.structs.fields(kind)})


@cache
def frames(kind: type[msgspec.Struct]) -> st.SearchStrategy[Any]:
    """Any frame of this version."""
    fields = {field.name: of(field.type) for field in msgspec.structs.fields(kind)}
    return st.builds(kind, **{**fields, "version": st.just(records.VERSION)})
