"""Keys in CEL: what is evaluated, what is refused with a reason, what it may cost, and what happens where CEL is not installed."""

from __future__ import annotations

import time
from importlib.metadata import PackageNotFoundError
from typing import Any

import pytest

from mesh.core.core import Core
from mesh.core.records import RunFinished
from mesh.scheduler import cel
from mesh_sdk.protocol.bounds import KEY_CHARACTERS_MAX
from mesh_sdk.protocol.definitions import CEL, ConcurrencyDefinition, StepDefinition, WorkflowDefinition
from mesh_sdk.protocol.records import FAILED
from tests.core.world import World

VARIABLES: dict[str, Any] = {
    "input": {"user": "ada", "age": 36, "tags": ["hot", "new"], "nothing": None, "half": 0.5, "old": False},
    "metadata": {"tenant": "t-1"},
}


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("input.user", "ada"),
        ("metadata.tenant + ':' + input.user", "t-1:ada"),
        ("string(input.age)", "36"),
        ("input.age", 36),
        ("input.half", 0.5),
        ("input.age > 30", True),
        ("has(input.region) ? input.region : 'none'", "none"),
        ("input.tags.exists(tag, tag == 'hot') ? 'hot' : 'cold'", "hot"),
        ("input.user.startsWith('a') ? 'a' : 'other'", "a"),
        ("'.map(x, x) and .matches(x) as text'", ".map(x, x) and .matches(x) as text"),
        ("input['user']", "ada"),
    ],
)
def test_an_expression_has_a_value(expression: str, value: object) -> None:
    found = cel.evaluate(expression, VARIABLES)
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        ("input.user +", "it can't be read: it ends at character 13 and is not complete"),
        ("input.region", "there is no field 'region'"),
        ("region", "'region'"),
        ("frobnicate(input.user)", "frobnicate"),
        ("input.user + input.age", "string + int"),
        ("1 / 0 > 1", "division by zero"),
        ("input.tags[7]", "index out of bounds"),
        ("input.nothing", "it is null: it must be a text, a number or a truth value"),
        ("string(input.nothing)", "string(…) does not take what it was given: null, or a value of another kind"),
        ("input.age.startsWith('3')", "startsWith(…) does not take what it was given"),
        ("input.user ! input.age", "it can't be read at character 12, '!'"),
        ("input.user +\n 'x", "it can't be read in line 2 at character 2, \"'x\""),
        ("input.user ? 'x'", "it can't be read at character 1"),
        ("input.tags", 'it is a list (["hot","new"]): it must be a text, a number or a truth value'),
        ("input", 'it is an object ({"age":36,"half":0.5,"nothing":null,"old":false,"tags":["hot…)'),
        ("[duration('1h')]", "it is a list"),
        ("duration('1h')", "it is a duration (1:00:00)"),
        ("timestamp('2020-01-01T00:00:00Z')", "it is a time (2020-01-01 00:00:00+00:00)"),
        ("b'ada'", "it is bytes (b'ada')"),
        ("optional.none()", "it is a value of its own kind (OptionalValue.none())"),
        ("1.0 / 0.0", "it is inf"),
        ("'" + "x" * 511 + "'", "it has 513 characters, 512 are the most"),
        ("(" * 250 + "1" + ")" * 250, "it is nested too deeply"),
        ("[" * 250 + "1" + "]" * 250, "it is nested too deeply"),
        ("input.user.matches('(a{1,50}){1,50}b')", "neither map, filter nor matches"),
        ("input.tags.map(x, x)[0]", "neither map, filter nor matches"),
        ("input.tags.exists(x, input.tags.all(y, x == y))", "use one at most"),
        (r"r'\' + input.tags.map(x, x)[0] + r'\'", "neither map, filter nor matches"),
        ("input.user // it's\n + input.tags.map(x, x)[0] // isn't it", "neither map, filter nor matches"),
        ("input.tags. // a remark\n map(x, x)[0]", "neither map, filter nor matches"),
    ],
    ids=lambda value: value[:30],
)
def test_what_has_no_value_says_why(expression: str, said: str) -> None:
    with pytest.raises(ValueError) as refused:
        cel.evaluate(expression, VARIABLES)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 250


