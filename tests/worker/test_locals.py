"""What a worker keeps for sticky runs: bounded, the least recently used goes first, never that of a step that runs."""

from __future__ import annotations

import pytest

from mesh_sdk.worker.locals import Entry, Locals
from mesh_sdk.worker.observer import Nobody
from mesh_sdk.worker.sticky import StickyEvents


class Counting(Nobody):
    def __init__(self) -> None:
        self.evicted: list[str] = []

    def sticky_evicted(self, workflow: str) -> None:
        self.evicted.append(workflow)


@pytest.fixture
def observer() -> Counting:
    return Counting()


@pytest.fixture
def kept(observer: Counting) -> Locals:
    return Locals(StickyEvents(observer, "w-1"), runs_max=2)


def begin(kept: Locals, run: str) -> Entry:
    entry = kept.find(run) or kept.make(run, f"flow-{run}")
    kept.hold(entry)
    return entry


def use(kept: Locals, *runs: str) -> None:
    for run in runs:
        kept.leave(begin(kept, run))


def present(kept: Locals) -> set[str]:
    return {run for run in "abcdef" if kept.find(run) is not None}


def test_the_least_recently_used_goes_first(kept: Locals, observer: Counting):
    use(kept, "a", "b", "a", "c")
    assert present(kept) == {"a", "c"}
    assert observer.evicted == ["flow-b"]
    assert len(kept) == 2


def test_what_a_running_step_uses_stays(kept: Locals, observer: Counting):
    first = begin(kept, "a")
    use(kept, "b", "c", "d")
    assert present(kept) == {"a", "d"}
    kept.leave(first)
    use(kept, "e")
    assert present(kept) == {"a", "e"}, "the end of a step is a use"


def test_more_than_the_bound_is_kept_only_while_all_of_it_is_in_use(kept: Locals, observer: Counting):
    entries = {run: begin(kept, run) for run in "abc"}
    assert len(kept) == 3
    assert not observer.evicted
    kept.leave(entries["b"])
    assert present(kept) == {"a", "c"}
    assert observer.evicted == ["flow-b"]


def test_an_entry_is_in_use_until_the_last_of_its_steps_has_ended(kept: Locals):
    entry = begin(kept, "a")
    assert begin(kept, "a") is entry
    kept.leave(entry)
    use(kept, "b", "c")
    assert present(kept) == {"a", "c"}


def test_a_dropped_entry_stays_with_the_step_that_holds_it_and_comes_to_no_other(kept: Locals):
    entry = begin(kept, "a")
    entry.values["seen"] = 1
    kept.lose("a")
    other = begin(kept, "a")
    assert entry.values == {"seen": 1}
    assert other is not entry
    assert not other.values
    kept.leave(entry)
    assert kept.find("a") is other
    use(kept, "b", "c")
    assert present(kept) == {"a", "c"}, "the end of a step with the old entry does not make the new one idle"


def test_who_lost_its_entry_was_here_until_it_goes_elsewhere(kept: Locals):
    assert not kept.was_here("a")
    use(kept, "a")
    kept.lose("a")
    assert kept.was_here("a")
    use(kept, "b", "c", "d")
    assert kept.was_here("b"), "evicted"
    kept.forget("a")
    assert not kept.was_here("a")
    use(kept, "e")
    kept.clear()
    assert len(kept) == 0
    assert not kept.was_here("b")


def test_nothing_is_lost_that_was_never_there(kept: Locals):
    kept.lose("a")
    kept.forget("b")
    assert not kept.was_here("a")
    assert len(kept) == 0
