"""Every fact that the core may record: the journal's records, and the history of runs that users see.

Rule: a payload is journaled once; later records refer to it. A record is applied the same way by the leader that makes
it and by whoever replays it.
"""

from __future__ import annotations

from msgspec import Raw, Struct

from mesh.core.run_keys import RunKeys
from mesh_sdk.protocol.definitions import LabelDefinition, WorkflowDefinition
from mesh_sdk.protocol.records import StepError

JOURNAL_VERSION = 1


class Fact(Struct, array_like=True, gc=False):
    """Base of all journal records."""


class TermStarted(Fact, tag="term"):
    """A new leader: from this sequence on every write of an older one is refused."""

    holder: str


class WorkflowDefined(Fact, tag="workflow"):
    """A worker registered a definition that was not known."""

    definition: WorkflowDefinition


class WorkerRegistered(Fact, tag="worker"):
    """An incarnation of a worker is up. `workflows` are (name, digest) of definitions recorded before."""

    worker: str
    incarnation: str
    name: str
    slots: int
    labels: dict[str, str | int | float]
    workflows: list[tuple[str, str]]
    client: str
    host: str
    pid: int


class WorkerRefused(Fact, tag="refused"):
    """An incarnation that may not work, with the reason."""

    worker: str
    incarnation: str
    client: str
    reason: str


class WorkerDraining(Fact, tag="draining"):
    """The worker takes no more work."""

    worker: str


class WorkerGone(Fact, tag="gone"):
    """The worker left, was lost or was replaced; what it held is recorded step by step before."""

    worker: str
    incarnation: str
    reason: str


class EventReceived(Fact, tag="event"):
    """An event that starts runs; they take its payload from here."""

    sequence: int
    name: str
    input: Raw


class RunStarted(Fact, tag="start"):
    """A run exists. With an `event`, the input is that of the EventReceived before."""

    run: str
    workflow: str
    digest: str
    input: Raw
    priority: int
    client: str
    metadata: dict[str, str] | None
    key: str
    event: str
    start_at: int
    """Core time before which no step starts; 0: at once."""
    parent: tuple[str, int, str, str] | None
    """(run, step, position, input digest) of the step that spawned it."""
    worker: str = ""
    """A sticky run belongs to this worker from its first step."""
    labels: list[LabelDefinition] = []
    """Wanted of the workers of its steps."""


class RunKeyed(Fact, tag="keys"):
    """The run's keys are known: it wants its places."""

    run: str
    keys: RunKeys


class RunAdmitted(Fact, tag="admit"):
    """The run has its places: its first steps are ready."""

    run: str


class RatesHeld(Fact, tag="rates"):
    """Nobody led for so many milliseconds: rates stood still, and make up for it."""

    ms: int


class WorkerSteered(Fact, tag="steer"):
    """An operator has the worker pause, go on or drain."""

    worker: str
    what: str
    """One of STEERINGS."""


class RunBegan(Fact, tag="begin"):
    """The time of a delayed run has come."""

    run: str


class StepDue(Fact, tag="due"):
    """The time of a step's next attempt has come."""

    run: str
    step: int


class RunRefused(Fact, tag="norun"):
    """A start that was refused; kept as a run that failed, so that whoever waits is told."""

    run: str
    workflow: str
    client: str
    parent: tuple[str, int, str, str] | None
    error: str
    message: str


class StartRepeated(Fact, tag="again"):
    """A start whose key belongs to an older run, or a repeated spawn: tell this client too."""

    requested: str
    run: str
    client: str


class RunBound(Fact, tag="bound"):
    """The sticky run belongs to this worker from now on; with `worker` "" any may take it, for its own has been full too long."""

    run: str
    worker: str
    old: str = ""
    """Whom it belonged to before."""
    reason: str = ""
    """One of MOVED_*; "" for the first one."""


MOVED_GONE = "gone"
MOVED_DRAINING = "draining"
MOVED_FULL = "full"
MOVED_LATE = "late"
"""An assignment sat in the worker's lane for too long."""
MOVED_UNREGISTERED = "unregistered"
"""The worker does not register the step any more."""
MOVED_PARENT = "parent"
"""A child went where its parent went."""
MOVED_REASONS = (MOVED_GONE, MOVED_DRAINING, MOVED_FULL, MOVED_LATE, MOVED_UNREGISTERED, MOVED_PARENT)


