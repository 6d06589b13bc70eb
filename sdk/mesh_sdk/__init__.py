"""The SDK of the mesh: define workflows, run workers, start runs, publish events.

Public names and nothing else; `errors` draws the tree of exceptions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mesh_sdk.context import Context, Spawn
from mesh_sdk.errors import (
    ConfigurationError,
    ConnectionFailed,
    DefinitionError,
    InvalidInput,
    InvalidName,
    InvalidOutput,
    MeshError,
    NonRetryable,
    PayloadTooLarge,
    RegistrationRefused,
    RetryAfter,
    RunCancelled,
    RunError,
    RunFailed,
    RunNotFound,
    RunTimedOut,
    ServerUnsuitable,
    SpawnError,
    StepCancelled,
    StepFailure,
    StickyChildError,
    Unavailable,
    UnknownWorkflow,
    WorkerNotFound,
)
from mesh_sdk.events import Event
from mesh_sdk.labels import WorkerLabel
from mesh_sdk.limits import Concurrency, ConcurrencyLimitStrategy, RateLimit
from mesh_sdk.mesh import Mesh
from mesh_sdk.reads import RunInfo, RunList, StepInfo, WorkerInfo, WorkflowInfo
from mesh_sdk.refs import EventRef, RunRef
from mesh_sdk.step import Step
from mesh_sdk.sticky import StickyStrategy
from mesh_sdk.task import Task
from mesh_sdk.workflow import Workflow

if TYPE_CHECKING:
    from mesh_sdk.worker.worker import Worker

__all__ = [
    # defining
    "Mesh",
    "Workflow",
    "Task",
    "Step",
    "Context",
    "Spawn",
    "StickyStrategy",
    "Concurrency",
    "ConcurrencyLimitStrategy",
    "RateLimit",
    "WorkerLabel",
    "Worker",
    # starting and reading
    "RunRef",
    "Event",
    "EventRef",
    "RunInfo",
    "RunList",
    "StepInfo",
    "WorkerInfo",
    "WorkflowInfo",
    # errors
    "MeshError",
    "ConfigurationError",
    "DefinitionError",
    "InvalidName",
    "ConnectionFailed",
    "ServerUnsuitable",
    "Unavailable",
    "InvalidInput",
    "InvalidOutput",
    "PayloadTooLarge",
    "UnknownWorkflow",
    "StickyChildError",
    "SpawnError",
    "RunNotFound",
    "WorkerNotFound",
    "RegistrationRefused",
    "RunError",
    "RunFailed",
    "RunCancelled",
    "RunTimedOut",
    "StepFailure",
    "NonRetryable",
    "RetryAfter",
    "StepCancelled",
]


def __getattr__(name: str) -> Any:
    """Load the worker only for programs that have one."""
    if name == "Worker":
        from mesh_sdk.worker.worker import Worker

        return Worker
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
