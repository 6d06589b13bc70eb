"""What a worker says of itself: to the leader as it registers, in its beats, to whoever asks, and in its log.

Rule: everything is read at the moment it is said; the beats are made on another thread than the rest.
"""

from __future__ import annotations

import logging
import os
import socket

from mesh_sdk.config import Settings
from mesh_sdk.protocol.beats import WorkerBeat
from mesh_sdk.protocol.records import VERSION, Register
from mesh_sdk.worker.identity import Identity
from mesh_sdk.worker.session import Session
from mesh_sdk.worker.slots import Slots
from mesh_sdk.worker.threads import Threads

log = logging.getLogger("mesh_sdk.worker.runtime")


class Profile:
    """One worker, as others see it.

    Args:
        settings: where the mesh is.
        identity: who the worker is.
        slots: its.
        threads: of its sync steps.
        client: its address for notices.
        sdk: version of the SDK.
        started_ms: milliseconds since 1970 of its start.
    """

    def __init__(
        self, settings: Settings, identity: Identity, slots: Slots, threads: Threads, client: str, sdk: str, started_ms: int
    ) -> None:
        self._settings = settings
        self._identity = identity
        self._slots = slots
        self._threads = threads
        self._client = client
        self._sdk = sdk
        self._started_ms = started_ms

    def register(self, session: Session) -> Register:
        """What the leader journals."""
        identity = self._identity
        return Register(
            name=identity.named,
            slots=self._slots.total,
            workflows=identity.registry.definitions(),
            labels=identity.labels(),
            client=self._client,
            host=socket.gethostname(),
            pid=os.getpid(),
            sdk=self._sdk,
            paused=session.paused,
        )

    def beat(self, incarnation: str, session: Session | None, lag_s: float) -> WorkerBeat:
        """A sign of life.

        Args:
            incarnation: of the worker at this moment.
            session: likewise; None before the first.
            lag_s: how late the main loop is.
        """
        return WorkerBeat(
            VERSION,
            self._identity.worker,
            incarnation,
            self._identity.named,
            self._slots.total,
            self._slots.used,
            int(lag_s * 1000),
            self._threads.count_max,
            self._threads.busy,
            session is not None and session.draining,
            self._started_ms,
            session is not None and session.paused,
        )

    def about(self, incarnation: str, session: Session | None) -> dict[str, object]:
        """The answer to whoever asks who holds the id."""
        return {
            "worker": self._identity.worker,
            "incarnation": incarnation,
            "name": self._identity.named,
            "started_ms": self._started_ms,
            "running": self._slots.used,
            "slots": self._slots.total,
            "holding": len(session.steps.held) if session is not None else 0,
        }

    def say_waiting(self) -> None:
        """Log that no leader has answered yet."""
        log.warning(
            "worker %s is connected to %s and waits: no scheduler has answered in the namespace %s; is `mesh scheduler` running?",
            self._identity.worker,
            ", ".join(self._settings.servers),
            self._settings.namespace,
        )

    def say_registered(self) -> None:
        """Log what the leader has journaled."""
        identity = self._identity
        log.info(
            "worker %s (%s) connected to %s, namespace %s, registered %s (pool %s), %d slots",
            identity.worker,
            identity.named,
            ", ".join(self._settings.servers),
            self._settings.namespace,
            ", ".join(identity.registry.names()),
            identity.registry.pool,
            self._slots.total,
        )
