"""Scopes: concurrency limits of several workflows or steps that are one limit.

Rule: what one limit does with those beyond it must not depend on who came last, so all that name a scope have one strategy. And no
scope is both of workflows and of steps: a run keeps its place while its steps wait for theirs, so runs could wait for each other.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from mesh_sdk.protocol.definitions import ConcurrencyDefinition, WorkflowDefinition


class Scoped(NamedTuple):
    """A limit that has a scope."""

    who: str
    """The workflow or step that declares it."""
    of_step: bool
    limit: ConcurrencyDefinition


def scoped(definitions: Iterable[WorkflowDefinition]) -> Iterator[Scoped]:
    """Every limit that has a scope."""
    for definition in definitions:
        for limit in definition.concurrency:
            if limit.scope:
                yield Scoped(f"workflow {definition.name!r}", False, limit)
        for step in definition.steps:
            for limit in step.concurrency:
                if limit.scope:
                    yield Scoped(f"step {step.name!r} of workflow {definition.name!r}", True, limit)


def disagreement(definitions: Iterable[WorkflowDefinition], others: Iterable[WorkflowDefinition] = ()) -> str:
    """What is wrong with the scopes of definitions, among themselves and beside others; "" if nothing is.

    Example:
        >>> from mesh_sdk.protocol.definitions import StepDefinition
        >>> limits = [ConcurrencyDefinition(1, "CANCEL_NEWEST", "input.a", scope="s"), ConcurrencyDefinition(1, key="input.b", scope="s")]
        >>> disagreement([WorkflowDefinition("w", [StepDefinition("a")], concurrency=limits)])[:48]
        "concurrency limits of scope 's' disagree: workfl"
    """
    known: dict[str, Scoped] = {}
    for found in scoped(others):
        known.setdefault(found.limit.scope, found)
    for found in scoped(definitions):
        first = known.setdefault(found.limit.scope, found)
        if first.of_step is not found.of_step:
            return _of_both(*sorted((first, found), key=lambda each: each.of_step))
        if first.limit.strategy != found.limit.strategy:
            return (
                f"concurrency limits of scope {found.limit.scope!r} disagree: {first.who} has {first.limit.strategy}, "
                f"{found.who} has {found.limit.strategy}. Limits of one scope are one limit: use one strategy, or another scope"
            )
    return ""


def _of_both(run: Scoped, step: Scoped) -> str:
    return (
        f"concurrency scope {run.limit.scope!r} is of runs ({run.who}) and of attempts ({step.who}): a run keeps its place while its steps "
        "wait for theirs, so two runs could wait for each other for ever. Use one scope for limits of workflows, another for those of steps"
    )
