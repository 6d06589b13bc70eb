"""The tables of moves: every move in them happens, and (the fixture sees to it) none that is not there."""

from __future__ import annotations

from pathlib import Path

import pytest

from mesh.core import run, step
from tests.core import diagrams
from tests.core.lives import live
from tests.core.moves import RUN_MOVES, STEP_MOVES
from tests.core.workflows import chain
from tests.core.world import World

DOCUMENT = Path(__file__).parents[2] / "docs/core.md"


def _moves(table: dict[str, frozenset[str]]) -> set[tuple[str, str]]:
    return {(old, new) for old, news in table.items() for new in news}


def test_every_move_of_the_tables_happens() -> None:
    for seed in range(8):
        live(World(seed), seed, 300)
    assert _moves(step.MOVES) == STEP_MOVES
    assert _moves(run.MOVES) == RUN_MOVES


def test_no_way_leads_out_of_an_end() -> None:
    assert all(not step.MOVES[state] for state in step.ENDED)
    assert all(not run.MOVES[status] for status in run.OVER)


@pytest.mark.parametrize("state", sorted(set(step.MOVES) - step.ENDED))
def test_every_state_leads_to_an_end(state: str) -> None:
    seen, ahead = set(), {state}
    while ahead:
        seen |= ahead
        ahead = {new for old in ahead for new in step.MOVES[old]} - seen
    assert seen & step.ENDED


def test_a_move_that_is_in_no_table_is_seen() -> None:
    world = World()
    world.join("w1", [chain("one", 1)])
    id = world.start("one")
    with pytest.raises(AssertionError, match="no such move"):
        world.state.runs[id].steps[0].state = step.PENDING


def test_the_diagrams_of_the_document_are_those_of_the_tables() -> None:
    text = DOCUMENT.read_text()
    for diagram in (diagrams.of_step(), diagrams.of_run()):
        assert diagram in text, f"docs/core.md should say:\n{diagram}"
