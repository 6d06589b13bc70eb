"""`Task`: a workflow of one step, made of a function.

Rule: it has no logic of its own, only the workflow's and the step's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Never, Unpack

from mesh_sdk.errors import InvalidInput
from mesh_sdk.key_function import KeyOptions
from mesh_sdk.options import StepOptions
from mesh_sdk.protocol.definitions import WorkflowDefinition
from mesh_sdk.serialize import dumper
from mesh_sdk.signature import Namespace
from mesh_sdk.starting import Startable
from mesh_sdk.step import I, R, Step
from mesh_sdk.workflow import K, Workflow


class Task(Startable[I, R]):
    """A workflow of one step, made by `@mesh.task`. Calling it runs the function, with no mesh.

    Attributes:
        workflow: the workflow behind it.
        step: its one step.
    """

    def __init__(self, workflow: Workflow[I], step: Step[I, R]) -> None:
        super().__init__(workflow.mesh)
        self.workflow = workflow
        self.step = step
        self.workflow_priority = workflow.workflow_priority
        self.idempotency_key = workflow.idempotency_key
        self.__doc__ = step.__doc__
        self.__name__ = step.__name__
        what = f"input of task {workflow.name!r}"
        self.dump_input = dumper(step.spec.input_type, what, InvalidInput)
        self.parse_input = step.spec.parse_input
        self.parse_result = step.spec.parse_output
        self.mesh.remember(self)

    @property
    def name(self) -> str:
        """The workflow's name."""
        return self.workflow.name

    def definition(self) -> WorkflowDefinition:
        """What a worker registers."""
        return self.workflow.definition()

    def concurrency(self, *bare: Never, **options: Unpack[KeyOptions]) -> Callable[[K], K]:
        """Limit how many runs go on at once for each key that a function of the run gives; see `Mesh.concurrency`.

        Args:
            **options: `max_runs, limit_strategy`.

        Returns:
            A decorator that gives the function back. The function takes what the task's takes, and has a name of its own.

        Raises:
            DefinitionError: when it can't be.
        """
        return self.workflow.concurrency(*bare, **options)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the function itself."""
        return self.step(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<Task {self.name!r}>"


def make_task(workflow: Workflow[Any], function: Callable[..., Any], options: StepOptions, namespace: Namespace) -> Task[Any, Any]:
    """Make the task of one function.

    Raises:
        DefinitionError: when it can't be a step.
    """
    step = workflow.add_step(function, options, namespace)
    workflow.input_type = step.spec.input_type  # a key function gets what the task gets
    return Task(workflow, step)
