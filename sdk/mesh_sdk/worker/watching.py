"""Metrics and health of a running worker, on a port if one is wanted.

Rule: watching never breaks the worker; without a port nothing is counted.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from mesh_sdk.worker.observer import Nobody, Observer

if TYPE_CHECKING:
    from mesh_sdk.observe.health import HealthServer
    from mesh_sdk.observe.metrics import WorkerMetrics
    from mesh_sdk.worker.identity import Identity
    from mesh_sdk.worker.runtime import Runtime


class Watching:
    """What looks at one worker.

    Args:
        identity: of the worker.
        port: where to serve; None for not at all.
        sdk: the SDK's version.
    """

    def __init__(self, identity: Identity, port: int | None, sdk: str) -> None:
        self._port = port
        self._metrics: WorkerMetrics | None = None
        self._health: HealthServer | None = None
        if port is not None:
            from mesh_sdk.observe.metrics import WorkerMetrics

            self._metrics = WorkerMetrics(identity.worker, identity.named, sdk)
        self.observer: Observer = self._metrics or Nobody()

    def start(self, runtime: Runtime) -> None:
        """Begin to serve."""
        if self._metrics is None or self._port is None:
            return
        from mesh_sdk.observe.health import HealthServer, LoopBeat

        beat = LoopBeat(time.monotonic)
        runtime.on_tick = beat.beat
        self._metrics.watch(
            ready=_number(lambda: runtime.ready),
            draining=_number(lambda: runtime.draining),
            slots=_number(lambda: runtime.slots.total),
            slots_used=_number(lambda: runtime.slots.used),
            heartbeat_timestamp=_number(lambda: runtime.heartbeat_ms / 1000),
            executor_threads=_number(lambda: runtime.threads.count_max),
            executor_threads_busy=_number(lambda: runtime.threads.busy),
            sticky_runs=_number(lambda: len(runtime.locals)),
            reports_buffered=_number(lambda: runtime.reports_waiting),
            nats_connected=_number(lambda: runtime.connected),
        )
        self._health = HealthServer(self._port, self._metrics.registry, healthy=beat.check, ready=runtime.readiness)
        self._health.start()

    def stop(self) -> None:
        """Serve no more."""
        if self._health is not None:
            self._health.stop()


def _number(read: Callable[[], float]) -> Callable[[], float]:
    """A gauge is a number, also where what it shows is a yes or no."""
    return lambda: float(read())
