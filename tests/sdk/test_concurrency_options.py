"""`concurrency=`: what limits runs of one key, what a key may be, and what is refused where it is written."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from importlib.metadata import PackageNotFoundError
from typing import Any

import pytest

from mesh_sdk import Concurrency, ConcurrencyLimitStrategy, Context, DefinitionError, Mesh, expressions
from mesh_sdk.protocol.definitions import CEL, GROUP_ROUND_ROBIN, PATH, QUEUE_NEWEST, ConcurrencyDefinition

mesh = Mesh()


def work(ctx: Context) -> None: ...


def of_task(concurrency: Any) -> list[ConcurrencyDefinition]:
    return mesh.task(concurrency=concurrency)(work).definition().concurrency


def of_step(concurrency: Any) -> list[ConcurrencyDefinition]:
    flow = mesh.workflow(name="flow")
    flow.step(concurrency=concurrency)(work)
    assert not flow.definition().concurrency
    return flow.definition().steps[0].concurrency


def of_workflow(concurrency: Any) -> list[ConcurrencyDefinition]:
    flow = mesh.workflow(name="flow", concurrency=concurrency)
    flow.step()(work)
    assert not flow.definition().steps[0].concurrency
    return flow.definition().concurrency


PLACES = [of_task, of_step, of_workflow]


@pytest.mark.parametrize("limits_of", PLACES)
def test_limits_travel(limits_of: Callable[[Any], list[ConcurrencyDefinition]]) -> None:
    assert limits_of(None) == limits_of([]) == limits_of(()) == []
    assert limits_of("input.user_id") == [ConcurrencyDefinition(1, GROUP_ROUND_ROBIN, "input.user_id", PATH)]
    assert limits_of(Concurrency("metadata.tenant", 5, "QUEUE_NEWEST")) == [ConcurrencyDefinition(5, QUEUE_NEWEST, "metadata.tenant", PATH)]
    assert limits_of([Concurrency("input.a", 2, scope="all", weights={"big": 1_000}), "input.b"]) == [
        ConcurrencyDefinition(2, GROUP_ROUND_ROBIN, "input.a", PATH, "all", {"big": 1_000}),
        ConcurrencyDefinition(1, GROUP_ROUND_ROBIN, "input.b", PATH),
    ]


def test_one_key_may_be_limited_in_several_ways() -> None:
    limits = [Concurrency("input.a", 5), Concurrency("input.a", 9, scope="all"), Concurrency("input.a", 5, "CANCEL_NEWEST")]
    assert [(limit.strategy, limit.scope) for limit in of_task(limits)] == [
        ("GROUP_ROUND_ROBIN", ""),
        ("GROUP_ROUND_ROBIN", "all"),
        ("CANCEL_NEWEST", ""),
    ]


@pytest.mark.parametrize("strategy", ConcurrencyLimitStrategy)
def test_a_strategy_is_also_its_exact_name(strategy: ConcurrencyLimitStrategy) -> None:
    for given in (strategy, strategy.value):
        [limit] = of_task(Concurrency("input.a", limit_strategy=given))
        assert type(limit.strategy) is str
        assert limit.strategy == strategy.value


@pytest.mark.parametrize("key", ["input.user_id", "metadata.tenant", "input.user-id", "input.a.b.c", "input.1", "input.has"])
def test_paths(key: str) -> None:
    assert of_task(key)[0].language == PATH


@pytest.mark.parametrize(
    "key",
    [
        "input",
        "'all'",
        '"tenant-" + input.tenant',
        "input.a + '-' + input.b",
        "input.x in ['a', \"b\"] ? 'y' : 'n'",
        "has(input.a) && size(input.b) > 3 ? 'long' : 'short'",
        "string(input['a b'])",
        r"r'\' + input.a",
        r"'it\'s' + input.a",
        "'''it's''' + input.a",
        "b'x' + input.a",
        "input.a // it's a remark",
        "input.items.exists(i, i.price > 1.5e3) ? 'dear' : 'cheap'",
        "!!input.flag ? '1' : '2'",
        "input.a - -1",
        "[input.a, input.b,][0]",
        "input.a[ 'b' ].c",
        "input.a < 0x1F ? 'a' : 'b'",
        "type(input.a) == string ? input.a : 'other'",
        "has(input.a) && !(input.b in [1, 2u])",
        "timestamp(input.at).getFullYear()",
        "'{{' + input.a + '; ${'",
        "{'a': input.b}['a']",
        "!input.flag ? '1' : '2'",
        "'x' in metadata ? metadata.x : 'none'",
    ],
)
def test_what_is_no_plain_path_is_cel(key: str) -> None:
    assert (of_task(key)[0].language, of_task(key)[0].key) == (CEL, key)


BAD_KEYS: list[tuple[Any, str]] = [
    ("", "is ''"),
    ("  ", "is '  '"),
    (None, "is None"),
    (3, "is 3"),
    (b"input.a", "is b'input.a'"),
    ("user_id", "'user_id', which starts at neither input nor metadata"),
    ("inputs.user_id", "which starts at neither"),
    ("'a' + user.input", "which starts at neither"),
    ("17", "which starts at neither"),
    ("input.", "which is not complete"),
    ("input..a", "which is not complete"),
    ("input.a +", "which is not complete"),
    ("// nothing", "which is not complete"),
    ("input.a b", "with no operator before 'b'"),
    ("input.a 'x'", "with no operator before a text"),
    ("(input.a", "with a ( that is not closed"),
    ("input.a)", "with a ) that was not opened"),
    ("[input.a)", "with a ) that was not opened"),
    ("input['a]", "with a ' that is not closed"),
    ('input["a]', 'with a " that is not closed'),
    ("input." + "a" * 600, "has 606 characters, 512 are the most"),
    ("1 +", "which is not complete"),
    ("+ input.a", "with nothing before '+'"),
    ("input.(", "with a ( that is not closed"),
    ("input.(a)", "with no name between '.' and '('"),
    ("input.?a", "with no name between '.' and '?'"),
    ("{{input.user}}", "with nothing between '{' and '{'"),
    ("${input.user}", "with '$', which stands for nothing in CEL"),
    ("input.user_id;", "with ';', which stands for nothing in CEL"),
    ("input.a === 'x'", "with '=', which stands for nothing in CEL"),
    ("input.straße", "with 'ß', which stands for nothing in CEL"),
    ("input->user", "with nothing between '-' and '>'"),
    ("input.a ++ input.b", "with nothing between '+' and '+'"),
    ("input.a ! input.b", "with no operator before '!'"),
    ("input.a and input.b", "with no operator before 'and'"),
    ("f'{input.a}'", "with no operator before a text"),
    ("input/user", "with 'user', which starts at neither input nor metadata"),
    ("{a: input.b}['a']", "with 'a', which starts at neither input nor metadata"),
    ("input.a.lower()", "with lower(…), which is no function of CEL"),
    ("len(input.a)", "with len(…), which is no function of CEL"),
    ("input.items.filter(i, i > 1)[0]", "and it would cost the scheduler too much"),
    ("input.a.exists(x, input.b.all(y, x == y))", "of all, exists and exists_one use one at most"),
    ("input.a + '" + "x" * 400 + "' !", "which is not complete"),
    (work, "a function gives keys as @mesh.concurrency(max_runs=…) on a method, or @workflow.concurrency(…)"),
]


@pytest.mark.parametrize("parser", [True, False], ids=["with the parser", "without it"])
@pytest.mark.parametrize(("key", "said"), BAD_KEYS, ids=[repr(key)[:20] for key, _ in BAD_KEYS])
def test_a_key_that_cannot_be(key: Any, said: str, parser: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not parser:
        monkeypatch.setattr(expressions, "distribution", missing)
    with pytest.raises(DefinitionError, match=r"^key of the concurrency of task 'work' ") as refused:
        of_task(Concurrency(key))
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 400


def missing(name: str) -> None:
    raise PackageNotFoundError(name)


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("input.a ? 'x'", "and it can't be read at character 1"),
        ("input.a : 'x'", "and it can't be read at character 9, ':'"),
        ("input.a, input.b", "and it can't be read at character 8, ','"),
        ("(" * 250 + "input" + ")" * 250, "and it is nested too deeply"),
    ],
)
def test_what_only_the_parser_finds_is_refused_where_it_is_installed(key: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DefinitionError) as refused:
        of_task(key)
    assert f"{said}: use a dotted path" in str(refused.value)
    monkeypatch.setattr(expressions, "distribution", missing)
    assert of_task(key)[0].language == CEL


def test_a_function_is_no_concurrency() -> None:
    with pytest.raises(
        DefinitionError, match=r"concurrency of task 'work' is <function work .*@mesh\.concurrency\(max_runs=…\) on a method"
    ):
        of_task(work)


KEY = "input.a"
BAD_LIMITS: list[tuple[str, Any, str]] = [
    ("number", 3, "concurrency of {} is 3: use a key"),
    ("set", {KEY}, "concurrency of {} is {{'input.a'}}"),
    ("number in a list", [KEY, 3], "concurrency of {} holds 3"),
    ("list in a list", [[KEY]], "concurrency of {} holds ['input.a']"),
    ("max_runs 0", Concurrency(KEY, 0), "max_runs of the concurrency of {} is 0: use a whole number from 1 to 1,000,000"),
    ("max_runs below 0", Concurrency(KEY, -1), "is -1"),
    ("max_runs a truth value", Concurrency(KEY, True), "is True"),
    ("max_runs a fraction", Concurrency(KEY, 1.0), "is 1.0"),  # type: ignore[arg-type]
    ("max_runs a text", Concurrency(KEY, "5"), "is '5'"),  # type: ignore[arg-type]
    ("max_runs none", Concurrency(KEY, None), "is None"),  # type: ignore[arg-type]
    ("max_runs too many", Concurrency(KEY, 10**6 + 1), "is 1000001"),
    ("strategy", Concurrency(KEY, 1, "FIFO"), "limit_strategy of the concurrency of {} is 'FIFO': use one of"),  # type: ignore[arg-type]
    ("strategy nearly", Concurrency(KEY, 1, "cancel_newest"), "is 'cancel_newest'"),  # type: ignore[arg-type]
    ("strategy none", Concurrency(KEY, 1, None), "is None"),  # type: ignore[arg-type]
    ("strategy the class", Concurrency(KEY, 1, ConcurrencyLimitStrategy), "CANCEL_IN_PROGRESS, CANCEL_NEWEST"),  # type: ignore[arg-type]
    ("scope", Concurrency(KEY, scope=3), "scope of the concurrency of {} is 3"),  # type: ignore[arg-type]
    ("scope too long", Concurrency(KEY, scope="a" * 129), "use up to 128 printable characters"),
    ("scope unprintable", Concurrency(KEY, scope="a\nb"), r"is 'a\nb'"),
    ("weights", Concurrency(KEY, weights=["a"]), "weights of the concurrency of {} is ['a']"),  # type: ignore[arg-type]
    ("weight 0", Concurrency(KEY, weights={"a": 0}), "weight of 'a' of the concurrency of {} is 0: use a whole number from 1 to 1,000"),
    ("weight too large", Concurrency(KEY, weights={"a": 1_001}), "is 1001"),
    ("weight a truth value", Concurrency(KEY, weights={"a": True}), "is True"),
    ("weight a fraction", Concurrency(KEY, weights={"a": 1.5}), "is 1.5"),  # type: ignore[dict-item]
    ("weight of a number", Concurrency(KEY, weights={3: 1}), "has the key 3"),  # type: ignore[dict-item]
    ("weights without turns", Concurrency(KEY, 1, "CANCEL_NEWEST", weights={"a": 2}), "would never count: only GROUP_ROUND_ROBIN"),
    ("twice", [KEY, KEY], "concurrency of {} has two limits on 'input.a' with one strategy and scope"),
    ("twice, but for max_runs", [KEY, Concurrency(KEY, 5)], "keep the one with fewer max_runs"),
    ("too many", [f"input.a{n}" for n in range(9)], "has 9 limits, 8 are the most"),
]


@pytest.mark.parametrize(("limit", "said"), [case[1:] for case in BAD_LIMITS], ids=[case[0] for case in BAD_LIMITS])
def test_a_limit_that_cannot_be(limit: Any, said: str) -> None:
    for limits_of, what in zip(PLACES, ("task 'work'", "step 'work' of workflow 'flow'", "workflow 'flow'"), strict=True):
        with pytest.raises(DefinitionError) as refused:
            limits_of(limit)
        assert said.format(what) in str(refused.value)
        assert "\n" not in str(refused.value)


# ---- scopes, and how long a run waits for its place ----------------------------------------------------------------------


def scoped(name: str, strategy: str = "", *, of_steps: Iterable[str] = ()) -> Any:
    """A workflow with limits of the scope `host`: of itself if there is a strategy, and of one step for each of these."""
    limit = Concurrency(KEY, 2, strategy, scope="host") if strategy else None  # type: ignore[arg-type]
    flow = mesh.workflow(name=name, concurrency=limit)
    for number, of_step in enumerate(of_steps):
        flow.step(name=f"s{number}", concurrency=Concurrency("input.b", 1, of_step, scope="host"))(work)  # type: ignore[arg-type]
    if not of_steps:
        flow.step()(work)
    return flow


def test_limits_of_one_scope_have_one_strategy() -> None:
    assert scoped("steps", of_steps=["QUEUE_NEWEST"] * 2).definition()
    with pytest.raises(DefinitionError) as refused:
        scoped("flow", of_steps=["QUEUE_NEWEST", "CANCEL_NEWEST"]).definition()
    for said in ("scope 'host' disagree: step 's0' of workflow 'flow' has QUEUE_NEWEST", "step 's1' of workflow 'flow' has", "use one"):
        assert said in str(refused.value)
    agreed = scoped("agreed", "QUEUE_NEWEST")
    with pytest.raises(DefinitionError, match=r"workflow 'agreed' has QUEUE_NEWEST, workflow 'other' has CANCEL_IN_PROGRESS"):
        mesh.worker("w", workflows=[agreed, scoped("other", "CANCEL_IN_PROGRESS")])
    assert mesh.worker("w", workflows=[agreed, scoped("other", "QUEUE_NEWEST")])


def test_a_scope_is_of_workflows_or_of_steps() -> None:
    """Else a run could keep the place that another run's step waits for, while its own step waits for that run's place."""
    with pytest.raises(DefinitionError) as refused:
        scoped("flow", "QUEUE_NEWEST", of_steps=["QUEUE_NEWEST"]).definition()
    assert str(refused.value) == (
        "concurrency scope 'host' is of runs (workflow 'flow') and of attempts (step 's0' of workflow 'flow'): a run keeps its place "
        "while its steps wait for theirs, so two runs could wait for each other for ever. Use one scope for limits of workflows, another "
        "for those of steps"
    )
    steps = scoped("steps", of_steps=["QUEUE_NEWEST"])
    for both in ([steps, scoped("runs", "QUEUE_NEWEST")], [scoped("runs", "QUEUE_NEWEST"), steps]):
        with pytest.raises(DefinitionError, match=r"of runs \(workflow 'runs'\) and of attempts \(step 's0' of workflow 'steps'\)"):
            mesh.worker("w", workflows=both)


def test_a_schedule_timeout_bounds_the_wait_for_a_place_too() -> None:
    task = mesh.task(name="patient", concurrency=KEY, schedule_timeout="2m")(work)
    assert (task.definition().admission_timeout_ms, task.definition().steps[0].schedule_timeout_ms) == (120_000, 120_000)
    own = mesh.workflow(name="own", concurrency=KEY)
    own.step(schedule_timeout="2m")(work)
    assert own.definition().admission_timeout_ms == 0, "the step's begins when the run has its place"
    hard = mesh.task(name="hard", concurrency=KEY, sticky="HARD")(work)  # type: ignore[arg-type]
    assert (hard.definition().admission_timeout_ms, hard.definition().steps[0].schedule_timeout_ms) == (0, 300_000)
