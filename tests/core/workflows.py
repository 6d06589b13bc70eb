"""Workflows that the tests of the core run."""

from __future__ import annotations

from mesh_sdk.protocol.definitions import StepDefinition, WorkflowDefinition


def chain(name: str = "chain", steps: int = 3, **options: object) -> WorkflowDefinition:
    """a → b → c …"""
    names = "abcdefgh"[:steps]
    return WorkflowDefinition(name, [StepDefinition(n, [i - 1] if i else [], **options) for i, n in enumerate(names)])  # type: ignore[arg-type]


def diamond(name: str = "diamond", **options: object) -> WorkflowDefinition:
    """a, b → c, d → e"""
    return WorkflowDefinition(
        name,
        [
            StepDefinition("a"),
            StepDefinition("b", **options),  # type: ignore[arg-type]
            StepDefinition("c", [0, 1], **options),  # type: ignore[arg-type]
            StepDefinition("d", [1]),
            StepDefinition("e", [2, 3]),
        ],
    )
