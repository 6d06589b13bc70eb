"""Pages of runs: the same as a look at all runs at once would give, in slices that are short, whatever happens between them."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from msgspec import Raw

from mesh.core.core import Core
from mesh.core.inputs import SELF, Sender, TermBegan
from mesh.core.run import Run
from mesh.core.state import State
from mesh.scheduler import listing, lists
from mesh.scheduler.lists import Lists, Page
from mesh.scheduler.views import RunQuery, Views
from mesh_sdk.protocol import records as wire
from mesh_sdk.protocol.definitions import StepDefinition, WorkflowDefinition

T0 = 1_700_000_000_000
RUNS_A_SLICE_MAX = 2_500
MIB = 1024 * 1024
STATUSES = ["queued", "running", "waiting", "succeeded", "failed", "cancelled"]
WORKER = Sender("w1", "1")


class Leader:
    """A core whose one worker ends the runs that it is told to."""

    def __init__(self, slots: int = 0, finished_max: int = 1_000) -> None:
        self.state = State(finished_max)
        tokens = itertools.count()
        self.core = Core(self.state, lambda: f"t{next(tokens)}")
        self.now = T0
        self.ids = itertools.count(1)
        self.views = Views(self.core, lambda worker: None, lambda: self.now)
        definitions = [
            WorkflowDefinition("one", [StepDefinition("a")]),
            WorkflowDefinition("two", [StepDefinition("a"), StepDefinition("b")]),
        ]
        self.decide(TermBegan("me"), SELF)
        self.decide(wire.Register("w", slots, definitions, {}, "cw"), WORKER)

    def decide(self, input: Any, sender: Sender) -> None:
        self.core.begin(self.now)
        self.core.decide(input, sender)
        self.core.take()

    def start(self, workflow: str = "one", input: bytes = b"1", **options: Any) -> str:
        run = f"{next(self.ids):032x}"
        self.now += 10
        self.decide(wire.Start(run, workflow, Raw(input), **options), Sender("c"))
        return run

    def end(self, run: str) -> None:
        """End a run, by its worker where that has it."""
        step = self.state.runs[run].steps[0]
        if step.current is not None:
            self.decide(wire.Finished(run, 0, step.attempt, step.current.token, Raw(b"1")), WORKER)
        if run in self.state.runs:
            self.decide(wire.Cancel(run, "enough"), Sender("c"))

    def page(self, between: Callable[[], None] = lambda: None, max_payload: int = MIB, **query: Any) -> tuple[list[str], str | None]:
        page = self.views.runs(RunQuery(**query), max_payload)
        while not page.slice():
            between()
        told = json.loads(page.answer())["ok"]
        return [run["run_id"] for run in told["runs"]], told["next"]


def plain(leader: Leader, query: RunQuery) -> tuple[list[str], str | None]:
    """The page, by a look at everything at once."""

    def matches(run: Run) -> bool:
        return (
            (query.after is None or run.number < int(query.after))
            and (query.workflow is None or run.flow.name == query.workflow)
            and (query.status is None or leader.views.run(run.id)["status"] == query.status)  # type: ignore[index]
            and all((run.metadata or {}).get(key) == value for key, value in (query.metadata or {}).items())
            and (query.worker is None or any(step.worker == query.worker for step in run.steps))
            and (query.since is None or run.started_at >= query.since.timestamp() * 1000)
            and (query.until is None or run.started_at < query.until.timestamp() * 1000)
        )

    found = sorted(filter(matches, [*leader.state.runs.values(), *leader.state.finished]), key=lambda run: -run.number)
    page = found[: query.limit]
    return [run.id for run in page], str(page[-1].number) if len(found) > len(page) else None


def busy(seed: int) -> Leader:
    """Runs of every kind, ended in no order."""
    rng = random.Random(seed)
    leader = Leader(slots=20, finished_max=40)
    for n in range(150):
        leader.start(rng.choice(["one", "two", "none"]), metadata={"n": str(n % 3)} if n % 2 else None)
        if leader.state.runs and rng.random() < 0.6:
            leader.end(rng.choice(list(leader.state.runs)))
    return leader


def queries(leader: Leader, rng: random.Random) -> RunQuery:
    def moment() -> datetime:
        return datetime.fromtimestamp((T0 + 10 * rng.randint(0, 160)) / 1000, UTC)

    def maybe(value: Any) -> Any:
        return value if rng.random() < 0.4 else None

    return RunQuery(
        maybe(rng.choice(["one", "two", "none", "unknown"])), maybe(rng.choice(STATUSES)),
        maybe({"n": str(rng.randint(0, 3))}), maybe(rng.choice(["w1", "w2"])), maybe(moment()), maybe(moment()),
        rng.choice([1, 5, 100, 1_000]), maybe(str(rng.randint(0, 160))),
    )  # fmt: skip


@pytest.mark.parametrize("seed", range(5))
def test_a_page_is_that_of_a_look_at_everything(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(seed)
    leader = busy(seed)
    for _ in range(100):
        monkeypatch.setattr(listing, "SLICE_WORK", rng.choice([1, 50, 4_000]))
        query = queries(leader, rng)
        assert leader.page(**msgspec.structs.asdict(query)) == plain(leader, query), query


def test_pages_follow_each_other_without_gap_or_repeat() -> None:
    leader = busy(9)
    everything, after = [], None
    while True:
        page, after = leader.page(limit=7, after=after)
        everything += page
        if after is None:
            break
    assert everything == leader.page(limit=1_000)[0]
    assert len(everything) == len(leader.state.runs) + 40


def test_what_happens_between_slices_moves_no_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs end, start and are forgotten meanwhile: those that were there are told once, in their order."""
    monkeypatch.setattr(listing, "SLICE_WORK", 1)
    rng = random.Random(4)
    leader = busy(4)
    before, _ = plain(leader, RunQuery(limit=1_000))

    def between() -> None:
        leader.start()
        leader.end(rng.choice(list(leader.state.runs)))

    page, after = leader.page(between, limit=1_000)
    assert after is None
    assert page == [run for run in before if run in page], "in the order of their starts, none that came later"
    forgotten = set(before) - set(page)
    assert all(leader.state.find(run) is None for run in forgotten)


