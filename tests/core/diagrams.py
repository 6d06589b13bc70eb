"""Draws the machines of run and step from their tables, in the language of Mermaid. `python -m tests.core.diagrams` prints them."""

from __future__ import annotations

from mesh.core import run, step


def of_step() -> str:
    """The machine of a step."""
    return _draw(step.PENDING, step.MOVES)


def of_run() -> str:
    """The machine of a run."""
    return _draw(run.LIVE, run.MOVES)


def _draw(first: str, moves: dict[str, frozenset[str]]) -> str:
    lines = ["```mermaid", "stateDiagram-v2", f"    [*] --> {first}"]
    lines += [f"    {old} --> {new}" for old in moves for new in sorted(moves[old], key=list(moves).index)]
    lines += [f"    {state} --> [*]" for state in moves if not moves[state]]
    return "\n".join([*lines, "```"])


if __name__ == "__main__":
    print(of_step(), of_run(), sep="\n\n")
