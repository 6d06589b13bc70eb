"""A life from a seed in which everything is recorded that can be, and all that was said on the wire meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import UnionType
from typing import Any, Union, get_args, get_origin

import msgspec
from msgspec import Raw, Struct

from mesh.core.inputs import SELF, CancelsPassed, HoldingAsked, LanesLost, Sender, Unreadable
from mesh.core.records import JOURNAL_VERSION, Fact, JournalFrame, TermStarted
from mesh_sdk.protocol import beats
from mesh_sdk.protocol import records as wire
from mesh_sdk.protocol.definitions import (
    FUNCTION,
    KEY,
    ConcurrencyDefinition,
    LabelDefinition,
    RateDefinition,
    StepDefinition,
    WorkflowDefinition,
)
from mesh_sdk.protocol.records import VERSION, LaneFrame, NoticeFrame, ReportFrame, TriggerFrame
from mesh_sdk.worker import holder
from tests.compatibility.fields import structs
from tests.core.holder import Holder
from tests.core.lives import WORKFLOWS, live
from tests.core.world import T0, World

SEED = 11
STEPS = 160
FINISHED_MAX = 20
TRIGGERS = get_args(wire.Trigger)


class Heard(World):
    """A world that keeps what is journaled, frame by frame, and what is said."""

    def __init__(self, seed: int) -> None:
        self.frames: list[JournalFrame] = []
        self.said: list[Struct] = []
        self.term = 0
        super().__init__(seed, FINISHED_MAX)

    def decide(self, input: object, sender: Sender = SELF) -> list[Fact]:
        if isinstance(input, TRIGGERS):
            self.said.append(TriggerFrame(VERSION, sender.name, [input]))
        elif isinstance(input, wire.Record):
            self.said.append(ReportFrame(VERSION, sender.name, sender.incarnation, [input]))  # type: ignore[list-item]
        return super().decide(input, sender)

    def _follow(self, facts: list[Fact]) -> None:
        super()._follow(facts)
        if not facts:
            return
        sequence = len(self.frames) + 1
        if any(isinstance(fact, TermStarted) for fact in facts):
            self.term = sequence
        positions = {"reports": [sequence, 0], "start5": [sequence // 2, sequence % 3]}
        self.frames.append(JournalFrame(JOURNAL_VERSION, self.term, self.state.now, positions, facts))  # type: ignore[arg-type]

    def _deliver(self, facts: list[Fact]) -> None:
        super()._deliver(facts)
        lanes: Sequence[list[wire.Order]] = [*self.effects.shared.values(), *self.effects.private.values()]
        self.said += [LaneFrame(VERSION, self.term, list(orders)) for orders in lanes]
        self.said += [NoticeFrame(VERSION, self.term, list(notices)) for notices in self.effects.notices.values()]


SHARED = ConcurrencyDefinition(2, "GROUP_ROUND_ROBIN", "input.k", scope="k", weights={"a": 2})
OF_STEPS = msgspec.structs.replace(SHARED, scope="k of steps")
FLOWS = [
    WorkflowDefinition(
        "called",
        [StepDefinition("key", kind=KEY, slots=0, timeout_ms=10_000), StepDefinition("a")],
        concurrency=[ConcurrencyDefinition(1, "CANCEL_NEWEST", "key", FUNCTION)],
    ),
    WorkflowDefinition(
        "shared",
        [StepDefinition("a")],
        concurrency=[SHARED, ConcurrencyDefinition(1, "QUEUE_NEWEST", "input.k")],
        admission_timeout_ms=9_000,
    ),
    WorkflowDefinition("latest", [StepDefinition("a")], concurrency=[ConcurrencyDefinition(1, "CANCEL_IN_PROGRESS", "metadata.user")]),
    WorkflowDefinition(
        "bounded",
        [
            StepDefinition("a", priority=5, slots=2, concurrency=[OF_STEPS], rate_limits=[RateDefinition("input.k", 5, 60_000, "input.n")]),
            StepDefinition("b", [0], labels=[LabelDefinition("gpu", ("a100", 2), "in", True, 7), LabelDefinition("zone", "eu", weight=-3)]),
        ],
    ),
]
WIDER = msgspec.structs.replace(FLOWS[1], concurrency=[SHARED, ConcurrencyDefinition(2, "QUEUE_NEWEST", "input.k")])


def _answer_keys(world: Heard, workers: list[Holder], answer: Callable[..., None], *output: bytes) -> None:
    for worker in workers:
        for order in [order for order in world.take(worker) if order.name == "key"]:
            answer(worker, order, *output)


def _flow(world: Heard) -> None:
    """Runs wait for keys, places, rates, labels and slots, are admitted, cancelled for each other and given up; workers are steered."""
    worker = world.join("f1", FLOWS, 3, gpu="a100", zone="eu", memory=64, load=0.5)
    both = [worker, world.join("f2", FLOWS, 1)]
    for workflow in ("called", "called", "shared", "shared", "shared", "latest", "latest"):
        world.start(workflow, input=b'{"k":"a"}', metadata={"user": "7"})
    _answer_keys(world, both, world.finish, b'"x"')
    world.start("called")
    _answer_keys(world, both, world.fail)
    world.start("shared", input=b'{"no key": 1}')
    for number in (2, 2, 2):
        world.start("bounded", input=b'{"k":"b","n":%d}' % number, labels=[LabelDefinition("memory", 32, ">=", True)])
    for _ in range(2):
        world.start("shared", input=b'{"k":"z"}')  # the second is given up before the first has ended
    world.decide(wire.Steer("f2", wire.PAUSE), Sender("operator"))
    for order in world.take(worker):
        world.accept(worker, order)
    for order in list(worker.running.values())[:2]:
        world.finish(worker, order)
    world.decide(wire.Steer("f2", wire.RESUME), Sender("operator"))
    newer = [WIDER if flow.name == WIDER.name else flow for flow in FLOWS]
    world.decide(wire.Register("w", 3, newer, {"gpu": "h100", "zone": "us"}, "client-f1"), worker.sender)  # its labels have changed
    world.now += 500
    world.take_over("image")  # while runs wait for a rate
    world.pass_time(9_500)
    for order in world.take(worker):
        world.finish(worker, order)
    world.decide(wire.Steer("f2", wire.DRAIN), Sender("operator"))
    for _ in range(3):
        world.start("shared", input=b'{"k":"a"}')
        world.start("bounded", input=b'{"k":"a","n":1}', labels=[LabelDefinition("gpu", "h100", "!=")])
    for order in world.take(worker):
        world.accept(worker, order)


def lived() -> Heard:
    """The life: at random first, then whatever chance has left out."""
    world = Heard(SEED)
    live(world, SEED, STEPS, deaths=0.05)
    _flow(world)
    worker = world.join("w1", WORKFLOWS, 3)
    world.decide(wire.Register("w", 1, WORKFLOWS, {}, "client"), Sender("w1", "0"))  # older than the one that is there
    world.decide(Unreadable("reports", 7, 2, "not a record"))
    world.decide(Unreadable("start5", 8, 0, "no input", wire.Start(world.run_id(), "one", Raw(b"1"))), Sender("client"))
    world.start("no such workflow")
    world.cancel(world.run_id(), "not read yet")
    world.decide(CancelsPassed(T0 * 2))
    world.start("one", key="k")
    world.start("one", key="k")
    world.start("one", delay_ms=50)
    world.start("hard", worker="w1", metadata={"user": "7"})
    world.start("both", worker="w1")
    world.event("e.d", 1)
    world.pass_time(100)
    for order in world.take(worker):
        if order.workflow not in ("hard", "both"):  # those are claimed when the lanes are lost
            world.accept(worker, order)
            world.decide(wire.Refresh(order.run, order.step, order.attempt, order.token, 5_000), worker.sender)
    world.decide(wire.Accepted(world.run_id(), 0, 1, "no such token"), worker.sender)
    world.decide(LanesLost())
    world.decide(HoldingAsked(1))
    held = [(order.run, order.step, order.attempt, order.token) for order in worker.running.values()]
    world.decide(wire.Holding(held), worker.sender)
    world.pass_time(6_000)
    for id in ("w2", "w3"):
        world.join(id, WORKFLOWS, 2)
    world.start("both", worker="w2")
    world.pass_time(3_000)  # it waits for a worker that is full, which need not be that one any more
    world.join("roomy", WORKFLOWS, 100)
    world.start("both", worker="roomy")
    world.pass_time(3_000)  # it lies in that lane for too long
    for workflow in WORKFLOWS:
        world.start(workflow.name)
    for other in world.workers.values():
        for order in world.take(other):
            world.accept(other, order)
            world.lend(other, order)
            world.resume(other, order)
    world.decide(wire.Draining(), world.workers["w2"].sender)
    return world


def is_union(kind: Any) -> bool:
    return isinstance(kind, UnionType) or get_origin(kind) is Union


def full(kind: Any) -> Any:
    """A value of a type with something in every field; of a list of records, one of each."""
    plain: dict[Any, Any] = {str: "größe", int: 7, float: 0.5, bool: True, Raw: Raw(b'{"a": [1, 2.0]}')}
    if kind in plain:
        return plain[kind]
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is list:
        return [full(each) for each in (get_args(arguments[0]) if is_union(arguments[0]) else arguments)]
    if origin is dict:
        return {full(arguments[0]): full(arguments[1])}
    if origin is tuple:
        return tuple(full(argument) for argument in arguments)
    if is_union(kind):
        return full(arguments[0])
    return kind(**{field.name: full(field.type) for field in msgspec.structs.fields(kind)})


def full_frames() -> list[Struct]:
    """One frame of each kind that travels, and one beat, with every record in it and something in every field.

    And the record by which workers own their ids.
    """
    found: list[Struct] = [full(holder.Record)]
    for kind in structs((wire, beats)):
        fields = {field.name: full(field.type) for field in msgspec.structs.fields(kind)}
        if "version" in fields:
            found.append(kind(**{**fields, "version": VERSION}))
    return found


def shape(value: Any) -> Any:
    """Which fields of a record say something: two records of one shape tell a reader the same."""
    if isinstance(value, Struct):
        return type(value).__name__, *(shape(getattr(value, name)) for name in value.__struct_fields__)
    if isinstance(value, list | tuple):
        return sorted({repr(shape(each)) for each in value})
    return value not in ("", 0, None, False, {}) and type(value).__name__
