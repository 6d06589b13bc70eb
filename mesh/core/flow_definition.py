"""Refuses what flow control can't be made of: SDKs check the same, but nothing off the wire is trusted."""

from __future__ import annotations

from collections.abc import Iterable

from mesh.core.keys import PATH_PREFIX, is_path
from mesh.core.quoting import quoted
from mesh_sdk.protocol import cel
from mesh_sdk.protocol.bounds import (
    KEY_CHARACTERS_MAX,
    LABEL_CHARACTERS_MAX,
    LABEL_CHOICES_MAX,
    LABEL_NAME_CHARACTERS_MAX,
    LABEL_WEIGHT_MAX,
    LABELS_MAX,
    LIMITS_MAX,
    PER_MS_MAX,
    RUNS_MAX,
    SCOPE_CHARACTERS_MAX,
    SLOTS_MAX,
    UNITS_MAX,
    WEIGHT_MAX,
    WEIGHTS_MAX,
)
from mesh_sdk.protocol.definitions import (
    CEL,
    COMPARATORS,
    FUNCTION,
    KEY,
    LANGUAGES,
    STRATEGIES,
    ConcurrencyDefinition,
    LabelDefinition,
    RateDefinition,
    StepDefinition,
    WorkflowDefinition,
)


def objection(definition: WorkflowDefinition) -> str:
    """What is wrong with the flow control of a workflow; "" if nothing is."""
    what = f"workflow {definition.name!r}"
    found = _about_limits(what, definition.concurrency, definition)
    for step in definition.steps:
        found = found or _about_step(f"step {definition.name}:{step.name}", step, definition)
    return found


def _about_step(what: str, step: StepDefinition, definition: WorkflowDefinition) -> str:
    if step.kind == KEY:
        return _about_key_function(what, step, definition)
    if step.kind:
        return f"{what} is of kind {step.kind!r}, which nobody here knows"
    if not 1 <= step.slots <= SLOTS_MAX:
        return f"{what} takes {step.slots} slots: use 1 to {SLOTS_MAX:,}"
    if any(limit.language == FUNCTION for limit in step.concurrency):
        return f"{what} has a concurrency limit by a key function: only workflows can"
    return (
        _about_limits(what, step.concurrency, definition)
        or _first(_about_rate(what, rate) for rate in step.rate_limits)
        or about_labels(what, step.labels)
        or _too_many(what, "rate limits", len(step.rate_limits), LIMITS_MAX)
    )


def _about_key_function(what: str, step: StepDefinition, definition: WorkflowDefinition) -> str:
    if step.parents or any(definition.steps.index(step) in other.parents for other in definition.steps):
        return f"{what} is a key function and has parents or children: it runs before all steps"
    if step.concurrency or step.rate_limits or step.labels or step.slots:
        return f"{what} is a key function: it takes no slots and has no limits of its own"
    if not any(limit.language == FUNCTION and limit.key == step.name for limit in definition.concurrency):
        return f"{what} is a key function that no concurrency limit of the workflow names"
    return ""


def _about_limits(what: str, limits: list[ConcurrencyDefinition], definition: WorkflowDefinition) -> str:
    return _first(_about_limit(what, limit, definition) for limit in limits) or _too_many(
        what, "concurrency limits", len(limits), LIMITS_MAX
    )


def _about_limit(what: str, limit: ConcurrencyDefinition, definition: WorkflowDefinition) -> str:
    if not 1 <= limit.max_runs <= RUNS_MAX:
        return f"{what} has max_runs {limit.max_runs}: use 1 to {RUNS_MAX:,}"
    if limit.strategy not in STRATEGIES:
        return f"{what} has limit strategy {limit.strategy!r}: use one of {', '.join(STRATEGIES)}"
    if limit.language not in LANGUAGES:
        return f"{what} has a concurrency key in language {limit.language!r}: use one of {', '.join(LANGUAGES)}"
    if not limit.key or len(limit.key) > KEY_CHARACTERS_MAX:
        return f"{what} has a concurrency key of {len(limit.key)} characters: use 1 to {KEY_CHARACTERS_MAX}"
    if limit.language == FUNCTION and not any(step.kind == KEY and step.name == limit.key for step in definition.steps):
        return f"{what} has a concurrency limit by key function {limit.key!r}, which it does not define"
    if limit.language not in (CEL, FUNCTION) and not is_path(limit.key):
        return f"{what} has concurrency key {limit.key!r}: use a dotted path from input or metadata, such as input.user_id"
    if limit.language == CEL and (wrong := cel.objection(limit.key) or cel.too_costly(limit.key)):
        return f"{what} has concurrency key {quoted(limit.key)} in CEL, {wrong}"
    return _about_scope(what, limit) or _about_weights(what, limit.weights)


