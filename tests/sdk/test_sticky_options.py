"""`sticky=` and `sticky_timeout=`: what is a strategy, what may be waited for, and what is refused where it is written."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from mesh_sdk import Context, DefinitionError, Mesh, StickyStrategy
from mesh_sdk.options import read_workflow

mesh = Mesh()


class Looks:
    """Like a strategy, to whoever looks at its text only."""

    def __str__(self) -> str:
        return "SOFT"


def work(ctx: Context) -> None: ...


@pytest.mark.parametrize(
    "sticky", ["soft", "Hard", " SOFT", "", "MEDIUM", "StickyStrategy.SOFT", True, False, 1, 0, Looks(), ["SOFT"], StickyStrategy]
)
def test_what_is_no_strategy(sticky: Any) -> None:
    for define in (lambda: mesh.task(sticky=sticky)(work), lambda: mesh.workflow(name="w", sticky=sticky)):
        with pytest.raises(DefinitionError) as refused:
            define()
        assert repr(sticky) in str(refused.value)
        assert "use StickyStrategy.SOFT or StickyStrategy.HARD" in str(refused.value)
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize("strategy", StickyStrategy)
def test_a_strategy_is_also_its_exact_value(strategy: StickyStrategy) -> None:
    assert read_workflow({"sticky": strategy}, "w").sticky is strategy
    assert read_workflow({"sticky": strategy.value}, "w").sticky is strategy  # type: ignore[typeddict-item]


@pytest.mark.parametrize(
    "timeout",
    [0, 0.0, "0s", -1, "-1s", timedelta(0), timedelta(seconds=-1), "soon", "", True, float("nan"), float("inf"), [5], "99999999h"],
)
def test_a_sticky_timeout_that_cannot_be(timeout: Any) -> None:
    with pytest.raises(DefinitionError, match=r"^sticky_timeout of task 'work' is ") as refused:
        mesh.task(sticky=StickyStrategy.SOFT, sticky_timeout=timeout)(work)
    assert repr(timeout) in str(refused.value)


@pytest.mark.parametrize(
    ("sticky", "told"), [(None, "this is not sticky"), (StickyStrategy.HARD, "this is HARD"), ("HARD", "this is HARD")]
)
def test_only_soft_has_a_sticky_timeout(sticky: Any, told: str) -> None:
    with pytest.raises(DefinitionError, match=told) as refused:
        mesh.task(sticky=sticky, sticky_timeout="1s")(work)
    assert str(refused.value).startswith("sticky_timeout='1s' of task 'work': only sticky=StickyStrategy.SOFT has one")
    mesh.task(sticky=sticky, sticky_timeout=None)(work)


@pytest.mark.parametrize(
    ("timeout", "milliseconds"), [(None, 5_000), ("250ms", 250), (2, 2_000), (0.0001, 1), (timedelta(minutes=1), 60_000)]
)
def test_sticky_timeouts(timeout: Any, milliseconds: int) -> None:
    assert read_workflow({"sticky": StickyStrategy.SOFT, "sticky_timeout": timeout}, "w").sticky_timeout_ms == milliseconds
