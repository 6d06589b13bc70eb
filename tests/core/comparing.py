"""What tests of the core compare by."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import msgspec

from mesh.core.line import AGED_MS
from mesh.core.records import Fact
from mesh.core.step import Step


def order_of(step: Step) -> tuple[int, int, int]:
    """The order in which waiting steps go out."""
    return (-step.priority, step.run.number, step.mark)


def may_go_before(out: Step, step: Step, now: int) -> bool:
    """Whether a step rightly went out while another one waits: it comes first in order, or it has waited for too long."""
    if out.priority == step.priority:
        return order_of(step) > order_of(out)
    return out.priority > step.priority or out.ready_at + (step.priority - out.priority) * AGED_MS <= now


def once(things: Iterable[object]) -> None:
    """Nothing is there twice."""
    twice = [thing for thing, count in Counter(things).items() if count > 1]
    assert not twice, twice[:5]


def encoded(facts: list[Fact]) -> list[bytes]:
    """Facts, so that they can be compared."""
    return [msgspec.json.encode(fact) for fact in facts]
