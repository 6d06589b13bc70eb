"""What the simulated workflows declare of flow control, said once: they are made from it, and the checkers hold the mesh to it.

Rule: no imports of the mesh, and no words of its own for the same thing: what is promised here is told from here alone.
"""

from __future__ import annotations

import json
import operator
from typing import Any, NamedTuple

ROUND_ROBIN, IN_PROGRESS, NEWEST, QUEUE = "GROUP_ROUND_ROBIN", "CANCEL_IN_PROGRESS", "CANCEL_NEWEST", "QUEUE_NEWEST"

Group = tuple[str, str]
"""(name of the limit, key)."""


class Limit(NamedTuple):
    """So many at once of each value that a field of the input has."""

    field: str
    max_runs: int
    strategy: str = ROUND_ROBIN
    scope: str = ""
    by_function: bool = False
    weights: tuple[tuple[str, int], ...] = ()


class Rate(NamedTuple):
    """So many units of each key pass in a time. What begins with `input.` is a field of the input."""

    key: str
    limit: int | str
    per_ms: int
    units: int | str = 1


class Want(NamedTuple):
    """What a step wants of its worker's label."""

    value: int | str
    comparator: str = "="
    required: bool = False
    weight: int = 100


_COMPARISONS: dict[str, Any] = {"=": operator.eq, "!=": operator.ne, ">=": operator.ge}
RUNS: dict[str, tuple[Limit, ...]] = {
    "turns": (Limit("user", 4, weights=(("c", 2),)),),
    "latest": (Limit("user", 1, IN_PROGRESS),),
    "first": (Limit("user", 2, NEWEST),),
    "queued": (Limit("user", 1, QUEUE),),
    "asked": (Limit("user", 2, by_function=True),),
    "latest_asked": (Limit("user", 2, IN_PROGRESS, by_function=True),),
    "first_asked": (Limit("user", 1, NEWEST, by_function=True),),
    "queued_asked": (Limit("user", 2, QUEUE, by_function=True),),
    "both": (Limit("user", 1, scope="users"), Limit("tenant", 3, NEWEST)),
    "paced": (Limit("user", 2),),
    "wide": (Limit("user", 1, scope="users"), Limit("tenant", 2)),
    "settled": (Limit("user", 1, IN_PROGRESS),),
}
"""Of the runs of a workflow, in order."""
STEPS: dict[tuple[str, str], tuple[Limit, ...]] = {
    ("both", "before"): (Limit("tenant", 1), Limit("user", 1, scope="steps of users")),
    ("staged", "before"): (Limit("user", 1, scope="steps of users"),),
    ("staged", "after"): (Limit("tenant", 1, IN_PROGRESS),),
}
"""Of the attempts of a step."""
RATES: dict[tuple[str, str], tuple[Rate, ...]] = {
    ("staged", "before"): (Rate("mails", 10, 1_000),),
    ("paced", "paced"): (Rate("mails", 10, 1_000), Rate("input.user", "input.quota", 1_000, "input.n")),
}
WANTS: dict[tuple[str, str], dict[str, Want]] = {
    ("choosy", "before"): {"gpu": Want(1, ">=", required=True), "zone": Want("x")},
    ("choosy", "after"): {"zone": Want("y", weight=7), "gpu": Want(2, "=", weight=3)},
    ("settled", "before"): {"zone": Want("y")},
    ("settled", "after"): {"gpu": Want(1, ">=", required=True)},
}
SLOTS: dict[tuple[str, str], int] = {("wide", "wide"): 2}
"""Of the steps that take more than one."""
KEY_FUNCTION = "key"
"""Name of every key function."""
TASKS = {name: (name,) for name in ("turns", "first", "queued", "paced", "wide")}
"""Workflows of one step; the others have two, and perhaps a key function."""
QUOTAS = {"a": 5, "b": 10, "c": 20}
"""Units a second of each user."""
LABELS: tuple[dict[str, int | str], ...] = ({}, {"gpu": 1}, {"gpu": 2, "zone": "x"}, {"gpu": 1, "zone": "y"}, {"zone": "x"})
"""What workers may say of themselves."""
GOOD_FOR_ALL: dict[str, int | str] = {"gpu": 2, "zone": "x"}
"""With these a worker can run every step there is."""


def groups(limits: tuple[Limit, ...], owner: str, input: Any) -> list[Group]:
    """Which group each limit puts a run with this input (or an attempt) in."""
    return [(limit.scope or f"{owner}/{place}", str(input[limit.field])) for place, limit in enumerate(limits)]


def of_run(workflow: str, input: bytes) -> dict[Group, Limit]:
    """The groups of a run."""
    limits = RUNS.get(workflow, ())
    return dict(zip(groups(limits, workflow, json.loads(input)), limits, strict=True)) if limits else {}


def of_attempt(workflow: str, step: str, input: bytes) -> dict[Group, Limit]:
    """The groups of an attempt, without those that its run has a place in."""
    limits = STEPS.get((workflow, step), ())
    if not limits:
        return {}
    own = of_run(workflow, input)
    found = zip(groups(limits, f"{workflow}:{step}", json.loads(input)), limits, strict=True)
    return {group: limit for group, limit in found if group not in own}


def has_keys(workflow: str) -> bool:
    """Whether its runs need a user to begin at all."""
    return workflow in RUNS or any(name == workflow for name, _ in (*STEPS, *RATES))


def step_name(workflow: str, index: int) -> str:
    """Name of a step of one of these workflows."""
    asked = any(limit.by_function for limit in RUNS.get(workflow, ()))
    names = TASKS.get(workflow) or ((KEY_FUNCTION, "before", "after") if asked else ("before", "after"))
    return names[index]


def slots(workflow: str, step: str) -> int:
    """What an attempt takes of its worker."""
    return 0 if step == KEY_FUNCTION else SLOTS.get((workflow, step), 1)


def fulfils(want: Want, value: object) -> bool:
    """Whether a worker whose label has this value (None: no such label) has what is wanted."""
    if value is None or isinstance(value, str) is not isinstance(want.value, str):
        return want.comparator == "!="
    return bool(_COMPARISONS[want.comparator](value, want.value))
