"""The order of a workflow's steps. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from mesh_sdk.errors import DefinitionError


def topological_order(workflow: str, parents: Mapping[str, Sequence[str]]) -> list[str]:
    """Sort steps so that every parent stands before its children, otherwise as they were defined.

    Args:
        workflow: its name, for messages.
        parents: each step's parents, in the order of definition.

    Raises:
        DefinitionError: an unknown parent, a parent named twice, or a cycle, which the message draws.
    """
    for step, names in parents.items():
        check_parents(workflow, step, names, parents)
    order: list[str] = []
    waiting = dict(parents)
    done: set[str] = set()
    while waiting:
        ready = [step for step, names in waiting.items() if done.issuperset(names)]
        if not ready:
            raise DefinitionError(f"workflow {workflow!r} has a cycle: {' -> '.join(_cycle(waiting))}")
        for step in ready:
            del waiting[step]
        done.update(ready)
        order += ready
    return order


def check_parents(workflow: str, step: str, names: Sequence[str], known: Iterable[str]) -> None:
    """Refuse parents that can't be.

    Args:
        workflow: its name, for messages.
        step: the step whose parents they are.
        names: the parents.
        known: names of steps that can be parents.

    Raises:
        DefinitionError: an unknown parent, or one named twice.
    """
    there = list(known)
    for name in names:
        if name not in there:
            raise DefinitionError(
                f"parent {name!r} of step {step!r} is unknown: workflow {workflow!r} has no step of that name "
                f"(there are: {', '.join(there) or 'none'})"
            )
    if len(set(names)) != len(names):
        raise DefinitionError(f"step {step!r} of workflow {workflow!r} names a parent twice: {list(names)}")


def _cycle(waiting: Mapping[str, Sequence[str]]) -> list[str]:
    """Follow parents among the steps that wait for each other until one comes again."""
    path = [next(iter(waiting))]
    while True:
        step = next(name for name in waiting[path[-1]] if name in waiting)
        if step in path:
            return [*path[path.index(step) :], step]
        path.append(step)
