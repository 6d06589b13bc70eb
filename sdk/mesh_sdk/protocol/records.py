"""The records that travel in frames between clients, workers and the scheduler.

Arrays on the wire (`array_like`): a field's place is its name, new fields are added at the end with a default, and a
reader ignores what it doesn't know. The first element of a record is its tag; the first of a frame the version.
Payloads are `Raw` JSON: whoever only passes them on never parses them.
"""

from __future__ import annotations

from msgspec import Raw, Struct

from mesh_sdk.protocol.definitions import LabelDefinition, WorkflowDefinition

VERSION = 1
"""Major version of the wire contract: a frame of another one is a dead letter."""

NULL = Raw(b"null")


class Record(Struct, array_like=True, gc=False):
    """Base of all wire records."""


# ---- client → TRIGGERS ------------------------------------------------------------------------------------------


class Start(Record, tag="start"):
    """Start a run. `run` is the client's id for it; with a `key` the scheduler may answer with an older run's."""

    run: str
    workflow: str
    input: Raw
    priority: int = 0
    """0: the workflow's own."""
    metadata: dict[str, str] | None = None
    key: str = ""
    delay_ms: int = 0
    worker: str = ""
    """Bind the run to this worker from its first step."""
    labels: list[LabelDefinition] = []
    """Wanted of the worker of every step of this run, in place of the step's own wishes for labels of the same names."""


class Cancel(Record, tag="cancel"):
    """Cancel a run, wherever it is."""

    run: str
    reason: str


PAUSE = "pause"
RESUME = "resume"
DRAIN = "drain"
STEERINGS = (PAUSE, RESUME, DRAIN)


class Steer(Record, tag="steer"):
    """An operator has a worker take no new work for a while, take work again, or end as on SIGTERM."""

    worker: str
    what: str
    """One of STEERINGS."""


Trigger = Start | Cancel | Steer


class TriggerFrame(Struct, array_like=True, gc=False):
    """What a client stores under `trigger.<partition>.<priority>` (or `.control`, for cancels)."""

    version: int
    client: str
    records: list[Trigger]
    resent: int = 0
    """How often it was sent before: a frame sent once can't be a repeat."""


# ---- worker → REPORTS -------------------------------------------------------------------------------------------


class Register(Record, tag="register"):
    """This incarnation of the worker is up (or has changed): what it is and what it can run."""

    name: str
    slots: int
    workflows: list[WorkflowDefinition]
    labels: dict[str, str | int | float]
    client: str
    """The worker's own `done` address, for children it spawns."""
    host: str = ""
    pid: int = 0
    sdk: str = ""
    paused: bool = False
    """An operator had it pause, as far as it has heard: an incarnation before this one, in the same process."""


class Draining(Record, tag="draining"):
    """The worker takes no more work; what it holds it finishes."""


class Left(Record, tag="left"):
    """The worker has gone; everything it held is answered."""


class Accepted(Record, tag="accepted"):
    """The attempt runs, or ran, on the reporting worker and in one of its slots."""

    run: str
    step: int
    attempt: int
    token: str


class Finished(Record, tag="finished"):
    """The attempt ended well."""

    run: str
    step: int
    attempt: int
    token: str
    output: Raw


class StepError(Struct, array_like=True, gc=False):
    """Why an attempt failed, as the user's code said it."""

    type: str
    message: str
    traceback: str = ""


RETRY_ALLOWED = 0
RETRY_NEVER = -1

FAILED_ERROR = "error"
FAILED_TIMEOUT = "timeout"
FAILED_INVALID = "invalid"
"""The input did not pass validation: no retry can help."""
FAILED_CANCELLED = "cancelled"
"""The scheduler had asked for it."""


class Failed(Record, tag="failed"):
    """The attempt ended badly."""

    run: str
    step: int
    attempt: int
    token: str
    error: StepError
    kind: str = FAILED_ERROR
    retry: int = RETRY_ALLOWED
    """RETRY_ALLOWED, RETRY_NEVER, or the milliseconds that the step asked to wait before the next attempt."""


RETURNED_FULL = "full"
RETURNED_REDELIVERED = "redelivered"
RETURNED_DRAINING = "draining"
RETURNED_PAUSED = "paused"
RETURNED_STALLED = "stalled"
RETURNED_UNKNOWN_ACTION = "unknown action"
RETURNED_WITHDRAWN = "withdrawn"
"""The leader had asked for it."""


class Returned(Record, tag="returned"):
    """The attempt was not run by the reporting worker and will not be. `reason` is one of RETURNED_*."""

    run: str
    step: int
    attempt: int
    token: str
    reason: str


class Lent(Record, tag="lent"):
    """The attempt awaits children and has given its slot back meanwhile."""

    run: str
    step: int
    attempt: int
    token: str


class Resumed(Record, tag="resumed"):
    """The attempt has taken a slot again."""

    run: str
    step: int
    attempt: int
    token: str


