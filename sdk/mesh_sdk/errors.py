"""Every error that a user can meet, one tree.

```
MeshError
├── ConfigurationError          a setting that can't be
├── DefinitionError             a workflow, step or worker that can't be
│   └── InvalidName
├── ConnectionFailed            no server, or not one that we can use
│   └── ServerUnsuitable        no JetStream, or older than the mesh needs
├── Unavailable                 nobody answered in time (no leader, server away)
├── InvalidInput                input that does not pass validation, refused at the caller
├── InvalidOutput               a step's output that does not pass its type, or can't be written as JSON
├── PayloadTooLarge
├── UnknownWorkflow
├── StickyChildError
├── SpawnError                  a child that can't be spawned, or a wait that could never end
├── RunNotFound
├── WorkerNotFound
├── RegistrationRefused
├── RunError
│   ├── RunFailed
│   ├── RunCancelled
│   └── RunTimedOut
├── NonRetryable                raised by users' steps: no further attempt
├── RetryAfter                  raised by users' steps: the next attempt after this long
└── StepCancelled               raised inside a step by `raise_if_cancelled()`
```

Each message says what was wrong, with which value, and what to do.
"""

from __future__ import annotations

from datetime import timedelta


class MeshError(Exception):
    """Base of all errors of the mesh."""


class ConfigurationError(MeshError):
    """A setting has a value that can't be used."""


class DefinitionError(MeshError):
    """A workflow, step or worker is defined in a way that can't work."""


class InvalidName(DefinitionError):
    """A name that a subject can't carry."""


class ConnectionFailed(MeshError):
    """No NATS server could be reached."""


class ServerUnsuitable(ConnectionFailed):
    """The server was reached but lacks JetStream or is too old."""


class Unavailable(MeshError):
    """Nobody answered in time: no scheduler leads, or the server is away."""


class InvalidInput(MeshError):
    """The input does not pass the workflow's model; nothing was written."""


class InvalidOutput(MeshError):
    """A step's output does not pass its declared type, or can't be written as JSON."""


class PayloadTooLarge(MeshError):
    """An input or output is larger than the mesh carries."""


class UnknownWorkflow(MeshError):
    """No worker ever registered a workflow of this name."""


class StickyChildError(MeshError):
    """A sticky child that can't run on its parent's worker; nothing was written."""


class SpawnError(MeshError):
    """A child that can't be spawned, or a wait for one that could never end."""


class RunNotFound(MeshError):
    """No run of this id is known."""


class WorkerNotFound(MeshError):
    """No worker of this id is known."""


class RegistrationRefused(MeshError):
    """The scheduler refused the worker: its id is held by another, or its definitions can't be used."""


class RunError(MeshError):
    """A run that did not succeed.

    Attributes:
        run_id: the run.
        errors: one entry per failed step: its name, error type, message, traceback text and attempt.
    """

    def __init__(self, message: str, run_id: str = "", errors: tuple[StepFailure, ...] = ()) -> None:
        super().__init__(message)
        self.run_id = run_id
        self.errors = errors


class RunFailed(RunError):
    """A step failed for good."""


class RunCancelled(RunError):
    """The run was cancelled; the message is the reason."""


class RunTimedOut(RunError):
    """The run's last attempt, or its wait for a worker, took too long."""


class StepFailure:
    """How one step failed.

    Attributes:
        step: the step's name; a key function's, when that failed and the run could not begin.
        type: name of the exception's class.
        message: its text.
        traceback: its traceback as text, "" when there is none.
        attempt: which attempt it was, from 1.
    """

    __slots__ = ("attempt", "message", "step", "traceback", "type")

    def __init__(self, step: str, type: str, message: str, traceback: str, attempt: int) -> None:
        self.step = step
        self.type = type
        self.message = message
        self.traceback = traceback
        self.attempt = attempt

    def __repr__(self) -> str:
        return f"StepFailure({self.step!r}, {self.type}: {self.message}, attempt {self.attempt})"


class NonRetryable(MeshError):
    """Raise it in a step: the step fails and is not tried again."""


class RetryAfter(MeshError):
    """Raise it in a step: if an attempt is left, it starts after this long.

    Args:
        delay: `"10s"`, `"5m"`, a `timedelta` or seconds.
        message: what to tell whoever reads the run.
    """

    def __init__(self, delay: str | float | timedelta, message: str = "") -> None:
        super().__init__(message or f"asked to be tried again after {delay}")
        self.delay = delay


class StepCancelled(MeshError):
    """The step was asked to stop."""
