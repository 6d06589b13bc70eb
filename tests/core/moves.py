"""Watches every change of a step's and a run's state, and holds it to the tables of moves."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from mesh.core import loading as loads_images
from mesh.core import run, step

STEP_MOVES: set[tuple[str, str]] = set()
"""Every move of a step that was seen since the process began."""
RUN_MOVES: set[tuple[str, str]] = set()


def _watched(name: str, default: str, moves: dict[str, frozenset[str]], seen: set[tuple[str, str]], loading: list[bool]) -> property:
    place = f"_{name}"

    def get(thing: Any) -> str:
        return thing.__dict__.get(place, default)

    def change(thing: Any, new: str) -> None:
        old = get(thing)
        if not loading:
            assert new in moves[old], f"{type(thing).__name__} goes from {old} to {new}: the table has no such move"
            seen.add((old, new))
        thing.__dict__[place] = new

    return property(get, change)


@contextmanager
def watched(patch: pytest.MonkeyPatch) -> Iterator[None]:
    """A move that is in no table fails the test, within this block."""
    loading: list[bool] = []
    load = loads_images._Loader._run

    def loads(loader: Any, value: Any) -> Any:
        loading.append(True)  # a state that is loaded is as it was: no move
        try:
            return load(loader, value)
        finally:
            loading.pop()

    patch.setattr(loads_images._Loader, "_run", loads)
    patch.setattr(step.Step, "state", _watched("state", step.PENDING, step.MOVES, STEP_MOVES, loading))
    patch.setattr(run.Run, "status", _watched("status", run.LIVE, run.MOVES, RUN_MOVES, loading))
    yield