class StepReleased(Fact, tag="out"):
    """An attempt goes out: on the private lane of `worker`, or on the shared lane of `pool`."""

    run: str
    step: int
    attempt: int
    token: str
    pool: str
    worker: str


class StepRecalled(Fact, tag="recall"):
    """The attempt has waited in its worker's lane for too long: it is asked for again, unless it has started."""

    token: str


class StepAccepted(Fact, tag="held"):
    """The attempt runs on `worker`, in one of its slots."""

    token: str
    worker: str


class StepFinished(Fact, tag="done"):
    """The step is complete. Recorded once."""

    run: str
    step: int
    attempt: int
    token: str
    worker: str
    output: Raw


class StepFailed(Fact, tag="fail"):
    """The attempt failed. `again_at`: core time of the next attempt, NEVER if there is none.

    With `worker` "" nobody reported it: the leader gave it up, and the attempt keeps its slot until it is answered.
    """

    run: str
    step: int
    attempt: int
    token: str
    worker: str
    error: StepError
    kind: str
    again_at: int


NEVER = -1

KIND_LOST = "lost"
"""The worker was lost, or the attempt was delivered twice: an infrastructure failure, the user's retries untouched."""


class StepReturned(Fact, tag="back"):
    """The attempt was handed back unrun; the step waits for a place again."""

    token: str
    worker: str
    reason: str


class AttemptEnded(Fact, tag="over"):
    """An attempt that nobody waits for any more (its run has ended) has left its slot."""

    token: str


class StepLent(Fact, tag="lent"):
    """The attempt awaits children; its slot is free meanwhile."""

    token: str


class StepResumed(Fact, tag="resumed"):
    """The attempt has a slot again."""

    token: str


class StepRefreshed(Fact, tag="more"):
    """The attempt's execution timeout ends at `until` (core time)."""

    token: str
    until: int


class StepStale(Fact, tag="stale"):
    """A worker runs an attempt that was replaced: it is told to stop."""

    run: str
    step: int
    attempt: int
    token: str
    worker: str


class RunFinished(Fact, tag="end"):
    """The run is over. Its output is that of its final steps."""

    run: str
    status: str
    reason: str


class CancelAwaited(Fact, tag="tomb"):
    """A cancel of a run that was not read yet: its start will be cancelled when it is."""

    run: str
    reason: str
    at: int
    """Server time of the cancel, milliseconds since 1970."""


class CancelsDropped(Fact, tag="tombs"):
    """Every start stored before this server time has been read: older awaited cancels are pointless."""

    before: int


class InputRejected(Fact, tag="reject"):
    """An input (or one record of it) that can't be used; its dead letter says why."""

    source: str
    sequence: int
    index: int
    reason: str


class LanesReset(Fact, tag="lanes"):
    """The lanes were lost: who holds what is asked once they are made again.

    `until` (core time): those who don't answer have at least so long.
    """

    until: int


class StepClaimed(Fact, tag="claim"):
    """The lanes were lost, but the attempt had reached the worker it was reserved on."""

    token: str


class LanesSettled(Fact, tag="settled"):
    """Whoever holds an attempt has said so; the others were recorded as lost before."""


Recorded = (
    TermStarted
    | WorkflowDefined
    | WorkerRegistered
    | WorkerRefused
    | WorkerDraining
    | WorkerGone
    | EventReceived
    | RunStarted
    | RunKeyed
    | RunAdmitted
    | RatesHeld
    | WorkerSteered
    | RunBegan
    | StepDue
    | RunRefused
    | StartRepeated
    | RunBound
    | StepReleased
    | StepRecalled
    | StepAccepted
    | StepFinished
    | StepFailed
    | StepReturned
    | AttemptEnded
    | StepLent
    | StepResumed
    | StepRefreshed
    | StepStale
    | RunFinished
    | CancelAwaited
    | CancelsDropped
    | InputRejected
    | LanesReset
    | StepClaimed
    | LanesSettled
)


class JournalFrame(Struct, array_like=True, gc=False):
    """One message of the journal.

    `positions` says up to where each input stream has been decided, these records included: source →
    [sequence, records of that message already decided (0: all of it)].
    """

    version: int
    term: int
    at: int
    """Core time of all its records, in milliseconds since 1970."""
    positions: dict[str, list[int]]
    records: list[Recorded]
