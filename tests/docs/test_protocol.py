"""`docs/protocol.md` and the records of the wire contract say the same, field by field."""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest

from mesh.core.step import ENDED, MOVES, PENDING
from mesh_sdk.protocol import beats, codec, definitions, records
from mesh_sdk.protocol.subjects import Subjects

TEXT = (Path(__file__).parents[2] / "docs/protocol.md").read_text()
COMMON = ("run", "step", "attempt", "token")
BASES = {"Record"}


class Section(NamedTuple):
    signature: str
    fields: list[str]


def structs() -> dict[str, type[msgspec.Struct]]:
    found = {}
    for module in (records, beats, definitions):
        for name, kind in inspect.getmembers(module, inspect.isclass):
            if issubclass(kind, msgspec.Struct) and kind.__module__ == module.__name__ and name not in BASES:
                found[name] = kind
    return found


def sections() -> dict[str, Section]:
    found = {}
    for name, signature, body in re.findall(r"^### (\w+)\n`(\[[^\n]*\])`\n(.*?)(?=^#|\Z)", TEXT, re.MULTILINE | re.DOTALL):
        assert name not in found, name
        found[name] = Section(signature, re.findall(r"^- `(\w+)`: ", body, re.MULTILINE))
    return found


STRUCTS = structs()
SECTIONS = sections()


def signature(kind: type[msgspec.Struct]) -> str:
    """How the page is to write the array."""
    parts = [json.dumps(kind.__struct_config__.tag)] if kind.__struct_config__.tag else []
    for field in msgspec.structs.fields(kind):
        if field.default_factory is not msgspec.NODEFAULT:
            parts.append(f"{field.name} = {json.dumps(field.default_factory())}")
        elif field.default is not msgspec.NODEFAULT:
            parts.append(f"{field.name} = {json.dumps(field.default)}")
        else:
            parts.append(field.name)
    return f"[{', '.join(parts)}]"


def test_every_record_has_its_section_and_every_section_its_record() -> None:
    assert set(SECTIONS) == set(STRUCTS)


@pytest.mark.parametrize("name", STRUCTS)
def test_the_array_is_written_as_it_travels(name: str) -> None:
    assert SECTIONS[name].signature == signature(STRUCTS[name])


@pytest.mark.parametrize("name", STRUCTS)
def test_every_field_is_explained_and_nothing_else(name: str) -> None:
    fields = list(STRUCTS[name].__struct_fields__)
    attempted = tuple(fields[: len(COMMON)]) == COMMON
    assert SECTIONS[name].fields == (fields[len(COMMON) :] if attempted else fields)


def test_versions_and_limits_are_the_codecs() -> None:
    assert f"Contract version: **{records.VERSION}**" in TEXT
    for limit in (codec.PAYLOAD_BYTES_MAX, codec.FRAME_BYTES_MAX, codec.FRAME_RECORDS_MAX):
        assert re.search(rf"\b{limit}\b", TEXT), limit


def test_every_word_of_the_contract_is_named() -> None:
    constants = {name: value for name, value in vars(records).items() if name.isupper() and isinstance(value, str)}
    unnamed = {
        name for name, value in constants.items() if f"`{value}`" not in TEXT and not re.search(rf"`[a-z_ ]*\b{value}\b[a-z_ ]*`", TEXT)
    }
    assert constants
    assert not unnamed


def test_every_stream_bucket_and_subject_is_named() -> None:
    names = vars(Subjects("ns"))
    streams = [value.removeprefix("mesh_ns_") for name, value in names.items() if name.endswith("_stream")]
    buckets = [value.replace("mesh_ns_", "mesh_<ns>_") for name, value in names.items() if name.endswith("_bucket")]
    assert len(streams) == 6
    assert len(buckets) == 5
    for name in (*streams, *buckets):
        assert f"`{name}`" in TEXT, name
    made = Subjects("ns")
    for subject in (
        made.event("<name>"),
        made.shared_lane("<pool>"),
        made.worker_lane("<worker>", "<incarnation>"),
        made.worker_push("<worker>", "<incarnation>"),
        made.done("<client>"),
        made.control("<worker>"),
        made.control_all,
        made.worker_beat("<worker>"),
        made.leader_beat,
        made.journal,
        made.report,
        made.trigger_control,
        made.lane_fence,
        made.api("<call>"),
        made.dead("<source>"),
    ):
        short = re.sub(r"\.0(?=\.|$)", ".<p>", subject.removeprefix("mesh.ns."))
        assert re.search(rf"`(mesh\.<ns>\.)?{re.escape(short)}`", TEXT), short
    assert f"`{made.pool_consumer('<pool>')}`" in TEXT


def test_the_states_of_a_step_are_drawn_from_the_table() -> None:
    lines = ["stateDiagram-v2", f"    [*] --> {PENDING}"]
    lines += [f"    {state} --> {after}" for state, afters in MOVES.items() for after in sorted(afters)]
    lines += [f"    {state} --> [*]" for state in MOVES if state in ENDED]
    drawn = "```mermaid\n" + "\n".join(lines) + "\n```"
    assert drawn in TEXT, drawn
