"""Exit codes of the command, and which error ends with which.

Rule: a code is part of the interface: it never changes its meaning, new ones are added at the end.
"""

from __future__ import annotations

from enum import IntEnum

from mesh import errors as engine
from mesh_sdk import errors


class Exit(IntEnum):
    """What a script can tell from the exit code; `MEANINGS` says what."""

    OK = 0
    FAILED = 1
    USAGE = 2
    CONFIGURATION = 3
    CONNECTION = 4
    UNSUITABLE = 5
    NOT_FOUND = 6
    RUN_FAILED = 7
    UNAVAILABLE = 8
    STORE_LOCKED = 9
    PORT_TAKEN = 10
    INVALID = 11
    DEFINITION = 12
    REFUSED = 13
    EXTRA_MISSING = 14
    UNHEALTHY = 15
    INTERRUPTED = 130


MEANINGS: dict[Exit, str] = {
    Exit.OK: "done",
    Exit.FAILED: "anything without a code of its own",
    Exit.USAGE: "wrong arguments or options",
    Exit.CONFIGURATION: "a setting that can't be, or no nats-server to start",
    Exit.CONNECTION: "no NATS server answers at the URL",
    Exit.UNSUITABLE: "the server lacks JetStream or is too old",
    Exit.NOT_FOUND: "no such run, workflow or worker",
    Exit.RUN_FAILED: "the awaited run failed, was cancelled or timed out",
    Exit.UNAVAILABLE: "nobody answered in time: no scheduler leads, or the wait was limited",
    Exit.STORE_LOCKED: "another process has a server on the store",
    Exit.PORT_TAKEN: "another process listens on the port",
    Exit.INVALID: "an input, a payload or a name that the mesh doesn't take; nothing was written",
    Exit.DEFINITION: "a module, workflow or worker that can't be loaded or can't work",
    Exit.REFUSED: "the scheduler refused the worker",
    Exit.EXTRA_MISSING: "packages of an extra are not installed",
    Exit.UNHEALTHY: "`mesh doctor` found something wrong",
    Exit.INTERRUPTED: "Ctrl-C",
}

_EXITS: tuple[tuple[type[BaseException], Exit], ...] = (
    # Subclasses before their bases: the first that fits counts.
    (engine.StoreLocked, Exit.STORE_LOCKED),
    (engine.PortTaken, Exit.PORT_TAKEN),
    (engine.ExtraMissing, Exit.EXTRA_MISSING),
    (errors.InvalidName, Exit.INVALID),
    (errors.InvalidInput, Exit.INVALID),
    (errors.PayloadTooLarge, Exit.INVALID),
    (errors.StickyChildError, Exit.INVALID),
    (errors.DefinitionError, Exit.DEFINITION),
    (errors.ConfigurationError, Exit.CONFIGURATION),
    (errors.ServerUnsuitable, Exit.UNSUITABLE),
    (errors.ConnectionFailed, Exit.CONNECTION),
    (errors.RunNotFound, Exit.NOT_FOUND),
    (errors.UnknownWorkflow, Exit.NOT_FOUND),
    (errors.WorkerNotFound, Exit.NOT_FOUND),
    (errors.RunError, Exit.RUN_FAILED),
    (errors.Unavailable, Exit.UNAVAILABLE),
    (errors.RegistrationRefused, Exit.REFUSED),
    (TimeoutError, Exit.UNAVAILABLE),
    (KeyboardInterrupt, Exit.INTERRUPTED),
)


def exit_code(error: BaseException) -> Exit:
    """The code that a command ends with when this error ends it."""
    for kind, code in _EXITS:
        if isinstance(error, kind):
            return code
    return Exit.FAILED
