"""Structs as other minor versions write them: shorter ones, that lack what came later, and longer ones, that have more."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
from msgspec import Raw, Struct

LATER: tuple[Any, ...] = ("of a later minor", {"x": [1, None]})


def structs_in(value: Any) -> Iterator[Struct]:
    """A struct and everything in it that is one."""
    if isinstance(value, Struct):
        yield value
        for name in value.__struct_fields__:
            yield from structs_in(getattr(value, name))
    elif isinstance(value, list | tuple):
        for each in value:
            yield from structs_in(each)


def has_default(field: msgspec.structs.FieldInfo) -> bool:
    return not field.required


def default(field: msgspec.structs.FieldInfo) -> Any:
    return field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()


def longer(value: Any) -> Any:
    """JSON of it with further elements at the end of every array that is a struct."""
    return _written(value, lambda struct, parts: [*parts, *LATER])


def shortest(value: Any) -> Any:
    """JSON of it without any trailing field that has its default."""
    return _written(value, _shortened)


def shorter(struct: Struct) -> Iterator[tuple[int, bytes]]:
    """JSON of it with fewer and fewer fields, as long as those that are missing have a default; and how many there are."""
    parts = msgspec.json.decode(msgspec.json.encode(struct), type=list[Raw])
    fields = msgspec.structs.fields(struct)
    tags = len(parts) - len(fields)
    for count in range(len(fields), -1, -1):
        yield count, msgspec.json.encode(parts[: tags + count])
        if count and not has_default(fields[count - 1]):
            return


def _shortened(struct: Struct, parts: list[Any]) -> list[Any]:
    for field in reversed(msgspec.structs.fields(struct)):
        if not has_default(field) or getattr(struct, field.name) != default(field):
            break
        parts = parts[:-1]
    return parts


def _written(value: Any, change: Any) -> Any:
    if isinstance(value, Struct):
        tag = value.__struct_config__.tag
        parts = [_written(getattr(value, name), change) for name in value.__struct_fields__]
        return change(value, [tag, *parts] if tag else parts)
    if isinstance(value, list | tuple):
        return [_written(each, change) for each in value]
    return value