def test_a_value_that_cannot_be_shown_is_refused_like_others() -> None:
    with pytest.raises(ValueError, match="it is a list: it must be"):
        cel.evaluate("[optional.none()]", {"input": {}, "metadata": {}})


LARGE = [
    [0] * 2_000,
    {str(number): number for number in range(2_000)},
    "x" * 70_000,
    {"x" * 70_000: 1},
    ["x" * 700] * 100,
]


@pytest.mark.parametrize("large", LARGE, ids=lambda value: type(value).__name__)
def test_an_input_that_would_take_long_is_refused_at_once(large: object) -> None:
    with pytest.raises(ValueError, match="too large for CEL"):
        cel.evaluate("input.user", {"input": {"user": "ada", "large": large}, "metadata": {}})


def test_an_input_that_would_overflow_the_stack_is_refused() -> None:
    deep: object = "ada"
    for _ in range(900):
        deep = [deep]
    with pytest.raises(ValueError, match="nested too deeply for CEL"):
        cel.evaluate("input.user", {"input": {"user": "ada", "deep": deep}, "metadata": {}})


def test_the_dearest_expression_costs_little() -> None:
    """The bound leaves room for a slow machine; nested loops over this took most of a second, and patterns seconds."""
    variables = {"input": {"tags": ["b"] * 1_900, "text": "a" * 60_000}, "metadata": {}}
    expression = f"input.tags.exists(x, {'||'.join(['(input.text+x).contains(x+x)'] * 15)}) ? 'a' : 'b'"
    assert len(expression) < KEY_CHARACTERS_MAX
    begun = time.process_time()
    assert cel.evaluate(expression, variables) == "b"
    assert time.process_time() - begun < 1.0


def test_an_expression_is_compiled_once() -> None:
    cel._compiled.cache_clear()
    for _ in range(3):
        cel.evaluate("input.user", VARIABLES)
        with pytest.raises(ValueError):
            cel.evaluate("input.user +", VARIABLES)
    assert cel._compiled.cache_info().misses == 2
    assert cel._compiled.cache_info().maxsize is not None


def run_of(world: World, expression: str, input: bytes) -> str:
    """A run of a workflow with this key."""
    limit = ConcurrencyDefinition(1, key=expression, language=CEL)
    world.join("w1", [WorkflowDefinition("keyed", [StepDefinition("work")], concurrency=[limit])], 2)
    return world.start("keyed", input=input)


def end_of(world: World, run: str) -> RunFinished | None:
    return next((fact for _, fact in world.journal if isinstance(fact, RunFinished) and fact.run == run), None)


def world_with(evaluate: Any) -> World:
    world = World()
    world.core = Core(world.state, world._token, evaluate)
    return world


def test_a_run_waits_in_the_group_that_its_expression_names() -> None:
    world = world_with(cel.evaluator())
    first = run_of(world, "input.user + '-' + input.team", b'{"user": "ada", "team": "x"}')
    second = world.start("keyed", input=b'{"user": "ada", "team": "x"}')
    other = world.start("keyed", input=b'{"user": "ada", "team": "y"}')
    assert [world.state.runs[run].ticket.placed for run in (first, second, other)] == [True, False, True]  # type: ignore[union-attr]


def test_a_run_whose_expression_finds_nothing_fails_with_the_reason() -> None:
    world = world_with(cel.evaluator())
    end = end_of(world, run_of(world, "input.user + '-' + input.team", b'{"user": "ada"}'))
    assert end is not None
    assert end.status == FAILED
    assert "there is no field 'team'" in end.reason


def test_where_it_is_not_installed_the_run_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(cel, "distribution", missing)
    assert cel.evaluator() is None
    end = end_of(world := world_with(cel.evaluator()), run_of(world, "input.a + input.b", b'{"a": "1", "b": "2"}'))
    assert end is not None
    assert end.status == FAILED
    assert "install natsmesh[cel]" in end.reason
