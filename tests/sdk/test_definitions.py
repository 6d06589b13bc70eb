"""Both styles make one definition; what a worker is handed of it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from threading import Event
from typing import Any
from uuid import UUID

import pytest
from pydantic import BaseModel, Field

from mesh_sdk import Context, InvalidInput, InvalidOutput, Mesh, PayloadTooLarge, StickyStrategy
from mesh_sdk.protocol.definitions import StepDefinition
from mesh_sdk.step import BoundStep, step_name
from mesh_sdk.workflow import find_workflow

mesh = Mesh()
CONTEXT: Any = object()


class Order(BaseModel):
    id: int
    total: float


@dataclass
class Point:
    x: int
    y: int


def only(thing: object) -> BoundStep:
    workflow, instance = find_workflow(thing)
    [step] = workflow.bind(instance).steps
    return step


def test_a_class_is_a_workflow():
    @mesh.workflow(on_events=["user:create", "user.*"], sticky=StickyStrategy.SOFT, sticky_timeout="1s", timeout="5m", priority=2)
    class Sticky:
        made = 0

        def __init__(self) -> None:
            Sticky.made += 1
            self.name = "own"

        @mesh.step(parents=["a", "b"], retries=3, timeout="30s", backoff_factor=2, backoff_max_seconds=60, schedule_timeout=7, priority=9)
        async def last(self, context: Context): ...

        @mesh.step()
        def a(self, context: Context):
            return self.name

        @mesh.step(name="b")
        def other(self, context: Context): ...

    assert Sticky.made == 0, "defining makes no instance"
    workflow, instance = find_workflow(Sticky)
    assert instance is None
    definition = workflow.definition()
    assert (definition.name, definition.on_events, definition.sticky) == ("Sticky", ["user:create", "user.*"], "SOFT")
    assert (definition.sticky_timeout_ms, definition.priority) == (1_000, 2)
    assert definition.steps == [
        StepDefinition("a", timeout_ms=300_000),
        StepDefinition("b", timeout_ms=300_000),
        StepDefinition("last", [0, 1], 30_000, 7_000, 3, 2.0, 60_000, 9),
    ]
    bound = workflow.bind()
    assert Sticky.made == 1
    assert [step.is_async for step in bound.steps] == [False, False, True]
    assert bound.steps[0].invoke("input", CONTEXT) == "own"
    given = Sticky()
    given.name = "given"
    workflow, instance = find_workflow(given)
    assert workflow.bind(instance).steps[0].invoke("input", CONTEXT) == "given"
    assert step_name(Sticky.other) == step_name(given.other) == "b"


def test_functions_are_steps_of_a_workflow_and_stay_functions():
    fulfil = mesh.workflow(name="fulfil", input=Order)

    @fulfil.step()
    def reserve(order: Order, ctx: Context) -> dict[str, int]:
        return {"shelf": order.id % 7}

    @fulfil.step(parents=[reserve])
    async def ship(order: Order, ctx: Context) -> dict[str, int]:
        return ctx.step_output(reserve)

    definition = fulfil.definition()
    assert [(step.name, step.parents) for step in definition.steps] == [("reserve", []), ("ship", [0])]
    assert reserve(Order(id=9, total=1), CONTEXT) == {"shelf": 2}
    first, second = fulfil.bind().steps
    order = first.parse_input(b'{"id": 9, "total": 1}')
    assert first.dump_output(first.invoke(order, CONTEXT)) == b'{"shelf":2}'
    assert second.is_async
    assert reserve.parse_output(b'{"shelf": 2}') == {"shelf": 2}
    assert step_name(reserve) == "reserve"


def test_a_task_is_a_workflow_of_one_step():
    @mesh.task(name="charging", on_events=["order.created"], retries=2, backoff_factor=2.0, timeout="5s", priority=3, version="7")
    async def charge(order: Order, ctx: Context) -> Decimal:
        return Decimal(order.id)

    definition = charge.definition()
    assert (definition.name, definition.on_events, definition.version, definition.priority) == ("charging", ["order.created"], "7", 3)
    assert definition.steps == [StepDefinition("charging", [], 5_000, 0, 2, 2.0, 0, 0)]

    @mesh.task
    def bare(ctx: Context) -> int:
        return 3

    assert bare.name == "bare"
    assert bare(None) == 3
    assert step_name(bare) == "bare"


def test_on_moved_is_bound_to_the_instance_and_stays_what_it_was():
    class Base:
        @mesh.on_moved()
        async def rebuild(self, context: Context):
            return type(self).__name__

    @mesh.workflow(sticky=StickyStrategy.SOFT)
    class Derived(Base):
        @mesh.step()
        def only(self, context: Context): ...

        rebuild = None

    @mesh.workflow(name="Other", sticky=StickyStrategy.HARD)
    class Inheriting(Base):
        @mesh.step()
        def only(self, context: Context): ...

    assert find_workflow(Derived)[0].bind().on_moved is None
    bound = find_workflow(Inheriting)[0].bind().on_moved
    assert bound is not None
    assert bound.is_async
    with pytest.raises(StopIteration) as returned:
        bound.invoke(CONTEXT).send(None)
    assert returned.value.value == "Inheriting"

    @mesh.workflow(sticky=StickyStrategy.SOFT)
    class Static:
        @mesh.step()
        def only(self, context: Context): ...

        @mesh.on_moved()
        @staticmethod
        def rebuild(context: Context):
            return context

    static = find_workflow(Static)[0].bind().on_moved
    assert static is not None
    assert not static.is_async
    assert static.invoke(CONTEXT) is CONTEXT


def test_on_moved_of_functions():
    flow = mesh.workflow(name="flow", sticky=StickyStrategy.SOFT)

    @flow.step()
    def only(ctx: Context): ...

    before = flow.definition()

    @flow.on_moved()
    def rebuild(ctx: Context):
        return ctx

    assert rebuild(CONTEXT) is CONTEXT
    bound = flow.bind().on_moved
    assert bound is not None
    assert bound.invoke(CONTEXT) is CONTEXT
    assert flow.definition() == before, "workers that differ in it alone run the same steps"


def test_equal_definitions_have_equal_digests_and_others_have_not():
    def make(**options: Any) -> str:
        workflow = mesh.workflow(name="same")
        workflow.step(**options)(lambda_step)
        return workflow.definition().digest

    def lambda_step(ctx: Context): ...

    assert make() == make()
    assert make() != make(retries=1)


def test_hard_waits_five_minutes_for_its_worker():
    @mesh.task(sticky=StickyStrategy.HARD)
    def hard(ctx: Context): ...

    assert hard.definition().steps[0].schedule_timeout_ms == 300_000


class Shouting(Context):
    pass


def test_which_parameter_is_the_context():
    @mesh.task
    def annotated_first(own: Context, order: Order):
        return own, order.id

    @mesh.task
    def named(ctx, order):
        return ctx, order

    @mesh.task
    def last(order, anything):
        return anything, order

    @mesh.task
    def alone(anything):
        return anything

    @mesh.task
    def subclass(own: Shouting, value: int, more: int = 3):
        return own, value

    assert only(annotated_first).invoke(Order(id=1, total=1), CONTEXT) == (CONTEXT, 1)
    assert only(named).invoke(1, CONTEXT) == (CONTEXT, 1)
    assert only(last).invoke(1, CONTEXT) == (CONTEXT, 1)
    assert only(alone).invoke(1, CONTEXT) is CONTEXT
    assert only(subclass).invoke(1, CONTEXT) == (CONTEXT, 1)
    assert [only(task).wants_input for task in (named, alone)] == [True, False]


def test_static_and_inherited_methods():
    class Base:
        @mesh.step()
        def first(self, context: Context):
            return type(self).__name__

    @mesh.workflow()
    class Derived(Base):
        @mesh.step(parents=[Base.first])
        @staticmethod
        def second(order: Order, context: Context):
            return order.id

    first, second = find_workflow(Derived)[0].bind().steps
    assert first.invoke(None, CONTEXT) == "Derived"
    assert second.invoke(second.parse_input(b'{"id":1,"total":2}'), CONTEXT) == 1


def test_local_types_resolve_though_annotations_are_text():
    class Local(BaseModel):
        n: int

    @mesh.task
    def use(value: Local, ctx: Context) -> list[Local]:
        return [value]

    step = only(use)
    assert step.dump_output(step.invoke(step.parse_input(b'{"n":"3"}'), CONTEXT)) == b'[{"n":3}]'


def test_the_context_may_type_the_input():
    @mesh.task
    def typed(ctx: Context[Order]) -> int:
        return ctx.input.id

    step = only(typed)
    assert step.spec.input_type is Order
    assert not step.wants_input
    with pytest.raises(InvalidInput, match="total: Field required"):
        step.parse_input(b'{"id": 1}')


def test_values_on_the_way_out():
    @mesh.task
    def plain(ctx: Context): ...

    dump = only(plain).dump_output
    moment = datetime(2025, 1, 1, tzinfo=UTC)
    value = {"at": moment, "id": UUID(int=1), "price": Decimal("1.50"), "point": Point(1, 2), "order": Order(id=1, total=2)}
    assert dump(value) == (
        b'{"at":"2025-01-01T00:00:00Z","id":"00000000-0000-0000-0000-000000000001","price":"1.50",'
        b'"point":{"x":1,"y":2},"order":{"id":1,"total":2.0}}'
    )
    assert dump(None) == b"null"
    assert dump(float("nan")) == b"null"
    circle: dict[str, Any] = {}
    circle["self"] = circle
    with pytest.raises(InvalidOutput, match=r"output of step 'plain:plain' is threading\.Event, which can't be written as JSON"):
        dump(Event())
    with pytest.raises(InvalidOutput, match="dict"):
        dump(circle)
    with pytest.raises(InvalidOutput, match="str"):
        dump("\ud800")
    with pytest.raises(PayloadTooLarge, match="output of step 'plain:plain'"):
        dump("x" * 600_000)


def test_typed_values_on_the_way_out():
    class Aliased(BaseModel):
        inner: int = Field(alias="outer")

    @mesh.task
    def typed(ctx: Context) -> Aliased: ...

    step = only(typed)
    assert step.dump_output(Aliased(outer=3)) == b'{"outer":3}'
    assert step.dump_output({"outer": "4"}) == b'{"outer":4}'
    assert typed.parse_result(b'{"outer":4}') == Aliased(outer=4)
    with pytest.raises(InvalidOutput, match=r"'typed:typed' is invalid: 1 validation error for Aliased: outer: Field required"):
        step.dump_output({})


def test_bytes_that_are_no_json():
    with pytest.raises(InvalidInput, match="input of step 'n:n' is no JSON"):
        only(mesh.task(name="n")(lambda ctx: 1)).parse_input(b"{")
