"""Which events start which workflows."""

from __future__ import annotations

import re
import time

from hypothesis import given
from hypothesis import strategies as st

from mesh.core import triggers
from mesh.core.graph import Flow
from mesh.core.triggers import EventMatcher
from mesh_sdk.protocol.definitions import StepDefinition, WorkflowDefinition

names = st.text("ab.\n", max_size=8)
patterns = st.text("ab.\n*", max_size=8)


def matcher(**on_events: list[str]) -> EventMatcher:
    flows = [Flow(WorkflowDefinition(name, [StepDefinition("s")], on_events=found)) for name, found in on_events.items()]
    made = EventMatcher()
    made.rebuild(flows)
    return made


@given(pattern=patterns, event=names)
def test_a_star_stands_for_any_characters(pattern: str, event: str) -> None:
    wanted = re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), event, re.DOTALL) is not None
    assert matcher(w=[pattern]).workflows(event) == ["w"] * wanted


def test_a_workflow_is_started_once_and_in_the_order_of_definitions() -> None:
    found = matcher(b=["user.*", "*.created"], a=["user.created"], c=["order.*"])
    assert found.workflows("user.created") == ["b", "a"]
    assert found.workflows("order.paid") == ["c"]


def test_a_change_counts_from_the_next_event_on() -> None:
    flows = {"a": Flow(WorkflowDefinition("a", [StepDefinition("s")], on_events=["x"]))}
    made = EventMatcher()
    made.rebuild(flows.values())
    assert made.workflows("x") == ["a"]
    flows["b"] = Flow(WorkflowDefinition("b", [StepDefinition("s")], on_events=["*"]))
    made.rebuild(flows.values())
    assert made.workflows("x") == ["a", "b"]


def test_many_stars_take_no_time() -> None:
    """As a regular expression this one would take longer than the universe has."""
    found = matcher(w=["*a" * 60 + "*b"])
    began = time.process_time()
    assert found.workflows("a" * 200) == []
    assert time.process_time() - began < 1


def test_what_is_remembered_of_events_is_bounded() -> None:
    found = matcher(**{f"w{n}": ["*"] for n in range(100)})
    for n in range(3_000):
        assert len(found.workflows(f"event.{n}")) == 100
    assert sum(map(len, found._found.values())) <= triggers._REMEMBERED_MAX + 100
