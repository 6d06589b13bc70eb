"""What a worker process is made of, apart from its incarnations: made once by `runtime`, used by each `Session`."""

from __future__ import annotations

from dataclasses import dataclass

from mesh_sdk.client import Client
from mesh_sdk.context import WorkerView
from mesh_sdk.protocol.subjects import Subjects
from mesh_sdk.transport.bus import Bus
from mesh_sdk.worker.clock import Clock
from mesh_sdk.worker.hold import Holds
from mesh_sdk.worker.holder import Holder
from mesh_sdk.worker.locals import Locals
from mesh_sdk.worker.observer import Observer
from mesh_sdk.worker.presence import Presence
from mesh_sdk.worker.pulse import Pulse
from mesh_sdk.worker.registry import Registry
from mesh_sdk.worker.slots import Slots
from mesh_sdk.worker.threads import Threads


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts that outlive an incarnation; `holder` is None where the id is new at each start, so that nobody else can have it."""

    worker: str
    holder: Holder | None
    view: WorkerView
    bus: Bus
    subjects: Subjects
    client: Client
    registry: Registry
    slots: Slots
    threads: Threads
    key_threads: Threads
    holds: Holds
    locals: Locals
    observer: Observer
    clock: Clock
    presence: Presence
    pulse: Pulse
