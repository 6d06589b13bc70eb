"""What the worker has registered: workflows by name, and the step behind every action."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from mesh_sdk.errors import DefinitionError
from mesh_sdk.protocol.definitions import KEY, WorkflowDefinition
from mesh_sdk.protocol.ids import pool_id
from mesh_sdk.protocol.scopes import disagreement
from mesh_sdk.serialize import is_untyped
from mesh_sdk.step import BoundStep
from mesh_sdk.sticky import BoundMoved
from mesh_sdk.workflow import BoundWorkflow, find_workflow


class Action:
    """One step, laid out for the hot path.

    Attributes:
        name: `workflow:step`.
        parse: bytes of the run's input to what the step takes.
        invoke: calls the step with (input, context).
        dump: the step's result to bytes.
        reads_input: the input is parsed before the step is called.
        is_async: `invoke` gives a coroutine.
        timeout_s: of one attempt.
        slots: what an attempt takes of its worker's slots.
        sticky: the workflow's strategy, "" for none.
        last: the run ends with it.
        on_moved: rebuilds what is kept for a sticky run; None when the workflow has no such method.
        is_key: it is the workflow's key function: it takes no slot, and belongs to no run's place.
    """

    __slots__ = ("dump", "invoke", "is_async", "is_key", "last", "name", "on_moved", "parse", "reads_input", "slots", "sticky", "timeout_s")

    def __init__(self, definition: WorkflowDefinition, step: BoundStep, on_moved: BoundMoved | None) -> None:
        self.name = f"{definition.name}:{step.name}"
        self.parse: Callable[[bytes], Any] = step.parse_input
        self.invoke = step.invoke
        self.dump: Callable[[Any], bytes] = step.dump_output
        self.reads_input = step.wants_input or not is_untyped(step.spec.input_type)
        self.is_async = step.is_async
        self.timeout_s = step.definition.timeout_ms / 1000
        self.slots = step.definition.slots
        self.is_key = step.definition.kind == KEY
        self.sticky = "" if self.is_key else definition.sticky
        self.last = not self.is_key and _ends_run(definition, step.index)
        self.on_moved = None if self.is_key else on_moved


class Registry:
    """The workflows of one worker."""

    def __init__(self) -> None:
        self._workflows: dict[str, BoundWorkflow] = {}
        self._actions: dict[tuple[str, str], Action] = {}

    def add(self, thing: object) -> None:
        """Register a workflow.

        Args:
            thing: a workflow, a task, a class decorated by `@mesh.workflow()`, or an instance of one.

        Raises:
            DefinitionError: when it is none of them, can't work, its name is taken, or its scopes don't go with those that are there.
        """
        workflow, instance = find_workflow(thing)
        if workflow.name in self._workflows:
            raise DefinitionError(f"workflow {workflow.name!r} is registered on this worker already: register each name once")
        bound = workflow.bind(instance)
        if wrong := disagreement([bound.definition], self.definitions()):
            raise DefinitionError(wrong)
        self._workflows[workflow.name] = bound
        for step in bound.steps if bound.key is None else (bound.key, *bound.steps):
            self._actions[workflow.name, step.name] = Action(bound.definition, step, bound.on_moved)

    def find(self, workflow: str, step: str) -> Action | None:
        """What to run for a step; None when it isn't registered here."""
        return self._actions.get((workflow, step))

    def definition(self, workflow: str) -> WorkflowDefinition | None:
        """The definition of a workflow; None when it isn't registered here."""
        bound = self._workflows.get(workflow)
        return bound.definition if bound else None

    def is_hard(self, workflow: str) -> bool:
        """Whether runs of a workflow stay with one worker for good."""
        definition = self.definition(workflow)
        return definition is not None and definition.sticky == "HARD"

    def definitions(self) -> list[WorkflowDefinition]:
        """Every workflow registered."""
        return [bound.definition for bound in self._workflows.values()]

    def actions(self) -> list[str]:
        """Every action registered."""
        return [action.name for action in self._actions.values()]

    def sticky(self) -> list[str]:
        """Names of the workflows with a sticky strategy."""
        return [name for name, bound in self._workflows.items() if bound.definition.sticky]

    @property
    def pool(self) -> str:
        """The pool of workers that register exactly these actions."""
        return pool_id(self.actions())

    def names(self) -> Iterable[str]:
        """Names of the workflows."""
        return self._workflows.keys()

    def __len__(self) -> int:
        return len(self._workflows)


def _ends_run(definition: WorkflowDefinition, index: int) -> bool:
    """Whether a step is the only one that no other waits for."""
    parents = {parent for step in definition.steps for parent in step.parents}
    return index not in parents and len(parents) == sum(step.kind != KEY for step in definition.steps) - 1
