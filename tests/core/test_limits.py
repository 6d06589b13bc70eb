"""Limits of what strangers can have remembered: refused with a reason, and cut where it is quoted."""

from __future__ import annotations

import msgspec
import pytest
from msgspec import Raw

from mesh.core import joining
from mesh.core.graph import EVENTS_MAX, STEPS_MAX
from mesh.core.image import encode_image, image
from mesh.core.inputs import Sender
from mesh.core.quoting import NAME_CHARACTERS_MAX, REASON_CHARACTERS_MAX, cut
from mesh.core.records import Fact, RunRefused, WorkerRefused
from mesh_sdk.protocol.bounds import LABEL_CHARACTERS_MAX, LABEL_NAME_CHARACTERS_MAX, LABELS_MAX
from mesh_sdk.protocol.definitions import StepDefinition, WorkflowDefinition
from mesh_sdk.protocol.ids import derived_run_id, run_id_time_ms
from mesh_sdk.protocol.records import Register, Registered, Spawn, Start
from tests.core.workflows import chain
from tests.core.world import World

LONG = "é" * 300_000
SENDER = Sender("w1", "1", 1)
RUN = "0" * 32


def register(*definitions: WorkflowDefinition, labels: dict[str, str | int | float] | None = None, name: str = "w") -> Register:
    return Register(name, 1, list(definitions), labels or {}, "client-w1")


def refusal(world: World, input: Register, sender: Sender = SENDER) -> str:
    """Why it is refused; the worker is told the same."""
    (fact,) = world.decide(input, sender)
    assert isinstance(fact, WorkerRefused)
    assert len(fact.reason) <= REASON_CHARACTERS_MAX
    assert world.notices[-1] == ("client-w1", Registered(cut(sender.name), cut(sender.incarnation), fact.reason))
    return fact.reason


def steps(count: int) -> list[StepDefinition]:
    return [StepDefinition(f"s{n}") for n in range(count)]


MANY_LABELS: dict[str, str | int | float] = {f"l{n}": n for n in range(LABELS_MAX + 1)}
TOO_MUCH = {
    "steps": (register(WorkflowDefinition("w", steps(STEPS_MAX + 1))), "1,001 steps"),
    "name": (register(WorkflowDefinition(LONG, steps(1))), "300,000 characters"),
    "name of a step": (register(WorkflowDefinition("w", [StepDefinition(LONG)])), "300,000 characters"),
    "version": (register(WorkflowDefinition("w", steps(1), version=LONG)), "300,000 characters"),
    "event pattern": (register(WorkflowDefinition("w", steps(1), on_events=[LONG])), "300,000 characters"),
    "event patterns": (register(WorkflowDefinition("w", steps(1), on_events=["x"] * (EVENTS_MAX + 1))), "101 patterns"),
    "metadata": (register(WorkflowDefinition("w", steps(1), metadata={"k": LONG})), "more metadata"),
    "labels": (register(chain(), labels=MANY_LABELS), "33 labels"),
    "name of a label": (register(chain(), labels={LONG: 1}), "a name of 300,000 characters: use at most 128"),
    "value of a label": (register(chain(), labels={"k": LONG}), "label 'k' of 300,000 characters: use at most 512"),
}


@pytest.mark.parametrize("what", TOO_MUCH)
def test_a_registration_of_more_than_makes_sense_is_refused(what: str) -> None:
    world = World()
    input, words = TOO_MUCH[what]
    assert words in refusal(world, input)
    assert not world.state.flows
    assert not world.state.workers


def test_what_is_just_within_the_limits_is_taken() -> None:
    world = World()
    name = "n" * NAME_CHARACTERS_MAX
    labels: dict[str, str | int | float] = {f"{n}".zfill(LABEL_NAME_CHARACTERS_MAX): "v" * LABEL_CHARACTERS_MAX for n in range(LABELS_MAX)}
    patterns = [f"event.{n}.*" for n in range(EVENTS_MAX)]
    world.decide(register(WorkflowDefinition(name, steps(STEPS_MAX), on_events=patterns, version=name), labels=labels), SENDER)
    assert list(world.state.workers) == ["w1"]
    assert world.state.flows[name].size == STEPS_MAX


def test_a_worker_may_be_called_anything_and_is_remembered_by_less() -> None:
    world = World()
    world.decide(msgspec.structs.replace(register(chain(), name=LONG), host=LONG), SENDER)
    worker = world.state.workers["w1"]
    assert worker.name == worker.host == cut(LONG)
    assert len(worker.name) == NAME_CHARACTERS_MAX


