"""Which workers a step wants, by their labels."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import msgspec

from mesh_sdk.protocol.definitions import Label, LabelDefinition, WorkflowDefinition

_COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def matches(wish: LabelDefinition, labels: Mapping[str, Label]) -> bool:
    """Whether a worker with these labels has what is wished. A label that it lacks only fulfils `!=`."""
    value = labels.get(wish.name)
    if wish.comparator == "in":
        return isinstance(wish.value, tuple) and value in wish.value
    if value is None:
        return wish.comparator == "!="
    if isinstance(value, str) is not isinstance(wish.value, str):
        return wish.comparator == "!="  # a text and a number are never equal, and have no order
    return _COMPARISONS[wish.comparator](value, wish.value)


def suits(wishes: Iterable[LabelDefinition], labels: Mapping[str, Label]) -> bool:
    """Whether a worker with these labels has all that is required."""
    return all(not wish.required or matches(wish, labels) for wish in wishes)


def weight(wishes: Iterable[LabelDefinition], labels: Mapping[str, Label]) -> int:
    """How much a worker with these labels is preferred."""
    return sum(wish.weight for wish in wishes if not wish.required and matches(wish, labels))


class Wish(NamedTuple):
    """What a step wants of its worker."""

    slots: int
    labels: tuple[LabelDefinition, ...] = ()
    sticky: bool = False
    """Its run is to be bound to the worker."""
    slots_least: int = 0
    """What the worker has at least, for other steps of a sticky run."""

    def allows(self, slots: int, labels: Mapping[str, Label]) -> bool:
        """Whether a worker with so many slots and these labels could ever run it."""
        return slots >= self.slots and slots >= self.slots_least and suits(self.labels, labels)


ANYWHERE = Wish(1)


def wishes(definition: WorkflowDefinition) -> list[Wish]:
    """What each step of a workflow wants. A sticky run wants all that its steps require, for it is to stay where it is bound."""
    found = []
    slots_least = max(step.slots for step in definition.steps)
    for step in definition.steps:
        if not definition.sticky:
            found.append(Wish(step.slots, tuple(step.labels)) if step.slots != 1 or step.labels else ANYWHERE)
            continue
        wanted = [wish for other in definition.steps for wish in other.labels if wish.required or other is step]
        found.append(Wish(step.slots, tuple(dict.fromkeys(wanted)), True, slots_least))
    return found


def overridden(wishes: Iterable[LabelDefinition], run: list[LabelDefinition]) -> tuple[LabelDefinition, ...]:
    """A step's wishes, with those of its run in place of its own for labels of the same names."""
    names = {wish.name for wish in run}
    return (*(wish for wish in wishes if wish.name not in names), *run)


def text(wish: LabelDefinition) -> str:
    """A wish as people write it: `gpu = "a100"`, `memory >= 64`, `zone in ["a","b"]`."""
    return f"{wish.name} {wish.comparator} {shown(wish.value)}"


def shown(value: Label | tuple[Label, ...]) -> str:
    """A label's value as people write it. Texts are quoted: `"64"` and 64 are never equal, and must not look alike."""
    return msgspec.json.encode(value).decode()
