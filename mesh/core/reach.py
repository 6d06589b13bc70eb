"""Who could run a step that waits for no worker in particular, and why nobody does.

Rule: only those are counted and named who could; and what a free slot would not solve is never called a lack of slots.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from mesh.core.labels import Wish, matches, shown, text
from mesh.core.placement import wish_of
from mesh.core.slots import Worker
from mesh.core.state import State
from mesh.core.step import Step
from mesh_sdk.protocol.definitions import LabelDefinition
from mesh_sdk.protocol.records import DRAIN

NAMED_MAX = 3
"""How many workers one reason names."""


class Reach(NamedTuple):
    """What keeps a step that any worker which can run it may have."""

    cause: str
    kind: str
    """slots, of workers that could run it; worker, when none of these takes work; labels (or slots that no worker has)."""
    worker: str = ""
    """The only one that could, when it takes no work."""


Reaches = dict[tuple[str, Wish], Reach]
"""Those of one moment, by action and wish: steps that want the same wait for the same."""


def reach_of(state: State, step: Step, known: Reaches | None = None) -> Reach:
    """What keeps the step.

    Args:
        state: in which it is ready.
        step: that waits for a slot, of no worker in particular.
        known: of the same moment, followed and added to: with it, a list of steps that want the same costs one look at all workers.
    """
    wish = wish_of(step)
    found = known.get((step.action, wish)) if known is not None else None
    if found is None:
        found = _reach(state, step, wish)
        if known is not None:
            known[(step.action, wish)] = found
    return found


def is_hopeless(state: State, step: Step) -> bool:
    """Whether no worker that is there could ever run the step, by its labels or slots; one that is paused could."""
    return reach_of(state, step).kind == "labels"


def lack(wish: Wish, workers: list[Worker]) -> str:
    """What none of the workers has that a step wants; "" when one of them has it all."""
    if any(wish.allows(worker.slots, worker.labels) for worker in workers):
        return ""
    slots = max(wish.slots, wish.slots_least)
    if all(worker.slots < slots for worker in workers):
        return f"{_slots(slots)}: at most {max(worker.slots for worker in workers)}"
    lacking = [label for label in wish.labels if label.required and not any(matches(label, worker.labels) for worker in workers)]
    if lacking:
        return _in_words(lacking, 0) + "".join(_of_another_type(label, workers) for label in lacking)
    return f"{_wanted(wish)} together"


def _reach(state: State, step: Step, wish: Wish) -> Reach:
    action = step.action
    workers = [worker for pool in state.routes.queue(action).pools for worker in pool.workers.values()]
    if not workers:
        return Reach(f"no worker registers {action}", "worker")
    fit = workers if step.is_key else [worker for worker in workers if wish.allows(worker.slots, worker.labels)]
    if not fit:
        return Reach(f"no worker that registers {action} has {lack(wish, workers)}", "labels")
    wanted = "" if step.is_key else _wanted(wish)
    able = [worker for worker in fit if worker.takes_work]
    if not able:
        having = f" and has {wanted}" if wanted else ""
        only = fit[0].id if len(fit) == 1 else ""
        return Reach(f"every worker that registers {action}{having} is paused or draining: {_named(fit)}", "worker", only)
    if step.is_key:
        return Reach(f"every worker that can run {action} has enough key functions to run", "slots")
    taken = f"every slot of {sum(worker.slots for worker in able)} that can run {action} is taken"
    if not wanted:
        return Reach(taken, "slots")
    who = f"worker {able[0].id} has" if len(able) == 1 else f"{len(able)} workers have"
    return Reach(f"{taken}: only {who} {wanted}", "slots")


def _wanted(wish: Wish) -> str:
    """What a worker must have, "" when any will do."""
    slots = max(wish.slots, wish.slots_least)
    return _in_words([label for label in wish.labels if label.required], slots if slots > 1 else 0)


def _in_words(labels: list[LabelDefinition], slots: int) -> str:
    return " and ".join([*(f"label {text(label)}" for label in labels), *([_slots(slots)] if slots else [])])


def _slots(count: int) -> str:
    return f"{count} slot{'' if count == 1 else 's'}"


def _named(workers: list[Worker]) -> str:
    named = ", ".join(f"{worker.id} is {state_of(worker)}" for worker in workers[:NAMED_MAX])
    return f"{named} and {len(workers) - NAMED_MAX} more" if len(workers) > NAMED_MAX else named


def state_of(worker: Worker) -> str:
    """What readers are told of it: active, paused or draining. One that is to drain does not go on, whether it has said so yet or not."""
    return "draining" if worker.draining or worker.steered == DRAIN else "paused" if worker.paused else "active"


def _of_another_type(wish: LabelDefinition, workers: Iterable[Worker]) -> str:
    """Whose label is a number where a text is wanted, or a text instead of a number: they look alike and are never equal."""
    wished = wish.value if isinstance(wish.value, tuple) else (wish.value,)
    as_text = {isinstance(value, str) for value in wished}
    for worker in workers:
        value = worker.labels.get(wish.name)
        if value is not None and isinstance(value, str) not in as_text:
            return f": {worker.id} has the {'text' if isinstance(value, str) else 'number'} {shown(value)}"
    return ""
