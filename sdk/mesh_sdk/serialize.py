"""Values to JSON and back, by Pydantic, with everything that can be looked up fetched once.

Rule: what goes wrong here says which type, of what, and carries Pydantic's own message; nothing bare reaches a user.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic import PydanticUserError, TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError, from_json, to_json

from mesh_sdk.errors import DefinitionError, InvalidInput, InvalidOutput, MeshError, PayloadTooLarge
from mesh_sdk.protocol.codec import PAYLOAD_BYTES_MAX

Parse = Callable[[bytes], Any]
Dump = Callable[[Any], bytes]

UNTYPED = Any
"""Stands for "no annotation": plain JSON values."""


def is_untyped(annotation: object) -> bool:
    """Whether values of this annotation are plain JSON values."""
    return annotation is Any or annotation is object


def parser(annotation: Any, what: str, error: type[MeshError] = InvalidInput) -> Parse:
    """Make the function that reads JSON into a value of a type.

    Args:
        annotation: any type that Pydantic knows; `Any` for plain JSON values.
        what: names the value in messages, e.g. `input of step 'charge:charge'`.
        error: what the function raises.

    Returns:
        A function of bytes; it raises `error` with Pydantic's message.

    Raises:
        DefinitionError: when Pydantic can't use the annotation.
    """
    if is_untyped(annotation):
        return _plain_parser(what, error)
    validate = adapter(annotation, what).validator.validate_json

    def parse(data: bytes) -> Any:
        try:
            return validate(data)
        except ValidationError as invalid:
            raise error(f"{what} is invalid: {message_of(invalid)}") from invalid

    return parse


def _plain_parser(what: str, error: type[MeshError]) -> Parse:
    def parse(data: bytes) -> Any:
        try:
            return from_json(data)
        except ValueError as invalid:
            raise error(f"{what} is no JSON: {invalid}") from invalid

    return parse


def dumper(annotation: Any, what: str, error: type[MeshError] = InvalidOutput) -> Dump:
    """Make the function that validates a value against a type and writes it as JSON.

    Aliases are used as in Pydantic's own JSON schema, so that what is written can be read again; NaN and infinities
    become null, as in Pydantic.

    Args:
        annotation: any type that Pydantic knows; `Any` for whatever can be JSON (datetime, UUID, dataclasses… too).
        what: names the value in messages, e.g. `output of step 'charge:charge'`.
        error: what the function raises for a value that does not pass.

    Returns:
        A function of the value. It raises `error`, or `PayloadTooLarge` above the size that travels.

    Raises:
        DefinitionError: when Pydantic can't use the annotation.
    """
    if is_untyped(annotation):
        return _bounded(lambda value: to_json(value, inf_nan_mode="null"), what, error)
    types = adapter(annotation, what)
    validate = types.validator.validate_python
    serialize = types.serializer.to_json
    return _bounded(lambda value: serialize(validate(value), by_alias=True), what, error)


def _bounded(write: Dump, what: str, error: type[MeshError]) -> Dump:
    def dump(value: Any) -> bytes:
        try:
            data = write(value)
        except ValidationError as invalid:
            raise error(f"{what} is invalid: {message_of(invalid)}") from invalid
        except (PydanticSerializationError, ValueError, TypeError, RecursionError) as invalid:
            raise error(f"{what} is {_type_name(value)}, which can't be written as JSON: {invalid}") from invalid
        if len(data) > PAYLOAD_BYTES_MAX:
            raise PayloadTooLarge(
                f"{what} has {len(data):,} bytes as JSON, the mesh carries at most {PAYLOAD_BYTES_MAX:,}: "
                "store it elsewhere and pass a reference to it"
            )
        return data

    return dump


def adapter(annotation: Any, what: str) -> TypeAdapter[Any]:
    """Pydantic's view of a type.

    Raises:
        DefinitionError: when it has none.
    """
    try:
        types: TypeAdapter[Any] = TypeAdapter(annotation)
        types.rebuild()
    except (PydanticUserError, NameError) as error:  # a schema that can't be made, a name that can't be resolved
        raise DefinitionError(f"{what}: Pydantic can't use the type {annotation!r}: {_first_line(error)}") from error
    return types


def message_of(invalid: ValidationError) -> str:
    """Pydantic's message on one line, without links."""
    errors = invalid.errors(include_url=False, include_context=False)
    parts = [f"{_place(error['loc'])}: {error['msg']} (got {_short(error['input'])})" for error in errors]
    return f"{len(errors)} validation error{'s' if len(errors) > 1 else ''} for {invalid.title}: " + "; ".join(parts)


def _place(location: tuple[int | str, ...]) -> str:
    return ".".join(str(part) for part in location) or "value"


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _type_name(value: object) -> str:
    kind = type(value)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
