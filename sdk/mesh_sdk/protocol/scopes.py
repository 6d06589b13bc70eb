"""Scopes: concurrency limits of several workflows or steps that are one limit.

Rule: what one limit does with those beyond it must not depend on who came last, so all that name a scope have one strategy.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from mesh_sdk.protocol.definitions import ConcurrencyDefinition, WorkflowDefinition


def scoped(definitions: Iterable[WorkflowDefinition]) -> Iterator[tuple[str, ConcurrencyDefinition]]:
    """Every limit that has a scope, after the name of the workflow or step that declares it."""
    for definition in definitions:
        for limit in definition.concurrency:
            if limit.scope:
                yield f"workflow {definition.name!r}", limit
        for step in definition.steps:
            for limit in step.concurrency:
                if limit.scope:
                    yield f"step {step.name!r} of workflow {definition.name!r}", limit


def disagreement(definitions: Iterable[WorkflowDefinition], others: Iterable[WorkflowDefinition] = ()) -> str:
    """What is wrong with the scopes of definitions, among themselves and beside others; "" if nothing is.

    Example:
        >>> from mesh_sdk.protocol.definitions import StepDefinition
        >>> limits = [ConcurrencyDefinition(1, "CANCEL_NEWEST", "input.a", scope="s"), ConcurrencyDefinition(1, key="input.b", scope="s")]
        >>> disagreement([WorkflowDefinition("w", [StepDefinition("a")], concurrency=limits)])[:48]
        "concurrency limits of scope 's' disagree: workfl"
    """
    known: dict[str, tuple[str, str]] = {}
    for who, limit in scoped(others):
        known.setdefault(limit.scope, (who, limit.strategy))
    for who, limit in scoped(definitions):
        first, strategy = known.setdefault(limit.scope, (who, limit.strategy))
        if strategy != limit.strategy:
            return (
                f"concurrency limits of scope {limit.scope!r} disagree: {first} has {strategy}, {who} has {limit.strategy}. "
                "Limits of one scope are one limit: use one strategy, or another scope"
            )
    return ""