def test_a_page_ends_where_an_answer_is_full() -> None:
    leader = Leader()
    runs = [leader.start(input=b'"' + b"x" * 30_000 + b'"') for _ in range(20)]
    page, after = leader.page(limit=1_000, max_payload=200_000)
    assert page == runs[: -1 - len(page) : -1]
    assert len(page) == 6
    rest, _ = leader.page(limit=1_000, max_payload=200_000, after=after)
    assert rest[0] == runs[-1 - len(page)]


def test_a_run_that_no_answer_carries_says_how_to_go_on() -> None:
    leader = Leader()
    old = leader.start()
    leader.start(input=b'"' + b"x" * 30_000 + b'"')
    with pytest.raises(listing.ApiError, match="go on with after='2'"):
        leader.page(max_payload=20_000)
    assert leader.page(max_payload=20_000, after="2") == ([old], None)


def test_no_slice_is_long_however_many_runs_live() -> None:
    """By what a slice looks at, for its time is the machine's."""
    leader = Leader()
    for _ in range(20_000):
        leader.start()
    for query in (RunQuery(workflow="two"), RunQuery(status="running"), RunQuery(worker="w2")):
        page = leader.views.runs(query, MIB)
        slices = next(count for count in itertools.count(1) if page.slice())
        assert slices >= 20_000 // RUNS_A_SLICE_MAX, query


def test_a_list_that_is_told_whole_is_put_together_in_slices_too() -> None:
    leader = Leader()
    leader.decide(wire.Register("w", 1, [WorkflowDefinition(f"w{n}", [StepDefinition("a")]) for n in range(450)], {}, "cw"), WORKER)
    page = leader.views.workflows(MIB)
    assert [page.slice(), page.slice(), page.slice()] == [False, False, True]
    told = json.loads(page.answer())["ok"]
    assert [(flow["name"], flow["workers"]) for flow in told] == [("one", []), ("two", []), *[(f"w{n}", ["w1"]) for n in range(450)]]
    workers = leader.views.workers(MIB)
    assert workers.slice()
    assert [worker["id"] for worker in json.loads(workers.answer())["ok"]] == ["w1"]
    with pytest.raises(listing.ApiError, match="so many workflows that no answer carries them"):
        leader.views.workflows(10_000).slice()


# ---- one list after the other ---------------------------------------------------------------------------------------------------


class Asked:
    """Lists of a leader whose journal stands at once, or not yet."""

    def __init__(self, leader: Leader) -> None:
        self.answers: dict[str, Any] = {}
        self.held: list[Callable[[], None]] = []
        self.hold = False
        begin: dict[str, Callable[[bytes], Page]] = {
            "runs.list": lambda data: leader.views.runs(msgspec.json.decode(data or b"{}", type=RunQuery), MIB)
        }
        self.lists = Lists(begin, self._ask, lambda to, data: self.answers.__setitem__(to, json.loads(data)))
        self.lists.start()

    def _ask(self, question: Callable[[int], Callable[[], None]]) -> None:
        answer = question(7)
        if self.hold:
            self.held.append(answer)
        else:
            answer()

    async def answer(self, to: str) -> Any:
        async with asyncio.timeout(10):
            while to not in self.answers:
                await asyncio.sleep(0.001)
        return self.answers[to]


@pytest.mark.timeout(30)
async def test_lists_are_answered_in_turn_and_only_so_many_wait() -> None:
    leader = busy(1)
    asked = Asked(leader)
    try:
        for n in range(lists.WAITING_MAX + 2):
            asked.lists.hear("runs.list", f"to{n}", b'{"limit":3}')
        for n in (lists.WAITING_MAX, lists.WAITING_MAX + 1):
            assert (await asked.answer(f"to{n}"))["error"]["type"] == "Unavailable"
        for n in range(lists.WAITING_MAX):
            assert len((await asked.answer(f"to{n}"))["ok"]["runs"]) == 3
    finally:
        asked.lists.close()


@pytest.mark.timeout(30)
async def test_a_list_is_told_when_its_last_sequence_stands_and_a_bad_one_stops_none() -> None:
    asked = Asked(busy(1))
    try:
        for bad in (b'{"limit":"many"}', b"no json", b'{"since":"0001-01-01T00:00:00"}'):
            asked.lists.hear("runs.list", "bad", bad)
            assert (await asked.answer("bad"))["error"]["type"] == "InvalidInput"
            del asked.answers["bad"]
        asked.hold = True
        asked.lists.hear("runs.list", "good", b"")
        while not asked.held:
            await asyncio.sleep(0.001)
        assert "good" not in asked.answers
        asked.hold = False
        asked.held.pop()()
        assert (await asked.answer("good"))["ok"]["runs"]
    finally:
        asked.lists.close()
