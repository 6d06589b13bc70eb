"""What the wire, the journal and the snapshots consist of: the fields of every struct, the members of every union, the words.

Rule: arrays only grow at their end, and only by fields with a default; objects only by fields with a default; unions and
words only by new members. `breaks` names whatever else has happened between a recording and the present code.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from types import ModuleType
from typing import Any, get_args

import msgspec
from msgspec import Struct

from mesh.core import image as images
from mesh.core import records as facts
from mesh.core import run_keys
from mesh.core import step as steps
from mesh.scheduler import api, views
from mesh.store import snapshots
from mesh_sdk import binding, reads
from mesh_sdk.protocol import beats, definitions
from mesh_sdk.protocol import records as wire
from mesh_sdk.transport import objects
from mesh_sdk.worker import holder

ARRAYS: tuple[ModuleType, ...] = (wire, beats, definitions, facts, run_keys, images, snapshots, holder)
"""Modules whose structs travel, or are stored, as arrays."""
OBJECTS: tuple[ModuleType, ...] = (reads, binding, api, views, objects)
"""Modules whose structs travel as JSON objects."""
BASES = (wire.Record, facts.Fact)
MOVED = {beats.__name__: wire.__name__, run_keys.__name__: facts.__name__}
"""Modules whose structs stood in another one when they were first recorded: where they stand is no part of what travels."""
UNIONS = {
    "Trigger": wire.Trigger,
    "Report": wire.Report,
    "Order": wire.Order,
    "Notice": wire.Notice,
    "Recorded": facts.Recorded,
}
WORDS: tuple[ModuleType, ...] = (wire, definitions, facts, images, steps)
"""Modules whose constants stand in what travels."""
GROWING = ("IMAGE_VERSION",)
"""A version that may go up: whether older images can still be read the recorded snapshots tell."""

Layout = dict[str, Any]


def structs(modules: tuple[ModuleType, ...] = ARRAYS) -> Iterator[type[Struct]]:
    """Every struct that these modules define."""
    for module in modules:
        for _, kind in inspect.getmembers(module, inspect.isclass):
            if issubclass(kind, Struct) and kind.__module__ == module.__name__ and kind not in BASES:
                yield kind


def name_of(kind: type[Struct]) -> str:
    return f"{MOVED.get(kind.__module__, kind.__module__)}.{kind.__name__}"


def field_of(kind: type[Struct], field: msgspec.structs.FieldInfo) -> list[str]:
    """Its name, its type as written, and its default if it has one."""
    told = [field.name, str(kind.__annotations__[field.name])]
    if field.default_factory is not msgspec.NODEFAULT:
        told.append(repr(field.default_factory()))
    elif field.default is not msgspec.NODEFAULT:
        told.append(repr(field.default))
    return told


def layout() -> Layout:
    """All of it, of the present code, as one JSON value."""
    found: Layout = {"structs": {}, "unions": {}, "words": {}}
    for kind in structs(ARRAYS + OBJECTS):
        config = kind.__struct_config__
        fields = [field_of(kind, field) for field in msgspec.structs.fields(kind)]
        found["structs"][name_of(kind)] = {"array": config.array_like, "tag": config.tag, "fields": fields}
    for name, union in UNIONS.items():
        found["unions"][name] = sorted(kind.__struct_config__.tag for kind in get_args(union))
    for module in WORDS:
        constants = {name: value for name, value in vars(module).items() if name.isupper() and name not in GROWING}
        words = {name: value for name, value in constants.items() if isinstance(value, str | int)}
        found["words"][module.__name__] = words
    return found


def breaks(recorded: Layout, present: Layout) -> list[str]:
    """What whoever knows only the recorded layout could not read any more, or would read as something else."""
    found = []
    for name, old in recorded["structs"].items():
        new = present["structs"].get(name)
        if new is None:
            found.append(f"{name} is gone")
        elif (new["array"], new["tag"]) != (old["array"], old["tag"]):
            found.append(f"{name} has another shape or tag: {new['tag']!r}, not {old['tag']!r}")
        else:
            found += [f"{name}{broken}" for broken in _broken_fields(old, new)]
    for name, members in recorded["unions"].items():
        found += [f"{name}: {lost!r} is gone or changed" for lost in members if lost not in present["unions"].get(name, ())]
    for name, words in recorded["words"].items():
        now = present["words"].get(name, {})
        moved = {each for known in present["words"].values() for each in known.items()}
        found += [f"{name}: {word!r} is gone or changed" for word in words if not _has(now, word, words[word], moved)]
    return found


def _broken_fields(old: Layout, new: Layout) -> Iterator[str]:
    before, after = old["fields"], new["fields"]
    known = {field[0]: field for field in after}
    for place, field in enumerate(before):
        if field[0] not in known:
            yield f".{field[0]} is gone"
        elif known[field[0]][: len(field)] != field:  # one that had to be there may have got a default
            yield f".{field[0]} was {field[1:]}, is {known[field[0]][1:]}"
        elif old["array"] and after[place][0] != field[0]:
            yield f".{field[0]} has moved: place {place} is {after[place][0]}'s"
    names = {field[0] for field in before}
    for field in after:
        if field[0] not in names and len(field) == 2:
            yield f".{field[0]} is new and has no default: what was written before can't be read"


def _has(now: dict[str, Any], word: str, value: Any, moved: set[tuple[str, Any]]) -> bool:
    """Whether the word is what it was, here or, where it stands here no more, in another module."""
    return now[word] == value if word in now else (word, value) in moved
