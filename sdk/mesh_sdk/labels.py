"""Labels: what a worker says of itself, and which workers a step or a run wants by them.

Rule: a label is text or a number; truth values, NaN and infinities are neither.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

from mesh_sdk.errors import DefinitionError
from mesh_sdk.protocol.bounds import LABEL_CHARACTERS_MAX, LABEL_CHOICES_MAX, LABEL_NAME_CHARACTERS_MAX, LABEL_WEIGHT_MAX, LABELS_MAX
from mesh_sdk.protocol.codec import encode
from mesh_sdk.protocol.definitions import COMPARATORS, LabelDefinition
from mesh_sdk.protocol.definitions import Label as Label

WISHES_BYTES_MAX = 16 * 1024

_WHOLE_MAX = 2**63 - 1
_EQUAL = "="
_AMONG = "in"
_SYNONYMS = {"==": "=", "≠": "!=", "≤": "<=", "≥": ">="}


@dataclass(frozen=True, slots=True)
class WorkerLabel:
    """What a step wants of a worker's label.

    Attributes:
        value: what the worker's label is compared with; with the comparator `in` a list of values, one of which it must be.
            Text compares with text and numbers with numbers: across the two only `!=` holds.
        required: only workers that have it; else they are only preferred, by `weight`.
        weight: how much a worker that has it is preferred, less than 0 how much it is avoided.
        comparator: one of `= != < <= > >= in`; also `== ≠ ≤ ≥`.
    """

    value: Label | Sequence[Label]
    required: bool = False
    weight: int = 100
    comparator: str = _EQUAL


DesiredLabels = Mapping[str, WorkerLabel | Label]
"""By the names of labels; a plain value is preferred, not required."""


def read_wishes(value: object, what: str, error: type[Exception] = DefinitionError) -> tuple[LabelDefinition, ...]:
    """Read `desired_worker_labels`.

    Args:
        value: a mapping of names to `WorkerLabel`, or to plain values that are preferred.
        what: names the option in messages, e.g. `desired_worker_labels of step 'train'`.
        error: the exception to raise.

    Raises:
        error: for a name, value, comparator or weight that can't be.
    """
    if value is None:
        return ()
    if not isinstance(value, Mapping):
        raise error(f"{what} is {value!r}: use a mapping, such as {{'gpu': WorkerLabel('a100', required=True)}}")
    if len(value) > LABELS_MAX:
        raise error(f"{what} has {len(value)} labels, {LABELS_MAX} are the most")
    wishes = tuple(_wish(name, wanted, what, error) for name, wanted in value.items())
    if (size := len(encode(wishes))) > WISHES_BYTES_MAX:
        raise error(f"{what} has {size:,} bytes as JSON, {WISHES_BYTES_MAX:,} are the most")
    return wishes


def _wish(name: object, wanted: Any, what: str, error: type[Exception]) -> LabelDefinition:
    checked = _check_name(name, what, error)
    label: Any = wanted if isinstance(wanted, WorkerLabel) else WorkerLabel(wanted)
    what = f"label {checked!r} of {what}"
    comparator = _SYNONYMS.get(label.comparator, label.comparator) if isinstance(label.comparator, str) else label.comparator
    if comparator not in COMPARATORS:
        raise error(f"comparator of {what} is {comparator!r}: use one of {', '.join(COMPARATORS)}")
    if not isinstance(label.required, bool):
        raise error(f"required of {what} is {label.required!r}: use True or False")
    if isinstance(label.weight, bool) or not isinstance(label.weight, int) or abs(label.weight) > LABEL_WEIGHT_MAX:
        raise error(f"weight of {what} is {label.weight!r}: use a whole number, at most {LABEL_WEIGHT_MAX:,}")
    return LabelDefinition(checked, _wanted(label.value, comparator, what, error), comparator, label.required, label.weight)


def _wanted(value: object, comparator: str, what: str, error: type[Exception]) -> Label | tuple[Label, ...]:
    if comparator != _AMONG:
        if isinstance(value, list | tuple):
            raise error(f"{what} is {value!r}, which {comparator!r} can't compare with: use one value, or comparator='in'")
        return _check_value(value, what, error)
    if not isinstance(value, list | tuple) or not 1 <= len(value) <= LABEL_CHOICES_MAX:
        raise error(f"{what} is {value!r}: with comparator='in' use a list of 1 to {LABEL_CHOICES_MAX} values")
    return tuple(_check_value(each, what, error) for each in value)


def read_labels(value: object, what: str, error: type[Exception] = DefinitionError) -> dict[str, Label]:
    """Read what a worker says of itself.

    Args:
        value: a mapping of names to text or numbers.
        what: names the worker in messages, e.g. `worker 'trainer'`.
        error: the exception to raise.

    Returns:
        A copy.

    Raises:
        error: for a name or value that can't be.
    """
    if value is None:
        return {}
    labels = f"labels of {what}"
    if not isinstance(value, Mapping):
        raise error(f"{labels} is {value!r}: use a mapping of text to text or numbers")
    if len(value) > LABELS_MAX:
        raise error(f"{labels} has {len(value)} of them, {LABELS_MAX} are the most")
    return {_check_name(name, labels, error): _check_value(each, f"label {name!r} of {what}", error) for name, each in value.items()}


def _check_name(name: object, what: str, error: type[Exception]) -> str:
    if not isinstance(name, str) or not name.strip() or not name.isprintable() or len(name) > LABEL_NAME_CHARACTERS_MAX:
        raise error(f"{what} has a label called {name!r}: use 1 to {LABEL_NAME_CHARACTERS_MAX} printable characters")
    return name


def _check_value(value: object, what: str, error: type[Exception]) -> Label:
    if not _is_label(value):
        raise error(f"{what} is {value!r}: use text of up to {LABEL_CHARACTERS_MAX} characters, or a finite number")
    return value


def _is_label(value: object) -> TypeGuard[Label]:
    if isinstance(value, str):
        return len(value) <= LABEL_CHARACTERS_MAX and value.isprintable()
    if isinstance(value, bool):
        return False
    if isinstance(value, int):
        return abs(value) <= _WHOLE_MAX
    return isinstance(value, float) and math.isfinite(value)
