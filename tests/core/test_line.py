"""The order of waiting steps: whose turn it is, how long the urgent may pass the others, what is kept of keys."""

from __future__ import annotations

import itertools
import random
from collections import defaultdict, deque

import pytest
from msgspec import Raw

from mesh.core import line as lines
from mesh.core.graph import Flow
from mesh.core.inputs import Sender
from mesh.core.line import AGED_MS, KEYS_SWEPT, SHARE, Line, Turns
from mesh.core.records import StepReleased
from mesh.core.run import Run
from mesh.core.step import READY, SKIPPED, Step
from mesh_sdk.protocol import records as wire
from mesh_sdk.protocol.definitions import ConcurrencyDefinition, LabelDefinition, StepDefinition, WorkflowDefinition
from tests.core.world import World

FLOW = Flow(WorkflowDefinition("w", [StepDefinition("a")]))
NULL = Raw(b"null")


class Waiting:
    """Steps that wait in one line; each is served one after the other."""

    def __init__(self) -> None:
        self.line = Line()
        self.numbers = itertools.count(1)

    def step(self, key: str = "", *, weight: int = 1, priority: int = 1, at: int = 0) -> Step:
        number = next(self.numbers)
        run = Run(f"{number}", FLOW, NULL, priority, number, at)
        run.weight = weight
        if key:
            run.fair_key = ("limit", key)
        step = run.steps[0]
        step.state, step.mark, step.ready_at = READY, number, at
        return step

    def push(self, key: str = "", **options: int) -> Step:
        step = self.step(key, **options)
        self.line.push(step)
        return step

    def serve(self) -> Step:
        step = self.line.first()
        assert step is not None
        step.state = "out"
        self.line.served(step)
        return step

    def keys(self, count: int) -> str:
        return "".join((self.serve().run.fair_key or ("", "-"))[1] for _ in range(count))


def test_keys_take_turns_however_long_their_lines_are() -> None:
    waiting = Waiting()
    for key in "aaaaaabb":
        waiting.push(key)
    waiting.push("c")
    assert waiting.keys(9) == "abcabaaaa"


def test_who_comes_late_waits_for_one_turn_at_most() -> None:
    waiting = Waiting()
    for _ in range(1_000):
        waiting.push("a")
    waiting.keys(500)
    waiting.push("b")
    assert "b" in waiting.keys(2)


def test_a_weight_is_turns_in_a_round() -> None:
    waiting = Waiting()
    for _ in range(60):
        waiting.push("a", weight=3)
        waiting.push("b")
    served = waiting.keys(40)
    assert (served.count("a"), served.count("b")) == (30, 10)


def test_other_priorities_of_a_key_cost_those_who_wait_no_turn() -> None:
    waiting = Waiting()
    for _ in range(1_000):
        waiting.push("a")
    waiting.push("a", priority=9)
    assert waiting.serve().priority == 9
    waiting.push("b")
    assert "b" in waiting.keys(2)


def test_what_was_cancelled_is_not_charged() -> None:
    waiting = Waiting()
    for step in [waiting.push("a") for _ in range(1_000)]:
        step.state = SKIPPED
    for key in "bbbbba":
        waiting.push(key)
    assert "a" in waiting.keys(2)


def test_a_new_leader_begins_turns_anew() -> None:
    """What a follower has seen of them is not what its leader did: it may think that a key is many turns behind."""
    waiting = Waiting()
    for key in "aaaaaab":
        waiting.push(key)
    waiting.push()
    waiting.line._levels[1].order[1][3].turn = 10 * SHARE
    waiting.line.begin_anew()
    assert waiting.keys(8) == "ab-aaaaa"


@pytest.mark.parametrize("seed", range(10))
def test_who_comes_back_at_once_has_gained_nothing(seed: int) -> None:
    """Keys whose lines are empty for a moment, and moments at which nobody waits at all."""
    rng, waiting = random.Random(seed), Waiting()
    there = dict.fromkeys("abcd", 0)
    ahead: dict[tuple[str, str], int] = {}
    """(one, other): turns that the first has had since the other one waits, beyond those that the other one has had."""
    for _ in range(5_000):
        if rng.random() < 0.5 or not any(there.values()):
            key = rng.choice("aaabbcd")
            if not there[key]:
                ahead |= {(one, key): 0 for one in there}
            there[key] += 1
            waiting.push(key)
            continue
        (served,) = waiting.keys(1)
        for one, other in ahead:
            if there[other]:
                ahead[one, other] += (one == served) - (other == served)
                assert ahead[one, other] <= 2, f"{one} has had {ahead[one, other]} turns more than {other}, which waits"
        there[served] -= 1


