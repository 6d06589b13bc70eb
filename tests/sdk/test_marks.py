"""What `@mesh.step`, `@mesh.on_moved` and `@mesh.concurrency` mark is taken, or refused where it is written: nothing is ignored."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from pydantic import BaseModel

from mesh_sdk import Context, DefinitionError, InvalidInput, Mesh
from mesh_sdk.protocol.definitions import FUNCTION, ConcurrencyDefinition
from mesh_sdk.worker.registry import Registry

mesh = Mesh()
CONTEXT: Any = object()
IGNORED = "which marks methods of a class and would be ignored"
LOOSE = "is in none, where it would be ignored"
STEPS = "use @workflow.step() or @mesh.task()"
KEYS = "use @workflow.concurrency(...) or @task.concurrency(...)"


class Order(BaseModel):
    user: str


def task_over_a_key_function() -> None:
    @mesh.task()
    @mesh.concurrency(max_runs=1)
    def self_made(self: Context) -> str: ...


def key_function_over_a_task() -> None:
    @mesh.concurrency(max_runs=1)  # type: ignore[type-var]
    @mesh.task()
    def charge(ctx: Context) -> str: ...


def key_function_over_a_step() -> None:
    flow = mesh.workflow(name="flow")

    @mesh.concurrency(max_runs=1)
    @flow.step()
    def load(ctx: Context) -> str: ...


def step_over_a_key_function() -> None:
    flow = mesh.workflow(name="flow")

    @flow.step()
    @mesh.concurrency(max_runs=1)
    def load(self: Context) -> str: ...


def key_function_over_a_marked_one() -> None:
    flow = mesh.workflow(name="flow")

    @flow.concurrency(max_runs=5)
    @mesh.concurrency(max_runs=1)
    def load(self: Context) -> str: ...


def task_over_a_step() -> None:
    @mesh.task()
    @mesh.step(retries=3)
    def load(self: Context) -> None: ...


def loose_key_function() -> None:
    flow = mesh.workflow(name="flow")

    @flow.step()
    def load(ctx: Context) -> None: ...

    @mesh.concurrency(max_runs=1)
    def per_user(ctx: Context) -> str: ...


def loose_step() -> None:
    @mesh.step()
    def load(ctx: Context) -> None: ...


def loose_on_moved() -> None:
    @mesh.on_moved()
    def rebuild(ctx: Context) -> None: ...


def property_over_a_key_function() -> None:
    @mesh.workflow()
    class Hidden:
        @mesh.step()
        def load(self, context: Context) -> None: ...

        @property
        @mesh.concurrency(max_runs=1)
        def per_user(self) -> str: ...


REFUSED: list[tuple[Callable[[], None], str]] = [
    (task_over_a_key_function, f"task 'self_made' is marked with @mesh.concurrency(), {IGNORED}: {KEYS}"),
    (key_function_over_a_task, f"@mesh.concurrency() decorates a method, this is <Task 'charge'>: on functions {KEYS}"),
    (key_function_over_a_step, f"@mesh.concurrency() decorates a method, this is <Step flow:load>: on functions {KEYS}"),
    (step_over_a_key_function, f"step 'load' of workflow 'flow' is marked with @mesh.concurrency(), {IGNORED}: {KEYS}"),
    (key_function_over_a_marked_one, "the key function 'load' of workflow 'flow' is marked with @mesh.concurrency()"),
    (task_over_a_step, f"task 'load' is marked with @mesh.step(), {IGNORED}: {STEPS}"),
    (loose_key_function, f"@mesh.concurrency() marks methods of a class, and 'per_user' {LOOSE}: {KEYS}"),
    (property_over_a_key_function, "Hidden.per_user is marked with @mesh.concurrency() and then made a property: leave that out"),
    (loose_step, f"@mesh.step() marks methods of a class, and 'load' {LOOSE}: {STEPS}"),
    (loose_on_moved, f"@mesh.on_moved() marks methods of a class, and 'rebuild' {LOOSE}: use @workflow.on_moved()"),
]  # fmt: skip


@pytest.mark.parametrize(("define", "said"), REFUSED, ids=[define.__name__ for define, _ in REFUSED])
def test_a_mark_that_nobody_would_read_is_refused(define: Callable[[], None], said: str) -> None:
    with pytest.raises(DefinitionError) as refused:
        define()
    assert said in str(refused.value)


def test_what_is_added_once_a_worker_has_the_workflow_is_refused() -> None:
    """The worker would go on without it."""
    flow = mesh.workflow(name="flow")

    @flow.step()
    def load(ctx: Context) -> None: ...

    Registry().add(flow)
    with pytest.raises(DefinitionError, match="workflow 'flow' is registered on a worker already: add 'per_user' to it before"):

        @flow.concurrency(max_runs=1)
        def per_user(ctx: Context) -> str: ...

    with pytest.raises(DefinitionError, match="add 'more' to it before"):

        @flow.step()
        def more(ctx: Context) -> None: ...


def test_a_task_has_a_key_function() -> None:
    @mesh.task()
    def charge(order: Order, ctx: Context) -> None: ...

    @charge.concurrency(max_runs=3, limit_strategy="QUEUE_NEWEST")
    def per_user(order: Order, ctx: Context) -> str:
        return order.user

    definition = charge.definition()
    assert definition.concurrency == [ConcurrencyDefinition(3, "QUEUE_NEWEST", "per_user", FUNCTION)]
    assert [step.name for step in definition.steps] == ["per_user", "charge"]
    registry = Registry()
    registry.add(charge)
    found, only = registry.find("charge", "per_user"), registry.find("charge", "charge")
    assert found is not None
    assert only is not None
    assert (found.is_key, only.is_key, only.last) == (True, False, True)
    assert found.invoke(found.parse(b'{"user": "ada"}'), CONTEXT) == "ada"


def test_a_key_function_of_a_task_gets_what_the_task_gets() -> None:
    @mesh.task()
    def charge(order: Order, ctx: Context) -> None: ...

    @charge.concurrency()
    def per_user(order, ctx):  # type: ignore[no-untyped-def]  # it names no types
        return order.user

    key = charge.workflow.bind().key
    assert key is not None
    assert key.invoke(key.parse_input(b'{"user": "ada"}'), CONTEXT) == "ada"
    with pytest.raises(InvalidInput, match="user: Field required"):
        key.parse_input(b"{}")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (lambda: mesh.concurrency(5), "@mesh.concurrency() does not take 5 as it stands: options are given by keyword, such as max_runs=1"),
        (
            lambda: mesh.workflow("orders"),
            "@mesh.workflow() does not take 'orders' as it stands: options are given by keyword, such",
        ),
        (lambda: mesh.on_moved(5), "@mesh.on_moved() does not take 5 as it stands: it takes no options"),
        (lambda: mesh.workflow(name="w").concurrency(5), "@workflow.concurrency() does not take 5 as it stands"),
    ],
)
def test_options_that_are_not_named(given: Callable[[], object], said: str) -> None:
    with pytest.raises(DefinitionError) as refused:
        given()
    assert said in str(refused.value)


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (lambda: "k", "takes 0 parameters (none): a key function takes the context, or the input and the context"),
        (lambda ctx: (yield "k"), "is a generator: a key function returns its output, it can't yield"),
    ],
)
def test_what_can_be_no_key_function_is_told_as_one(function: Any, said: str) -> None:
    with pytest.raises(DefinitionError) as refused:
        mesh.workflow(name="flow").concurrency()(function)
    assert said in str(refused.value)