class Refresh(Record, tag="refresh"):
    """The attempt needs more time: its execution timeout ends `extend_ms` later."""

    run: str
    step: int
    attempt: int
    token: str
    extend_ms: int


class Spawn(Record, tag="spawn"):
    """An attempt starts a child run. `child` follows from the parent, the step and the position, so a repeat is known."""

    run: str
    step: int
    attempt: int
    token: str
    position: str
    """`<workflow>#<count>` or `key:<key>`."""
    digest: str
    """Of the input: a retry that spawns something else at this position is refused by the SDK."""
    child: str
    workflow: str
    input: Raw
    sticky: bool = False
    priority: int = 0
    metadata: dict[str, str] | None = None
    labels: list[LabelDefinition] = []
    """As of Start."""


class Holding(Record, tag="holding"):
    """Everything that the worker holds right now, sent when the lanes were lost: `[run, step, attempt, token]` each."""

    attempts: list[tuple[str, int, int, str]]
    question: int = 0
    """Of the leader, that this answers; 0: it did not ask."""


Report = Register | Draining | Left | Accepted | Finished | Failed | Returned | Lent | Resumed | Refresh | Spawn | Holding


class ReportFrame(Struct, array_like=True, gc=False):
    """What a worker stores under `report.<partition>`."""

    version: int
    worker: str
    incarnation: str
    records: list[Report]


# ---- scheduler → LANES ------------------------------------------------------------------------------------------


class Origin(Struct, array_like=True, gc=False):
    """The rarer facts about a run that its steps can ask for."""

    metadata: dict[str, str]
    parent_run: str = ""
    event: str = ""
    """Name of the event that started it."""
    moved: bool = False
    """A sticky run was on another worker before."""
    children: list[tuple[str, str, str]] | None = None
    """What earlier attempts of this step spawned: (position, input digest, child run id)."""
    moves: int = 0
    """How often the sticky run has been bound to another worker: state that was kept at an older count is stale."""
    begun: bool = False
    """Of a sticky run, a step has succeeded before; told for steps without parents, which would say so themselves."""


class Assign(Record, tag="assign"):
    """Run this attempt. `token` must be shown with every report about it."""

    run: str
    step: int
    attempt: int
    token: str
    workflow: str
    name: str
    """The step's name: the worker looks `workflow:name` up, whatever order its own definition has."""
    input: Raw
    parents: dict[str, Raw]
    """Outputs of the step's parents."""
    retry_count: int = 0
    origin: Origin | None = None


class Withdraw(Record, tag="withdraw"):
    """Stop this attempt if it runs, forget it if it doesn't. Private lanes only."""

    run: str
    step: int
    attempt: int
    token: str
    reason: str
    unless_started: bool = False
    """Only if it has not started: it waited too long and is wanted elsewhere. One that runs goes on."""


class Forget(Record, tag="forget"):
    """The sticky run has ended, or belongs to another worker: what this one keeps for it goes. Private lanes only."""

    run: str
    reason: str
    """FORGET_*."""


FORGET_ENDED = "ended"
FORGET_MOVED = "moved"


class Steered(Record, tag="steered"):
    """The worker is to pause, to go on, or to drain. Private lanes only."""

    what: str
    """One of STEERINGS."""


Order = Assign | Withdraw | Forget | Steered


class LaneFrame(Struct, array_like=True, gc=False):
    """One message of a lane."""

    version: int
    term: int
    records: list[Order]


# ---- scheduler → done.<client> ----------------------------------------------------------------------------------

SUCCEEDED = "succeeded"
FAILED = "failed"
CANCELLED = "cancelled"
TIMED_OUT = "timed_out"
QUEUED = "queued"
RUNNING = "running"
WAITING = "waiting"
REFUSED = "refused"
"""The start itself was refused (unknown workflow, bad record): there is no run."""


class RunError(Struct, array_like=True, gc=False):
    """How one step of a run failed; `step` is "" when it was no step's fault (a cancel's reason, a refused start)."""

    step: str
    type: str
    message: str
    traceback: str = ""
    attempt: int = 0


class Done(Record, tag="done"):
    """A run has ended. `output` is its result when it succeeded."""

    run: str
    status: str
    output: Raw
    errors: list[RunError] | None = None


class Started(Record, tag="started"):
    """Answer to a start with a key: `run` is the run that the key belongs to, `requested` what the client had asked for."""

    requested: str
    run: str


class Registered(Record, tag="registered"):
    """The leader has journaled this incarnation's registration (or refused it, with the reason)."""

    worker: str
    incarnation: str
    refused: str = ""


Notice = Done | Started | Registered


class NoticeFrame(Struct, array_like=True, gc=False):
    """One core message on `done.<client>`. Never the only copy of a fact: see the `results` call of the API."""

    version: int
    term: int
    records: list[Notice]