def test_there_are_only_so_many_workflows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joining, "WORKFLOWS_MAX", 3)
    world = World()
    world.decide(register(chain("a"), chain("b")), SENDER)
    assert "2 new workflows, the first 'c', beside 2 that are known" in refusal(world, register(chain("a"), chain("c"), chain("d")))
    assert list(world.state.flows) == ["a", "b"], "all of it is refused or nothing"
    world.decide(register(chain("c")), Sender("w2", "1", 1))
    assert "namespace" in refusal(world, register(chain("d")))
    world.decide(register(chain("a", 3), chain("b")), SENDER)  # known names, one of them changed
    assert world.state.flows["a"].size == 3


def test_definitions_have_only_so_many_bytes_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joining, "DEFINITIONS_BYTES_MAX", 1_000)
    world = World()
    world.decide(register(chain("a")), SENDER)
    assert "bytes together, at most 1,000" in refusal(world, register(WorkflowDefinition("b", steps(100))))
    world.decide(register(chain("b")), SENDER)
    assert list(world.state.flows) == ["a", "b"]
    world.decide(register(chain("a")), Sender("w2", "1", 1))
    assert list(world.state.workers) == ["w1", "w2"]


def test_there_are_only_so_many_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joining, "WORKERS_MAX", 2)
    world = World()
    world.join("w1", [chain()], 1)
    world.join("w2", [chain()], 1)
    assert "one more than the 2 workers" in refusal(world, register(chain()), Sender("w3", "1", 1))
    world.decide(register(chain(), name="again"), Sender("w2", world.state.workers["w2"].incarnation, 1))
    assert world.state.workers["w2"].name == "again", "one that is there may change"


# ---- what is quoted -------------------------------------------------------------------------------------------------------------

STARTS = {
    "workflow": Start(RUN, LONG, Raw(b"1")),
    "run": Start(LONG, "chain", Raw(b"1")),
    "run and workflow": Start(LONG, LONG, Raw(b"1")),
    "worker": Start(RUN, "chain", Raw(b"1"), worker=LONG),
    "worker of a sticky one": Start(RUN, "sticky", Raw(b"1"), worker=LONG),
    "key": Start(RUN, "chain", Raw(b"1"), key=LONG),
    "key and run": Start(LONG, "chain", Raw(b"1"), key="known"),
}


def _small(facts: list[Fact]) -> bool:
    return all(len(msgspec.json.encode(fact)) < 3_000 for fact in facts)


@pytest.mark.parametrize("what", STARTS)
def test_a_refused_start_is_remembered_by_little(what: str) -> None:
    world = World()
    world.join("w1", [chain("chain"), msgspec.structs.replace(chain("sticky"), sticky="SOFT")], 1)
    world.decide(Start("1" * 32, "chain", Raw(b"1"), key="known"), Sender("c", "", 1))
    size = len(encode_image(image(world.state)))
    (refused,) = world.decide(STARTS[what], Sender("c", "", 1))
    assert isinstance(refused, RunRefused)
    assert _small([refused])
    assert len(encode_image(image(world.state))) - size < 5_000
    assert world.notices[-1][0] == "c"
    assert world.decide(STARTS[what], Sender("c", "", 1)) == [], "again, nothing changes"
    world.check_followers()


def test_a_refusal_still_says_what_to_do() -> None:
    world = World()
    (refused,) = world.decide(STARTS["workflow"], Sender("c", "", 1))
    assert isinstance(refused, RunRefused)
    assert refused.message.endswith("…': check the name, or start a worker that has it")


@pytest.mark.parametrize("what", ["workflow", "sticky workflow", "position", "digest", "late"])
def test_a_refused_child_is_remembered_by_little(what: str) -> None:
    world = World()
    holder = world.join("w1", [chain("chain", 1)], 1)
    run = world.start("chain")
    (order,) = world.take(holder)
    world.accept(holder, order)
    if what == "late":
        world.cancel(run)
    position = LONG if what == "position" else "key:x"
    spawn = Spawn(
        order.run, order.step, order.attempt, order.token, position, LONG if what == "digest" else "d",
        derived_run_id(run_id_time_ms(run), run, order.name, position), LONG, Raw(b"1"), sticky=what == "sticky workflow",
    )  # fmt: skip
    size = len(encode_image(image(world.state)))
    assert _small(world.decide(spawn, holder.sender))
    assert len(encode_image(image(world.state))) - size < 5_000
    world.check_followers()


def test_a_refused_worker_is_written_down_shortly() -> None:
    world = World()
    for input, sender in (
        (register(chain()), Sender(LONG, "1", 1)),
        (register(chain()), Sender("w1", LONG, 1)),
        (msgspec.structs.replace(register(chain()), client=LONG), SENDER),
        (register(WorkflowDefinition("w", [StepDefinition(LONG, [7])])), SENDER),
    ):
        facts = world.decide(input, sender)
        assert isinstance(facts[0], WorkerRefused)
        assert _small(facts)
