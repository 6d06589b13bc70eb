"""What can't work is refused while it is defined, naming the thing."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import BaseModel

from mesh_sdk import Context, DefinitionError, InvalidName, Mesh, StickyStrategy

if TYPE_CHECKING:
    from fractions import Fraction

mesh = Mesh()
Define = Callable[[], Any]


class Order(BaseModel):
    id: int


def step(ctx: Context): ...


def task(**options: Any) -> Define:
    return lambda: mesh.task(**options)(step)


def workflow(**options: Any) -> Define:
    return lambda: mesh.workflow(**options)


def graph_step(**options: Any) -> Define:
    def define() -> None:
        graph = mesh.workflow(name="graph")
        graph.step(name="first")(step)
        graph.step(**options)(step)

    return define


def function(made: Callable[..., Any]) -> Define:
    return lambda: mesh.task(made)


def cycle() -> None:
    @mesh.workflow()
    class Cyclic:
        @mesh.step(parents=["c"])
        def a(self, context): ...
        @mesh.step(parents=["a"])
        def b(self, context): ...
        @mesh.step(parents=["b"])
        def c(self, context): ...


def own_parent() -> None:
    @mesh.workflow()
    class Cyclic:
        @mesh.step(parents=["a"])
        def a(self, context): ...


def unknown_parent() -> None:
    @mesh.workflow()
    class Orphan:
        @mesh.step(parents=["nobody"])
        def a(self, context): ...


def same_method_twice() -> None:
    @mesh.workflow()
    class Doubled:
        @mesh.step()
        def a(self, context): ...
        @mesh.step()
        def a(self, context): ...  # noqa: F811 - what the test is about


def same_name_twice() -> None:
    @mesh.workflow()
    class Doubled:
        @mesh.step()
        def a(self, context): ...
        @mesh.step(name="a")
        def b(self, context): ...


def no_steps() -> None:
    @mesh.workflow()
    class Empty:
        pass


def foreign_parent() -> None:
    other = mesh.workflow(name="other")
    mine = mesh.workflow(name="mine")
    mine.step(parents=[other.step()(step)])(step)


def needs_arguments() -> None:
    @mesh.workflow()
    class Needy:
        def __init__(self, what: str) -> None: ...
        @mesh.step()
        def a(self, context): ...

    mesh.worker("w", workflows=[Needy])


SOFT = StickyStrategy.SOFT


def moved_twice() -> None:
    @mesh.workflow(sticky=SOFT)
    class Twice:
        @mesh.step()
        def a(self, context): ...
        @mesh.on_moved()
        def one(self, context): ...
        @mesh.on_moved()
        def two(self, context): ...


def moved_twice_by_inheritance() -> None:
    class Base:
        @mesh.on_moved()
        def one(self, context): ...

    @mesh.workflow(sticky=SOFT)
    class Derived(Base):
        @mesh.step()
        def a(self, context): ...
        @mesh.on_moved()
        def two(self, context): ...


def moved_twice_by_one_name() -> None:
    class Twice:
        @mesh.on_moved()
        def one(self, context): ...
        @mesh.on_moved()
        def one(self, context): ...  # noqa: F811 - what the test is about


def moved_that_is_a_step() -> None:
    class Both:
        @mesh.on_moved()
        @mesh.step()
        def a(self, context): ...


def step_that_is_moved() -> None:
    class Both:
        @mesh.step()
        @mesh.on_moved()
        def a(self, context): ...


def moved_named_as_a_step() -> None:
    class Both:
        @mesh.step()
        def a(self, context): ...
        @mesh.on_moved()
        def a(self, context): ...  # noqa: F811 - what the test is about


def step_named_as_moved() -> None:
    class Both:
        @mesh.on_moved()
        def a(self, context): ...
        @mesh.step()
        def a(self, context): ...  # noqa: F811 - what the test is about


def moved_of_a_class(made: Callable[..., Any], **options: Any) -> Define:
    def define() -> None:
        class Moving:
            @mesh.step()
            def a(self, context): ...

        Moving.rebuild = mesh.on_moved()(made)  # type: ignore[attr-defined]
        mesh.workflow(**options)(Moving)

    return define


def unmarked(self, context): ...


def moved_overridden(middle: dict[str, Any], own: dict[str, Any], sticky: StickyStrategy | None = SOFT) -> Define:
    def define() -> None:
        class Base:
            @mesh.step()
            def only(self, context): ...
            @mesh.on_moved()
            def rebuild(self, context): ...

        mesh.workflow(sticky=sticky)(type("Derived", (type("Middle", (Base,), middle),), own))

    return define


def moved_with_input(self, order, context): ...


def moved_alone(self): ...


def moved_generator(self, context):
    yield 1


def moved_function(*functions: Any, sticky: StickyStrategy | None = SOFT) -> Define:
    def define() -> None:
        flow = mesh.workflow(name="flow", sticky=sticky)
        made = flow.step()(step)
        for function in functions:
            flow.on_moved()(made if function is None else function)

    return define


def moved_function_of_a_class() -> None:
    flow = mesh.workflow(name="flow", sticky=SOFT)

    @flow
    class Flow:
        @mesh.step()
        def a(self, context): ...

    flow.on_moved()(step)


def moved_function_that_becomes_a_step() -> None:
    flow = mesh.workflow(name="flow", sticky=SOFT)
    flow.on_moved()(step)
    flow.step()(step)


def rebuild(ctx): ...


def rebuild_method(self, context): ...


def generator(ctx):
    yield 1


async def async_generator(ctx):
    yield 1


def no_parameters(): ...


def three_parameters(a, b, c): ...


def keyword_needed(order, ctx, *, more): ...


def only_an_input(order: Order): ...


def unresolvable(value: Fraction, ctx: Context): ...


def no_schema(value: Define | mesh.task, ctx: Context): ...


CASES: list[tuple[str, Define, str]] = [
    ("cycle", cycle, "workflow 'Cyclic' has a cycle: a -> c -> b -> a"),
    ("own parent", own_parent, "workflow 'Cyclic' has a cycle: a -> a"),
    ("unknown parent", unknown_parent, "parent 'nobody' of step 'a' is unknown: workflow 'Orphan'"),
    ("unknown parent of a function", graph_step(name="x", parents=["nobody"]), "parent 'nobody' of step 'x'"),
    ("parent of another workflow", foreign_parent, "belongs to another workflow"),
    ("parent twice", graph_step(name="x", parents=["first", "first"]), "names a parent twice"),
    ("parents a text", graph_step(name="x", parents="first"), "'first'"),
    ("parent is nothing of ours", graph_step(name="x", parents=[3]), "3 is no step"),
    ("method twice", same_method_twice, "two steps called 'a'"),
    ("name twice", same_name_twice, "workflow 'Doubled' has two steps called 'a'"),
    ("function twice", graph_step(name="first"), "workflow 'graph' has two steps called 'first'"),
    ("no steps", no_steps, "workflow 'Empty' has no steps"),
    ("class with arguments", needs_arguments, "class 'Needy' can't be instantiated"),
    ("generator", function(generator), "step generator:generator is a generator"),
    ("async generator", function(async_generator), "is a generator"),
    ("no parameters", function(no_parameters), "takes 0 parameters"),
    ("three parameters", function(three_parameters), "takes 3 parameters (a, b, c)"),
    ("keyword needed", function(keyword_needed), "'more'"),
    ("only an input", function(only_an_input), "only 'order'"),
    ("annotation for type checkers only", function(unresolvable), "'Fraction'"),
    ("annotation without a schema", function(no_schema), "'Define | mesh.task'"),
    ("a class as task", lambda: mesh.task(Order), "Order"),  # type: ignore[call-overload]
    ("an object as step", lambda: mesh.step()(3), "3"),  # type: ignore[type-var]
    ("a function as workflow", lambda: mesh.workflow(name="w")(step), "step"),  # type: ignore[type-var]
    ("workflow without a name", lambda: mesh.workflow().step()(step), "give it name="),
    ("no parentheses on a class", lambda: mesh.workflow(Order), "Order"),  # type: ignore[call-overload]
    ("no parentheses on a step", lambda: mesh.step(step), "parentheses"),  # type: ignore[arg-type]
    ("unknown option", task(retry=3), "no option 'retry'; did you mean 'retries'?"),
    ("unknown option of a workflow", workflow(sticked=1), "did you mean 'sticky'?"),
    ("priority 0", task(priority=0), "priority of task 'step' is 0"),
    ("priority 10", workflow(priority=10), "10"),
    ("priority of a step", graph_step(name="x", priority="high"), "'high'"),
    ("timeout", task(timeout="soon"), "timeout of task 'step' is 'soon'"),
    ("timeout 0", task(timeout=0), "0"),
    ("schedule timeout", graph_step(name="x", schedule_timeout="-1s"), "'-1s'"),
    ("retries", task(retries=-1), "retries of step 'step' of workflow 'step' is -1"),
    ("backoff factor", task(backoff_factor=-2), "-2"),
    ("backoff maximum", task(backoff_max_seconds=0), "0"),
    ("sticky", task(sticky="MEDIUM"), "sticky of task 'step' is 'MEDIUM'"),
    ("sticky timeout of HARD", task(sticky=StickyStrategy.HARD, sticky_timeout="1s"), "this is HARD"),
    ("sticky timeout of none", workflow(name="w", sticky_timeout="1s"), "workflow 'w'"),
    ("name", task(name=""), "''"),
    ("name that is none", task(name=3), "3"),
    ("events", task(on_events=["a b"]), "'a b'"),
    ("empty token", task(on_events=["a..b"]), "'a..b'"),
    ("metadata", task(default_metadata={"a": 1}), "{'a': 1}"),
    ("version", task(version=3), "3"),
    ("idempotency key", task(idempotency_key="input..id"), "'input..id'"),
    ("crons", task(on_crons=["* * * * *"]), "on_crons=['* * * * *'] of task 'step' is not supported by this version yet"),
    ("slots of a step 0", task(slots=0), "slots of step 'step' of workflow 'step' is 0: use a whole number from 1 to 100,000"),
    ("negative slots of a step", task(slots=-1), "is -1"),
    ("slots of a step too many", task(slots=100_001), "is 100001"),
    ("slots of a step a truth value", task(slots=True), "is True"),
    ("slots of a step a fraction", graph_step(name="x", slots=1.5), "is 1.5"),
    ("slots of a step none", graph_step(name="x", slots=None), "is None"),
    ("skip_if", task(skip_if="x"), "skip_if='x'"),
    ("on_failure", workflow(on_failure=step), "on_failure"),
    ("two on_moved", moved_twice, "workflow 'Twice' has two on_moved methods, 'one' and 'two': keep one"),
    ("two on_moved by inheritance", moved_twice_by_inheritance, "'one' and 'two'"),
    ("two on_moved of one name", moved_twice_by_one_name, "two on_moved methods called 'one'"),
    ("on_moved on a step", moved_that_is_a_step, "'a' is marked with @mesh.step(): it can't be the on_moved method too"),
    ("step on an on_moved", step_that_is_moved, "'a' is marked with @mesh.on_moved()"),
    ("on_moved named as a step", moved_named_as_a_step, "'a' is marked with @mesh.step(): it can't be the on_moved method too"),
    ("step named as on_moved", step_named_as_moved, "'a' is marked with @mesh.on_moved()"),
    ("on_moved without sticky", moved_of_a_class(rebuild_method), "on_moved 'rebuild' of workflow 'Moving' would never be called"),
    ("on_moved overridden", moved_overridden({}, {"rebuild": unmarked}), "mark it too, or set `rebuild = None`"),
    ("on_moved overridden, with what", moved_overridden({}, {"rebuild": unmarked}), "Derived.rebuild takes the place of moved_overridden"),
    ("on_moved overridden by a base", moved_overridden({"rebuild": unmarked}, {}), "Middle.rebuild takes the place of moved_overridden"),
    ("on_moved overridden twice", moved_overridden({"rebuild": unmarked}, {"rebuild": unmarked}), "Base.rebuild, which is marked"),
    ("on_moved inherited without sticky", moved_overridden({}, {}, None), "set `rebuild = None` in its class, to have none"),
    ("on_moved with the input", moved_of_a_class(moved_with_input, sticky=SOFT), "takes two parameters: it takes the context alone"),
    ("on_moved without a context", moved_of_a_class(moved_alone, sticky=SOFT), "'rebuild' of workflow 'Moving' takes 0 parameters"),
    ("on_moved that yields", moved_of_a_class(moved_generator, sticky=SOFT), "is a generator"),
    ("on_moved of an object", lambda: mesh.on_moved()(3), "@mesh.on_moved() decorates a method, this is 3"),  # type: ignore[type-var]
    ("on_moved of a class", lambda: mesh.on_moved()(Order), "Order"),
    ("on_moved without parentheses", lambda: mesh.on_moved(step), "parentheses"),  # type: ignore[arg-type]
    ("option of on_moved", lambda: mesh.on_moved(timeout="1s"), "no option 'timeout'"),  # type: ignore[arg-type]
    ("function on_moved without sticky", moved_function(rebuild, sticky=None), "'rebuild' of workflow 'flow' would never be called"),
    ("function on_moved twice", moved_function(rebuild, lambda ctx: None), "two on_moved methods, 'rebuild' and '<lambda>'"),
    ("function on_moved that is a step", moved_function(step), "use a function that is no step"),
    ("on_moved of a Step", moved_function(None), "<Step flow:step> can't be on_moved of workflow 'flow'"),
    ("function on_moved with the input", moved_function(lambda order, ctx: None), "takes two parameters"),
    ("function on_moved of a class", moved_function_of_a_class, "workflow 'flow' is a class, 'Flow'"),
    ("function on_moved, then a step", moved_function_that_becomes_a_step, "'step' is on_moved of workflow 'flow': it can't be a step too"),
    ("function on_moved without parentheses", lambda: mesh.workflow(name="w").on_moved(step), "parentheses"),  # type: ignore[arg-type]
    ("sticky runs of a worker", lambda: mesh.worker("w", sticky_runs=0), "sticky_runs of worker 'w' is 0"),
    ("sticky runs that are none", lambda: mesh.worker("w", sticky_runs="many"), "'many'"),  # type: ignore[arg-type]
    ("negative slots of a worker", lambda: mesh.worker("w", slots=-1), "-1"),
    ("slots and max_runs", lambda: mesh.worker("w", slots=1, max_runs=2), "max_runs=2"),
    ("worker id", lambda: mesh.worker("w", id="a.b"), "'a.b'"),
    ("worker id that is no text", lambda: mesh.worker("w", id=5), "id of worker 'w' is 5: use text"),  # type: ignore[arg-type]
    ("worker label", lambda: mesh.worker("w", labels={"a": [1]}), "[1]"),  # type: ignore[dict-item]
    ("no workflow", lambda: mesh.worker("w", workflows=[Order]), "Order"),
]


@pytest.mark.parametrize(("define", "said"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_refused_at_definition(define: Define, said: str):
    with pytest.raises(DefinitionError) as refused:
        define()
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_options_that_ask_for_nothing_are_taken():
    task(on_crons=[], concurrency=None, rate_limits=(), desired_worker_labels=None, slots=1, skip_if=None, on_failure=None)()


def test_an_override_of_none_is_nobodys_business():
    moved_overridden({}, {"rebuild": None})()
    moved_overridden({}, {"rebuild": None}, None)()
    moved_overridden({"rebuild": None}, {"rebuild": unmarked}, None)()


def test_names_are_a_kind_of_their_own():
    with pytest.raises(InvalidName):
        task(name=" ")()


def test_max_runs_is_the_older_name_of_slots():
    assert mesh.worker("w", max_runs=4).slots == 4
    assert mesh.worker("w", slots=4).slots == 4
    assert mesh.worker("w").slots == 100
