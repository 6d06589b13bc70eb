"""Values of the wire contract, made by hypothesis from the types of the records themselves."""

from __future__ import annotations

import os
from typing import Any

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

json = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)

st.register_type_strategy(Raw, json.map(lambda value: Raw(msgspec.json.encode(value))))
st.register_type_strategy(int, st.integers(-(2**53), 2**53))
st.register_type_strategy(float, st.floats(allow_nan=False, allow_infinity=False))
st.register_type_strategy(str, st.text(st.characters(exclude_categories=["Cs"]), max_size=20))


def of(kind: type[msgspec.Struct]) -> st.SearchStrategy[Any]:
    """Any value of a struct."""
    return st.builds(kind, **{field.name: st.from_type(field.type) for field in msgspec.structs.fields(kind)})


def frames(kind: type[msgspec.Struct]) -> st.SearchStrategy[Any]:
    """Any frame of this version."""
    fields = {field.name: st.from_type(field.type) for field in msgspec.structs.fields(kind)}
    return st.builds(kind, **{**fields, "version": st.just(records.VERSION)})


for _name in dir(records):
    _kind = getattr(records, _name)
    if isinstance(_kind, type) and issubclass(_kind, msgspec.Struct):
        st.register_type_strategy(_kind, of(_kind))
