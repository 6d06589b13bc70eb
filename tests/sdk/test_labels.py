"""Labels: what workers say of themselves, what steps and runs want of them, and what is refused where it is written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from mesh_sdk import Context, DefinitionError, InvalidInput, Mesh, WorkerLabel
from mesh_sdk.protocol.definitions import LabelDefinition
from tests.sdk.conftest import until
from tests.sdk.scheduler import Scheduler

here = Mesh()


def work(ctx: Context) -> None: ...


def wishes_of(desired: Any) -> list[LabelDefinition]:
    return here.task(desired_worker_labels=desired)(work).definition().steps[0].labels


def test_wishes_travel() -> None:
    assert wishes_of(None) == wishes_of({}) == []
    assert wishes_of(
        {
            "gpu": WorkerLabel("a100", required=True, weight=10),
            "zone": "eu",
            "memory": WorkerLabel(64, comparator=">="),
            "model": WorkerLabel(["a", 2, 0.5], required=True, comparator="in"),
            "spot": WorkerLabel("yes", comparator="!=", weight=-5),
        }
    ) == [
        LabelDefinition("gpu", "a100", "=", True, 10),
        LabelDefinition("zone", "eu", "=", False, 100),
        LabelDefinition("memory", 64, ">=", False, 100),
        LabelDefinition("model", ("a", 2, 0.5), "in", True, 100),
        LabelDefinition("spot", "yes", "!=", False, -5),
    ]
    flow = here.workflow(name="flow")
    flow.step(desired_worker_labels={"gpu": 1})(work)
    assert flow.definition().steps[0].labels == [LabelDefinition("gpu", 1)]


@pytest.mark.parametrize(
    ("given", "travels"),
    [("=", "="), ("==", "="), ("≠", "!="), ("≤", "<="), ("≥", ">="), *((each, each) for each in ("!=", "<", "<=", ">", ">="))],
)
def test_comparators(given: str, travels: str) -> None:
    assert wishes_of({"a": WorkerLabel(1, comparator=given)})[0].comparator == travels


def label(value: Any = 1, **changes: Any) -> dict[str, WorkerLabel]:
    return {"gpu": WorkerLabel(value, **changes)}


BAD: list[tuple[str, Any, str]] = [
    ("no mapping", ["gpu"], "{} is ['gpu']: use a mapping"),
    ("a label alone", WorkerLabel(1), "{} is WorkerLabel("),
    ("name empty", {"": 1}, "{} has a label called '': use 1 to 128 printable characters"),
    ("name a number", {3: 1}, "{} has a label called 3"),
    ("name too long", {"a" * 129: 1}, "use 1 to 128"),
    ("name unprintable", {"a\nb": 1}, r"'a\nb'"),
    ("plain none", {"gpu": None}, "label 'gpu' of {} is None: use text of up to 512 characters, or a finite number"),
    ("plain truth value", {"gpu": True}, "is True"),
    ("plain list", {"gpu": ["a"]}, "is ['a'], which '=' can't compare with: use one value, or comparator='in'"),
    ("plain mapping", {"gpu": {"a": 1}}, "is {{'a': 1}}"),
    ("none", label(None), "is None"),
    ("truth value", label(True), "is True"),
    ("NaN", label(float("nan")), "is nan"),
    ("infinite", label(float("inf")), "is inf"),
    ("too large", label(2**63), "is 9223372036854775808"),
    ("bytes", label(b"a"), "is b'a'"),
    ("text too long", label("a" * 513), "use text of up to 512 characters"),
    ("less than a list", label([1, 2], comparator="<"), "is [1, 2], which '<' can't compare with"),
    ("at least a tuple", label((1, 2), comparator=">="), "is (1, 2), which '>=' can't compare with"),
    ("less than none", label(None, comparator="<"), "is None"),
    ("more than a truth value", label(False, comparator=">"), "is False"),
    ("more than NaN", label(float("nan"), comparator=">"), "is nan"),
    ("in a text", label("abc", comparator="in"), "label 'gpu' of {} is 'abc': with comparator='in' use a list of 1 to 100 values"),
    ("in a number", label(1, comparator="in"), "is 1: with comparator='in'"),
    ("in nothing", label([], comparator="in"), "is []: with comparator='in'"),
    ("in too many", label(list(range(101)), comparator="in"), "a list of 1 to 100 values"),
    ("in a truth value", label([1, True], comparator="in"), "is True"),
    ("in lists", label([[1]], comparator="in"), "is [1]"),
    ("comparator", label(comparator="~"), "comparator of label 'gpu' of {} is '~': use one of =, !=, <, <=, >, >=, in"),
    ("comparator none", label(comparator=None), "is None"),
    ("required", label(required="yes"), "required of label 'gpu' of {} is 'yes': use True or False"),
    ("weight a text", label(weight="10"), "weight of label 'gpu' of {} is '10': use a whole number"),
    ("weight a truth value", label(weight=True), "is True"),
    ("weight too large", label(weight=10**6 + 1), "is 1000001"),
    ("too many", {f"l{n}": 1 for n in range(33)}, "{} has 33 labels, 32 are the most"),
    (
        "too large together",
        {f"l{n}": WorkerLabel(["a" * 500] * 10, comparator="in") for n in range(4)},
        "bytes as JSON, 16,384 are the most",
    ),
]


@pytest.mark.parametrize(("desired", "said"), [case[1:] for case in BAD], ids=[case[0] for case in BAD])
def test_a_wish_that_cannot_be(desired: Any, said: str) -> None:
    with pytest.raises(DefinitionError) as refused:
        wishes_of(desired)
    assert said.format("desired_worker_labels of step 'work' of workflow 'work'") in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ("gpu", "labels of worker 'w' is 'gpu': use a mapping"),
        ({"": 1}, "labels of worker 'w' has a label called ''"),
        ({3: 1}, "3"),
        ({"a" * 129: 1}, "use 1 to 128 printable characters"),
        ({"a": True}, "label 'a' of worker 'w' is True"),
        ({"a": None}, "None"),
        ({"a": ["x"]}, "['x']"),
        ({"a": float("nan")}, "nan"),
        ({"a": float("-inf")}, "-inf"),
        ({"a": "x" * 513}, "use text of up to 512 characters"),
        ({f"l{n}": 1 for n in range(33)}, "has 33 of them, 32 are the most"),
    ],
)
def test_a_label_that_no_worker_can_have(labels: Any, said: str) -> None:
    with pytest.raises(DefinitionError) as refused:
        here.worker("w", labels=labels)
    assert said in str(refused.value)


def test_labels_of_a_worker() -> None:
    given: dict[str, str | int | float] = {"gpu": "a100", "memory": 64, "load": 0.5}
    worker = here.worker("w", labels=given)
    assert worker.labels == given
    assert worker.labels is not given


# ---- of one run

VERBS: list[Callable[[Mesh, dict[str, Any]], Any]] = [
    lambda mesh, options: mesh.start("echo", 1, **options),
    lambda mesh, options: mesh.run("echo", 1, **options),
    lambda mesh, options: mesh.run_many("echo", [1], **options),
    lambda mesh, options: mesh.start_nowait("echo", 1, **options).accepted(),
]


@pytest.mark.parametrize("verb", VERBS)
async def test_wishes_of_a_run_travel(mesh: Mesh, scheduler: Scheduler, verb: Callable[..., Any]) -> None:
    await verb(mesh, {"desired_worker_labels": {"gpu": WorkerLabel("a100", required=True), "zone": "eu"}})
    await until(lambda: bool(scheduler.starts))
    [(_, start)] = scheduler.starts
    assert start.labels == [LabelDefinition("gpu", "a100", "=", True), LabelDefinition("zone", "eu")]


@pytest.mark.parametrize("verb", VERBS)
async def test_a_wish_of_a_run_that_cannot_be(mesh: Mesh, scheduler: Scheduler, verb: Callable[..., Any]) -> None:
    with pytest.raises(InvalidInput, match="label 'gpu' of desired_worker_labels of the start of 'echo' is True"):
        await verb(mesh, {"desired_worker_labels": {"gpu": True}})
    assert not scheduler.starts
