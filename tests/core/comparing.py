"""What tests of the core compare by."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import msgspec

from mesh.core.records import Fact
from mesh.core.step import Step


def order_of(step: Step) -> tuple[int, int, int]:
    """The order in which waiting steps go out."""
    return (-step.priority, step.run.number, step.mark)


def once(things: Iterable[object]) -> None:
    """Nothing is there twice."""
    twice = [thing for thing, count in Counter(things).items() if count > 1]
    assert not twice, twice[:5]


def encoded(facts: list[Fact]) -> list[bytes]:
    """Facts, so that they can be compared."""
    return [msgspec.json.encode(fact) for fact in facts]
