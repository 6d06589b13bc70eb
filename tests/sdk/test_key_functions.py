"""Key functions: both styles make one definition, nobody sees them as steps, and what can't be one is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from pydantic import BaseModel

from mesh_sdk import Concurrency, ConcurrencyLimitStrategy, Context, DefinitionError, InvalidInput, InvalidName, Mesh
from mesh_sdk.protocol.definitions import CANCEL_NEWEST, FUNCTION, GROUP_ROUND_ROBIN, KEY, ConcurrencyDefinition, StepDefinition
from mesh_sdk.worker.registry import Registry
from mesh_sdk.workflow import BoundWorkflow, find_workflow

mesh = Mesh()
CONTEXT: Any = object()
Define = Callable[[], Any]


class Order(BaseModel):
    user: str


def work(ctx: Context) -> None: ...


def key(ctx: Context) -> str:
    return "one"


def bound(thing: object) -> BoundWorkflow:
    workflow, instance = find_workflow(thing)
    return workflow.bind(instance)


def test_a_method_is_a_key_function() -> None:
    @mesh.workflow(schedule_timeout="7s", input=Order)
    class Limited:
        def __init__(self) -> None:
            self.prefix = "u-"

        @mesh.step(parents=["first"])
        def second(self, context: Context) -> None: ...

        @mesh.concurrency(max_runs=5, limit_strategy=ConcurrencyLimitStrategy.CANCEL_NEWEST)
        def per_user(self, order: Order, context: Context) -> str:
            return self.prefix + order.user

        @mesh.step()
        def first(self, context: Context) -> None: ...

    workflow, _ = find_workflow(Limited)
    definition = workflow.definition()
    assert definition.steps == [
        StepDefinition("per_user", [], timeout_ms=10_000, schedule_timeout_ms=7_000, kind=KEY, slots=0),
        StepDefinition("first", [], schedule_timeout_ms=7_000),
        StepDefinition("second", [1], schedule_timeout_ms=7_000),
    ]
    assert definition.concurrency == [ConcurrencyDefinition(5, CANCEL_NEWEST, "per_user", FUNCTION)]
    assert definition.actions() == ["Limited:per_user", "Limited:first", "Limited:second"]
    assert [step.name for step in workflow.steps] == ["first", "second"]
    found = workflow.bind()
    assert [(step.name, step.index, step.definition.name) for step in found.steps] == [("first", 1, "first"), ("second", 2, "second")]
    assert found.key is not None
    assert (found.key.name, found.key.index, found.key.is_async) == ("per_user", 0, False)
    assert found.key.invoke(found.key.parse_input(b'{"user": "7"}'), CONTEXT) == "u-7"
    with pytest.raises(InvalidInput, match=r"input of key function 'Limited:per_user' is invalid: .*user: Field required"):
        found.key.parse_input(b"{}")


def test_a_function_is_a_key_function_and_stays_a_function() -> None:
    flow = mesh.workflow(name="flow", input=Order, concurrency=["input.user", Concurrency("input.shop", 3)])
    flow.step()(work)
    before = flow.definition()

    @flow.concurrency()
    async def shop(order: Order, ctx: Context) -> str:
        return order.user

    assert flow.definition() is not before
    assert flow.definition().steps[0] == StepDefinition("shop", timeout_ms=10_000, kind=KEY, slots=0)
    assert [(limit.key, limit.max_runs, limit.strategy) for limit in flow.definition().concurrency] == [
        ("shop", 1, GROUP_ROUND_ROBIN),
        ("input.user", 1, GROUP_ROUND_ROBIN),
        ("input.shop", 3, GROUP_ROUND_ROBIN),
    ]
    found = flow.bind().key
    assert found is not None
    assert found.is_async
    assert callable(shop)


def test_static_and_inherited_key_functions() -> None:
    class Base:
        @mesh.concurrency(max_runs=2, limit_strategy="QUEUE_NEWEST")
        @staticmethod
        def key(context: Context) -> str:
            return "static"

    @mesh.workflow()
    class Inheriting(Base):
        @mesh.step()
        def only(self, context: Context) -> None: ...

    @mesh.workflow(name="Free")
    class Without(Base):
        @mesh.step()
        def only(self, context: Context) -> None: ...

        key = None  # type: ignore[assignment]

    found = bound(Inheriting)
    assert found.key is not None
    assert found.key.invoke(None, CONTEXT) == "static"
    assert found.definition.concurrency == [ConcurrencyDefinition(2, "QUEUE_NEWEST", "key", FUNCTION)]
    assert bound(Without).key is None


def test_the_worker_has_an_action_for_it() -> None:
    flow = mesh.workflow(name="flow")
    flow.concurrency()(key)
    flow.step()(work)
    registry = Registry()
    registry.add(flow)
    assert registry.actions() == ["flow:key", "flow:work"]
    first, only = registry.find("flow", "key"), registry.find("flow", "work")
    assert first is not None
    assert only is not None
    assert (first.is_key, first.last, first.timeout_s, first.sticky) == (True, False, 10.0, "")
    assert (only.is_key, only.last) == (False, True)


# ---- refused at definition


def of_class(**methods: Any) -> Define:
    """A workflow of a class with a step and these methods."""

    def define() -> None:
        mesh.workflow(name="W")(type("Limited", (), {"only": mesh.step()(lambda self, context: None), **methods}))

    return define


def method() -> Any:
    def per_user(self: Any, context: Context) -> str:
        return "k"

    return mesh.concurrency()(per_user)


def also_a_step() -> None:
    class Both:
        @mesh.concurrency()
        @mesh.step()
        def a(self, context: Context) -> str: ...


def also_a_key_function() -> None:
    class Both:
        @mesh.step()
        @mesh.concurrency()
        def a(self, context: Context) -> str: ...


def also_on_moved() -> None:
    class Both:
        @mesh.concurrency()
        @mesh.on_moved()
        def a(self, context: Context) -> str: ...


def on_moved_too() -> None:
    class Both:
        @mesh.concurrency()
        def a(self, context: Context) -> str: ...
        @mesh.on_moved()
        def a(self, context: Context) -> None: ...  # noqa: F811 - what the test is about


def step_of_its_name() -> None:
    class Both:
        @mesh.concurrency()
        def a(self, context: Context) -> str: ...
        @mesh.step()
        def a(self, context: Context) -> None: ...  # noqa: F811 - what the test is about


def twice_by_one_name() -> None:
    class Twice:
        @mesh.concurrency()
        def a(self, context: Context) -> str: ...
        @mesh.concurrency()
        def a(self, context: Context) -> str: ...  # noqa: F811 - what the test is about


def twice_on_one() -> None:
    class Twice:
        @mesh.concurrency()
        @mesh.concurrency()
        def a(self, context: Context) -> str: ...


def named_as_a_step() -> None:
    @mesh.workflow()
    class Named:
        @mesh.step(name="per_user")
        def load(self, context: Context) -> None: ...
        @mesh.concurrency()
        def per_user(self, context: Context) -> str: ...


def only_a_key_function() -> None:
    @mesh.workflow()
    class Empty:
        @mesh.concurrency()
        def per_user(self, context: Context) -> str: ...


def parent_of_a_step() -> None:
    @mesh.workflow()
    class Parent:
        @mesh.concurrency()
        def per_user(self, context: Context) -> str: ...
        @mesh.step(parents=["per_user"])
        def load(self, context: Context) -> None: ...


def overridden() -> None:
    class Base:
        @mesh.concurrency()
        def per_user(self, context: Context) -> str: ...

    @mesh.workflow()
    class Derived(Base):
        @mesh.step()
        def load(self, context: Context) -> None: ...
        def per_user(self, context: Context) -> str: ...


def function(*made: Any, then: Any = None, **options: Any) -> Define:
    """A workflow of functions, with these as key functions; `then` gets the workflow."""

    def define() -> None:
        flow = mesh.workflow(name="flow", **options)
        step = flow.step()(work)
        for each in made:
            flow.concurrency()(step if each is None else each)
        if then is not None:
            then(flow)
        flow.definition()

    return define


def of_a_class() -> None:
    flow = mesh.workflow(name="flow")

    @flow
    class Flow:
        @mesh.step()
        def a(self, context: Context) -> None: ...

    flow.concurrency()(key)


def then_a_class() -> None:
    flow = mesh.workflow(name="flow")
    flow.concurrency()(key)

    @flow
    class Flow:
        @mesh.step()
        def a(self, context: Context) -> None: ...


def says_int(ctx: Context) -> int: ...


def says_any(ctx: Context) -> Any: ...


def says_none(ctx: Context) -> None: ...


def generator(ctx: Context) -> Any:
    yield "k"


def three(a: int, b: int, c: Context) -> str: ...


CASES: list[tuple[str, Define, str]] = [
    ("a step too", also_a_step, "'a' is marked with @mesh.step(): it can't be the key function too, give that a method"),
    ("a key function too", also_a_key_function, "'a' is marked with @mesh.concurrency(): it can't be a step too"),
    ("on_moved too", also_on_moved, "'a' is marked with @mesh.on_moved(): it can't be the key function too"),
    ("on_moved of its name", on_moved_too, "'a' is marked with @mesh.concurrency(): it can't be the on_moved method too"),
    ("step of its name", step_of_its_name, "'a' is marked with @mesh.concurrency(): it can't be a step too"),
    ("twice by one name", twice_by_one_name, "two key functions called 'a' in twice_by_one_name.<locals>.Twice: keep one"),
    ("twice on one", twice_on_one, "'a' is marked with @mesh.concurrency() twice: keep one"),
    ("two", of_class(a=method(), b=method()), "workflow 'W' has two key functions, 'a' and 'b': keep one"),
    (
        "named as a step",
        named_as_a_step,
        "step 'per_user' (method 'load') and the key function 'per_user' of workflow 'Named' share a name",
    ),
    ("no steps", only_a_key_function, "workflow 'Empty' has no steps"),
    ("parent of a step", parent_of_a_step, "parent 'per_user' of step 'load' is unknown"),
    ("overridden", overridden, "which is marked with @mesh.concurrency(), and is not: mark it too, or set `per_user = None`"),
    ("without parentheses", lambda: mesh.concurrency(key), "@mesh.concurrency() needs its parentheses"),  # type: ignore[arg-type]
    ("of an object", lambda: mesh.concurrency()(3), "@mesh.concurrency() decorates a method, this is 3"),  # type: ignore[type-var]
    ("of a class", lambda: mesh.concurrency()(Order), "Order"),  # type: ignore[type-var]
    ("unknown option", lambda: mesh.concurrency(max_run=1), "no option 'max_run'; did you mean 'max_runs'?"),  # type: ignore[call-arg]
    ("max_runs 0", lambda: mesh.concurrency(max_runs=0), "max_runs of @mesh.concurrency() is 0: use a whole number from 1"),
    ("max_runs below 0", lambda: mesh.concurrency(max_runs=-5), "is -5"),
    ("max_runs a truth value", lambda: mesh.concurrency(max_runs=True), "is True"),
    ("max_runs a text", lambda: mesh.concurrency(max_runs="5"), "is '5'"),  # type: ignore[arg-type]
    ("strategy", lambda: mesh.concurrency(limit_strategy="FIFO"), "limit_strategy of @mesh.concurrency() is 'FIFO'"),  # type: ignore[arg-type]
    ("strategy none", lambda: mesh.concurrency(limit_strategy=None), "GROUP_ROUND_ROBIN, CANCEL_IN_PROGRESS"),  # type: ignore[arg-type]
    ("function: max_runs", lambda: mesh.workflow(name="w").concurrency(max_runs=0), "max_runs of @workflow.concurrency() is 0"),
    ("function: without parentheses", lambda: mesh.workflow(name="w").concurrency(key), "parentheses"),  # type: ignore[arg-type]
    ("function: says int", function(says_int), "key function 'says_int' of workflow 'flow' says that it returns int: it must return"),
    ("function: says None", function(says_none), "says that it returns None:"),
    ("function: yields", function(generator), "key function 'generator' of workflow 'flow' is a generator"),
    ("function: three parameters", function(three), "takes 3 parameters (a, b, c)"),
    ("function: twice", function(key, lambda ctx: "k"), "workflow 'flow' has two key functions, 'key' and '<lambda>'"),
    ("function: one twice", function(key, key), "'key' is the key function of workflow 'flow': it can't be the key function too"),
    ("function: a step", function(work), "can't be the key function of workflow 'flow': use a function that is no step"),
    ("function: a Step", function(None), "<Step flow:work> can't be the key function of workflow 'flow'"),
    (
        "function: then a step",
        function(key, then=lambda flow: flow.step()(key)),
        "'key' is the key function of workflow 'flow': it can't be a step",
    ),
    ("function: then on_moved", function(key, sticky="SOFT", then=lambda flow: flow.on_moved()(key)), "it can't be on_moved too"),
    ("function: after on_moved", function(sticky="SOFT", then=lambda flow: flow.concurrency()(flow.on_moved()(key))), "'key' is on_moved"),
    (
        "function: step of its name",
        function(key, then=lambda flow: flow.step(name="key")(says_int)),
        "step 'key' and the key function 'key'",
    ),
    ("function: named as a step", function(then=lambda flow: (flow.step(name="key")(says_int), flow.concurrency()(key))), "share a name"),
    ("function: of a class", of_a_class, "workflow 'flow' is a class, 'Flow': mark a method of it with @mesh.concurrency()"),
    ("function: then a class", then_a_class, "workflow 'flow' has functions already"),
    ("too many", function(key, concurrency=[f"input.a{n}" for n in range(8)]), "workflow 'flow' has 9 concurrency limits, 8 are the most"),
]


def test_one_that_says_nothing_of_its_result_is_taken() -> None:
    flow = mesh.workflow(name="flow")
    flow.concurrency()(says_any)
    flow.step()(work)
    assert [limit.key for limit in flow.bind().definition.concurrency] == ["says_any"]


@pytest.mark.parametrize(("define", "said"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_refused_at_definition(define: Define, said: str) -> None:
    with pytest.raises(DefinitionError) as refused:
        define()
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_name_that_cannot_be() -> None:
    flow = mesh.workflow(name="flow")
    with pytest.raises(InvalidName, match="the key function of workflow 'flow'"):
        flow.concurrency()(type("Callable", (), {"__call__": lambda self, ctx: "k"})())
