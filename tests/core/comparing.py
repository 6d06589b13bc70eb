"""What tests of the core compare by."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import msgspec

from mesh.core.line import AGED_MS
from mesh.core.records import Fact, StepReleased
from mesh.core.state import State
from mesh.core.step import READY, Step


def order_of(step: Step) -> tuple[int, int, int]:
    """The order in which waiting steps go out."""
    return (-step.priority, step.run.number, step.mark)


def may_go_before(out: Step, step: Step, beside: Iterable[Step], now: int) -> bool:
    """Whether a step rightly went out while another one waits: it comes first in order, or one of its priority has waited for too long.

    Args:
        beside: all that waited together with the two.
    """
    if out.priority == step.priority:
        return order_of(step) > order_of(out)
    since = min((other.ready_at for other in beside if other.priority == out.priority), default=out.ready_at)
    return out.priority > step.priority or min(since, out.ready_at) + (step.priority - out.priority) * AGED_MS <= now


def waited(state: State, facts: Iterable[Fact]) -> list[Step]:
    """Whatever waited, in whatever line, when these were decided."""
    attempts = (state.attempts.get(fact.token) for fact in facts if isinstance(fact, StepReleased))
    out = [attempt.step for attempt in attempts if attempt is not None]
    return out + [step for run in state.runs.values() for step in run.steps if step.state is READY]


def once(things: Iterable[object]) -> None:
    """Nothing is there twice."""
    twice = [thing for thing, count in Counter(things).items() if count > 1]
    assert not twice, twice[:5]


def encoded(facts: list[Fact]) -> list[bytes]:
    """Facts, so that they can be compared."""
    return [msgspec.json.encode(fact) for fact in facts]