def test_who_comes_back_whenever_it_was_served_gets_every_other_turn() -> None:
    waiting = Waiting()
    for _ in range(60):
        waiting.push("b")
    served = ""
    for _ in range(100):
        if not served.endswith("b"):
            waiting.push("a")
        served += waiting.keys(1)
    assert abs(served.count("a") - served.count("b")) <= 1


def test_two_that_come_back_together_each_time_get_as_much() -> None:
    waiting = Waiting()
    served = ""
    for round in range(50):
        for key in "aab" if round % 2 else "baa":
            waiting.push(key)
        served += waiting.keys(3)
        assert not waiting.line
    assert (served.count("a"), served.count("b")) == (100, 50)
    assert "aa" not in served.replace("aab", "").replace("baa", ""), "the second of one key is never before the first of another"


@pytest.mark.parametrize("key", ["", "a new one each time"])
def test_a_stream_of_newcomers_does_not_hold_up_a_key(key: str) -> None:
    waiting = Waiting()
    for _ in range(20):
        waiting.push("a")
    newcomer = None
    for number in range(50):
        if newcomer is None or newcomer.state is not READY:
            newcomer = waiting.push(key and f"{number}")
        waiting.serve()
    left = [step for step in waiting.line.waiting() if step is not newcomer]
    assert not left, "a key that waits together with one newcomer at a time is served every other time"


def test_steps_without_keys_go_by_age() -> None:
    waiting = Waiting()
    steps = [waiting.step() for _ in range(50)]
    for step in random.Random(1).sample(steps, 50):
        waiting.line.push(step)
    assert [waiting.serve() for _ in range(50)] == steps


def test_many_at_once_come_in_the_same_order() -> None:
    one, many = Waiting(), Waiting()
    keys = [random.Random(2).choice(["", "a", "b", "c"]) for _ in range(200)]
    for key in keys:
        one.push(key)
    many.line.extend([many.step(key) for key in keys])
    assert [one.serve().run.id for _ in range(200)] == [many.serve().run.id for _ in range(200)]