def _about_scope(what: str, limit: ConcurrencyDefinition) -> str:
    if len(limit.scope) > SCOPE_CHARACTERS_MAX:
        return f"{what} has a scope of {len(limit.scope):,} characters, {quoted(limit.scope)}: use at most {SCOPE_CHARACTERS_MAX}"
    return ""


def _about_weights(what: str, weights: dict[str, int]) -> str:
    if len(weights) > WEIGHTS_MAX:
        return f"{what} has weights for {len(weights):,} keys: use at most {WEIGHTS_MAX:,}"
    for key, weight in weights.items():
        if not 1 <= weight <= WEIGHT_MAX:
            return f"{what} has weight {weight} for key {quoted(key)}: use 1 to {WEIGHT_MAX:,}"
    return ""


def _about_rate(what: str, rate: RateDefinition) -> str:
    if not 1 <= rate.per_ms <= PER_MS_MAX:
        return f"{what} has a rate per {rate.per_ms} ms: use 1 to {PER_MS_MAX:,}"
    if not rate.key or len(rate.key) > KEY_CHARACTERS_MAX or (rate.key.startswith(PATH_PREFIX) and not is_path(rate.key)):
        return f"{what} has rate key {rate.key[:KEY_CHARACTERS_MAX]!r}: use a name, or a dotted path such as input.user_id"
    for name, value, least in (("limit", rate.limit, 1), ("units", rate.units, 1)):
        if isinstance(value, str) and not is_path(value):
            return f"{what} has rate {name} {value!r}: use a number, or a dotted path such as input.{name}"
        if isinstance(value, int) and not least <= value <= UNITS_MAX:
            return f"{what} has rate {name} {value}: use {least} to {UNITS_MAX:,}"
    if isinstance(rate.units, int) and isinstance(rate.limit, int) and rate.units > rate.limit:
        return f"{what} wants {rate.units} units of rate {rate.key!r} at once, which lets {rate.limit} pass: it never could"
    return ""


def about_labels(what: str, labels: list[LabelDefinition]) -> str:
    """What is wrong with wishes for labels; "" if nothing is."""
    return _first(_about_label(what, wish) for wish in labels) or _too_many(what, "labels", len(labels), LABELS_MAX)


def _about_label(what: str, wish: LabelDefinition) -> str:
    if len(wish.name) > LABEL_NAME_CHARACTERS_MAX:
        return f"{what} names a label of {len(wish.name):,} characters, {quoted(wish.name)}: use at most {LABEL_NAME_CHARACTERS_MAX}"
    if wish.comparator not in COMPARATORS:
        return f"{what} compares label {wish.name!r} by {wish.comparator!r}: use one of {', '.join(COMPARATORS)}"
    if isinstance(wish.value, tuple) is not (wish.comparator == "in"):
        return f"{what} compares label {wish.name!r} by {wish.comparator!r} with {wish.value!r}: only `in` takes a list, and nothing else"
    if abs(wish.weight) > LABEL_WEIGHT_MAX:
        return f"{what} gives label {wish.name!r} weight {wish.weight}: use up to {LABEL_WEIGHT_MAX:,}"
    values = wish.value if isinstance(wish.value, tuple) else (wish.value,)
    if len(values) > LABEL_CHOICES_MAX:
        return f"{what} compares label {wish.name!r} with {len(values):,} values: use at most {LABEL_CHOICES_MAX}"
    longest = max((len(value) for value in values if isinstance(value, str)), default=0)
    if longest > LABEL_CHARACTERS_MAX:
        return f"{what} compares label {wish.name!r} with a text of {longest:,} characters: use at most {LABEL_CHARACTERS_MAX}"
    return ""


def _too_many(what: str, things: str, count: int, most: int) -> str:
    return f"{what} has {count} {things}, {most} are the most" if count > most else ""


def _first(objections: Iterable[str]) -> str:
    return next(filter(None, objections), "")
