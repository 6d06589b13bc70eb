"""Flow control that can't be, off the wire: SDKs refuse it where it is written, the core where it arrives, and goes on."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from msgspec import Raw

from mesh_sdk import Concurrency, Context, Mesh, RateLimit, WorkerLabel
from mesh_sdk.protocol import bounds
from mesh_sdk.protocol import records as wire
from mesh_sdk.protocol.definitions import (
    CEL,
    FUNCTION,
    KEY,
    ConcurrencyDefinition,
    LabelDefinition,
    RateDefinition,
    StepDefinition,
    WorkflowDefinition,
)
from tests.core.workflows import chain
from tests.core.world import World

PATH_KEY = "input.a"
LONG = "x" * 600


def limit(**changes: Any) -> WorkflowDefinition:
    """A workflow with one concurrency limit."""
    return WorkflowDefinition(
        "w", [StepDefinition("a")], concurrency=[ConcurrencyDefinition(**{"max_runs": 1, "key": PATH_KEY, **changes})]
    )


def step(**options: Any) -> WorkflowDefinition:
    return WorkflowDefinition("w", [StepDefinition("a", **options)])


def rate(**changes: Any) -> WorkflowDefinition:
    return step(rate_limits=[RateDefinition(**{"key": "mails", "limit": 10, "per_ms": 1_000, **changes})])


def label(**changes: Any) -> WorkflowDefinition:
    return step(labels=[LabelDefinition(**{"name": "gpu", "value": 1, **changes})])


def key_function(key: StepDefinition, *others: StepDefinition, function: str = "key") -> WorkflowDefinition:
    return WorkflowDefinition("w", [key, *others], concurrency=[ConcurrencyDefinition(1, key=function, language=FUNCTION)])


KEYED = StepDefinition("key", kind=KEY, slots=0)
BY_FUNCTION = [ConcurrencyDefinition(1, key="key", language=FUNCTION)]
BAD: dict[str, tuple[WorkflowDefinition, str]] = {
    "max_runs 0": (limit(max_runs=0), "workflow 'w' has max_runs 0: use 1 to 1,000,000"),
    "max_runs below 0": (limit(max_runs=-3), "max_runs -3"),
    "max_runs above": (limit(max_runs=1_000_001), "max_runs 1000001"),
    "of a step": (step(concurrency=[ConcurrencyDefinition(0, key=PATH_KEY)]), "step w:a has max_runs 0"),
    "strategy": (limit(strategy="FIFO"), "limit strategy 'FIFO': use one of GROUP_ROUND_ROBIN, CANCEL_IN_PROGRESS"),
    "language": (limit(language="sql"), "concurrency key in language 'sql': use one of path, cel, function"),
    "no path": (limit(key="user_id"), "concurrency key 'user_id': use a dotted path from input or metadata, such as input.user_id"),
    "no key": (limit(key=""), "a concurrency key of 0 characters: use 1 to 512"),
    "long key": (limit(key=LONG, language=CEL), "a concurrency key of 600 characters: use 1 to 512"),
    "long scope": (limit(scope=LONG), "has a scope of 600 characters, 'xxx"),
    "weight": (limit(weights={"gold": 0}), "has weight 0 for key 'gold': use 1 to 1,000"),
    "weights": (limit(weights={f"{n}": 1 for n in range(1_001)}), "has weights for 1,001 keys: use at most 1,000"),
    "limits": (
        WorkflowDefinition("w", [StepDefinition("a")], concurrency=[ConcurrencyDefinition(1, key=PATH_KEY)] * 9),
        "9 concurrency limits",
    ),
    "unknown key function": (limit(key="key", language=FUNCTION), "by key function 'key', which it does not define"),
    "key function of a step": (step(concurrency=BY_FUNCTION), "step w:a has a concurrency limit by a key function: only workflows can"),
    "key function with slots": (key_function(StepDefinition("key", kind=KEY), StepDefinition("a")), "it takes no slots"),
    "key function is a parent": (key_function(KEYED, StepDefinition("a", [0])), "step w:key is a key function and has parents or children"),
    "key function for nothing": (WorkflowDefinition("w", [KEYED, StepDefinition("a")]), "that no concurrency limit of the workflow names"),
    "kind": (step(kind="cron"), "step w:a is of kind 'cron', which nobody here knows"),
    "slots 0": (step(slots=0), "step w:a takes 0 slots: use 1 to 100,000"),
    "slots above": (step(slots=100_001), "takes 100001 slots"),
    "rate per": (rate(per_ms=0), "step w:a has a rate per 0 ms: use 1 to 31,622,400,000"),
    "rate key": (rate(key="input."), "has rate key 'input.': use a name, or a dotted path such as input.user_id"),
    "rate limit": (rate(limit=0), "has rate limit 0: use 1 to 1,000,000,000"),
    "rate limit text": (rate(limit="ten"), "has rate limit 'ten': use a number, or a dotted path such as input.limit"),
    "units below 0": (rate(units=-1), "has rate units -1"),
    "units above": (rate(units=11), "wants 11 units of rate 'mails' at once, which lets 10 pass: it never could"),
    "rates": (step(rate_limits=[RateDefinition(f"r{n}", 1, 1_000) for n in range(9)]), "9 rate limits, 8 are the most"),
    "comparator": (label(comparator="~"), "compares label 'gpu' by '~': use one of =, !=, <, <=, >, >=, in"),
    "in without a list": (label(comparator="in"), "compares label 'gpu' by 'in' with 1: only `in` takes a list"),
    "list without in": (label(value=(1, 2)), "compares label 'gpu' by '=' with (1, 2)"),
    "long label": (label(value=LONG), "with a text of 600 characters: use at most 512"),
    "long label in a list": (label(value=("a", LONG), comparator="in"), "with a text of 600 characters"),
    "long name of a label": (label(name=LONG), "names a label of 600 characters, 'xxx"),
    "choices": (label(value=tuple(range(101)), comparator="in"), "with 101 values: use at most 100"),
    "weight of a label": (label(weight=10**6 + 1), "gives label 'gpu' weight 1000001: use up to 1,000,000"),
    "labels": (step(labels=[LabelDefinition(f"l{n}", 1) for n in range(33)]), "33 labels, 32 are the most"),
    "admission timeout": (msgspec.structs.replace(limit(), admission_timeout_ms=-1), "has admission timeout -1 ms: use 0 to"),
}


@pytest.mark.parametrize("what", BAD)
def test_a_worker_that_brings_it_is_refused_and_the_others_serve_on(what: str) -> None:
    definition, words = BAD[what]
    world = World()
    holder = world.join("w1", [chain("good", 1)])
    world.join("w2", [chain("good", 1), definition])
    told = world.notices[-1][1]
    assert isinstance(told, wire.Registered)
    assert words in told.refused
    assert "\n" not in told.refused
    assert len(told.refused) <= 1_000
    assert list(world.state.flows) == ["good"]
    run = world.start("good")
    world.run_all()
    assert world.executed[-1][0] == run
    assert world.executed[-1][3] == holder.id
    world.check_followers()


def test_labels_of_a_start_that_cannot_be_refuse_it() -> None:
    world = World()
    world.join("w1", [chain("good", 1)])
    for wish, words in (
        (LabelDefinition("gpu", 1, "~"), "compares label 'gpu' by '~'"),
        (LabelDefinition("gpu", LONG), "a text of 600 characters"),
    ):
        done = world.done(world.start("good", labels=[wish]))
        assert done is not None
        assert done.errors is not None
        assert (done.status, done.errors[0].type) == (wire.REFUSED, "InvalidInput")
        assert words in done.errors[0].message
        assert not world.state.runs


@pytest.mark.parametrize("value", [b"true", b"null", b"[1]", b'{"a":1}'])
def test_a_label_that_is_no_text_or_number_is_no_registration(value: bytes) -> None:
    data = msgspec.json.encode(wire.Register("w", 1, [chain()], {"gpu": "?"}, "c")).replace(b'"?"', value)
    with pytest.raises(msgspec.ValidationError, match=r"Expected `int \| float \| str`, got"):
        msgspec.json.decode(data, type=wire.Register)


# ---- what is just within the bounds passes on both sides --------------------------------------------------------------------


def _largest() -> WorkflowDefinition:
    """All that an SDK lets pass, as large as it may be."""
    mesh = Mesh()
    label = "v" * bounds.LABEL_CHARACTERS_MAX
    limits = [
        Concurrency(f"input.{'k' * (bounds.KEY_CHARACTERS_MAX - 7)}{n}", bounds.RUNS_MAX, scope=f"{n}" * bounds.SCOPE_CHARACTERS_MAX)
        for n in range(bounds.LIMITS_MAX)
    ]
    rates = [
        RateLimit(f"{n}" * bounds.KEY_CHARACTERS_MAX, bounds.UNITS_MAX, 366 * 86_400, bounds.UNITS_MAX) for n in range(bounds.LIMITS_MAX)
    ]
    labels = {f"{n}".zfill(bounds.LABEL_NAME_CHARACTERS_MAX): WorkerLabel(label, weight=-bounds.LABEL_WEIGHT_MAX) for n in range(24)}
    labels["choices"] = WorkerLabel(list(range(bounds.LABEL_CHOICES_MAX)), comparator="in")

    @mesh.task(concurrency=limits, rate_limits=rates, desired_worker_labels=labels, slots=bounds.SLOTS_MAX)
    def large(ctx: Context) -> None: ...

    return large.definition()


def test_what_an_sdk_lets_pass_the_core_takes() -> None:
    world = World()
    labels = {f"{n}".zfill(bounds.LABEL_NAME_CHARACTERS_MAX): "v" * bounds.LABEL_CHARACTERS_MAX for n in range(bounds.LABELS_MAX)}
    mesh = Mesh()
    worker = mesh.worker("w", slots=1_000, labels=labels)  # type: ignore[arg-type]
    world.join("w1", [_largest()], worker.slots, **worker.labels)
    told = world.notices[-1][1]
    assert isinstance(told, wire.Registered)
    assert told.refused == ""
    world.start("large", input=bytes(Raw(b'{"k": 1}')))