@pytest.mark.parametrize(("high", "low"), [(9, 1), (5, 4), (9, 8)])
def test_urgent_steps_pass_for_no_longer_than_the_stated_time(high: int, low: int) -> None:
    waiting = Waiting()
    old = waiting.push(priority=low, at=0)
    bound = (high - low) * AGED_MS
    for at in range(0, bound, bound // 20):
        waiting.push(priority=high, at=at)
        assert waiting.serve() is not old
    waiting.push(priority=high, at=bound + 1)
    assert waiting.serve() is old


def test_those_before_an_old_step_in_turn_do_not_wait_for_their_own_time() -> None:
    """Keys that come later may have earlier turns: if each let urgent steps pass for its own 80 s, the old one would for all of theirs."""
    waiting = Waiting()
    waiting.push("a", at=0)
    old = waiting.push("a", at=0)
    waiting.serve()
    for number in range(5):
        waiting.push(f"late {number}", at=1_000 * number)
    urgent = [waiting.push(priority=9, at=8 * AGED_MS + 1) for _ in range(5)]
    served = [waiting.serve() for _ in range(6)]
    assert served[-1] is old
    assert all(step.state is READY for step in urgent)


def test_no_step_is_lost_or_served_twice_whatever_is_cancelled() -> None:
    rng = random.Random(3)
    waiting = Waiting()
    there: set[Step] = set()
    for _ in range(5_000):
        what = rng.random()
        if what < 0.5 or not there:
            there.add(waiting.push(rng.choice(["", "a", "b", "c"]), priority=rng.choice([1, 5]), weight=rng.choice([1, 2])))
        elif what < 0.6:
            step = rng.choice(sorted(there, key=lambda step: step.mark))
            there.discard(step)
            step.state = SKIPPED
        else:
            there.remove(waiting.serve())
        assert bool(waiting.line) == bool(there)
    assert set(waiting.line.waiting()) == there


def test_little_is_remembered_of_keys_that_wait_no_more() -> None:
    turns = Turns()
    for number in range(20 * KEYS_SWEPT):
        turn = turns.of(("limit", f"{number}"))
        turns.take(turn, 1)
        turns.keep(("limit", f"{number}"), turn + SHARE)
        turns.take(turns.time + SHARE, 1)
    assert len(turns._next) <= KEYS_SWEPT


# ---- through the core ---------------------------------------------------------------------------------------------------

SLOTS = 4
LIMIT = [ConcurrencyDefinition(100, key="input.k")]
GROUPED = {
    "workflow": WorkflowDefinition("grouped", [StepDefinition("a")], concurrency=LIMIT),
    "step": WorkflowDefinition("grouped", [StepDefinition("a", concurrency=LIMIT)]),
}
"""What has the limit."""
FLOOD, FEW = 5_000, 20


def ideal_waits() -> dict[str, float]:
    """Mean number of rounds that each key waits if every slot goes to the next key in turn."""
    left = {"A": FLOOD, **dict.fromkeys("BCDEF", FEW)}
    ring, waits, served = deque(left), defaultdict(list), 0
    while any(left[key] for key in "BCDEF"):
        key = ring[0]
        ring.rotate(-1)
        if left[key]:
            left[key] -= 1
            waits[key].append(served // SLOTS)
            served += 1
    return {key: sum(all) / len(all) for key, all in waits.items()}


def waits_of_the_core(limited: str) -> dict[str, float]:
    world = World(finished_max=10)
    core, state = world.core, world.state
    holder = world.join("w1", [GROUPED[limited]], SLOTS)
    runs: dict[str, str] = {}
    out: list[tuple[str, str]] = []

    def decide(input: object, sender: object) -> None:
        core.decide(input, sender)  # type: ignore[arg-type]
        out.extend((fact.run, fact.token) for fact in core.take() if isinstance(fact, StepReleased))

    client = Sender("client", "", 0)
    for key in ["A"] * FLOOD + list("BCDEF") * FEW:
        run = world.run_id()
        runs[run] = key
        decide(wire.Start(run, "grouped", Raw(b'{"k":"%s"}' % key.encode())), client)
    waits, rounds, left = defaultdict(list), 0, 5 * FEW
    while left:
        served, out[:] = list(out), []
        for run, token in served:
            waits[runs[run]].append(rounds)
            left -= runs[run] != "A"
            decide(wire.Finished(run, 0, state.attempts[token].number, token, NULL), holder.sender)
        rounds += 1
    return {key: sum(all) / len(all) for key, all in waits.items()}


def _too_long(waits: dict[str, float]) -> list[str]:
    ideal = ideal_waits()
    return [key for key in "BCDEF" if waits[key] > 1.5 * ideal[key] + 1]


@pytest.mark.timeout(60)
@pytest.mark.parametrize("limited", GROUPED)
def test_a_flood_of_one_key_leaves_the_others_their_turns(limited: str) -> None:
    assert not _too_long(waits_of_the_core(limited))


@pytest.mark.timeout(60)
@pytest.mark.parametrize("limited", ["workflow", "step"])
def test_plain_age_would_not(limited: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "SHARE", 0)
    assert _too_long(waits_of_the_core(limited)) == list("BCDEF")


def test_turns_go_over_all_lines_of_a_pool() -> None:
    """One key's steps want a label, the other's don't: they wait apart, and take turns all the same."""
    plain = WorkflowDefinition("plain", [StepDefinition("a")], concurrency=[ConcurrencyDefinition(100, key="input.k", scope="s")])
    choosy = WorkflowDefinition(
        "choosy",
        [StepDefinition("a", labels=[LabelDefinition("gpu", 1, required=True)])],
        concurrency=[ConcurrencyDefinition(100, key="input.k", scope="s")],
    )
    world = World()
    holder = world.join("w1", [plain, choosy], 1, gpu=1)
    keys = {world.start("choosy", input=b'{"k":"a"}'): "a" for _ in range(30)}
    keys |= {world.start("plain", input=b'{"k":"b"}'): "b" for _ in range(30)}
    served = ""
    for _ in range(20):
        (order,) = world.take(holder)
        served += keys[order.run]
        world.finish(holder, order)
    assert 8 <= served.count("b") <= 12, served


def test_lines_that_nobody_waits_in_any_more_are_not_kept() -> None:
    world = World()
    world.join("w1", [WorkflowDefinition("w", [StepDefinition("a")])], 1, gpu=1)
    for number in range(20):
        run = world.start("w", labels=[LabelDefinition("gpu", number + 2, required=True)])
        world.cancel(run)
    world.start("w")
    assert not world.state.routes.queue("w:a").choosy
