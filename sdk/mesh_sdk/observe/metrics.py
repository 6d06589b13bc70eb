"""What worker and scheduler count about themselves, and under which names Prometheus finds it.

Rule: every metric stands here, with its help; `docs/metrics.md` explains each. The methods are plain and without IO, to
be called from the event loop; gauges are read at the scrape. Labels are bounded: registered actions and workflows, pools
and fixed words, never an id of a run, an event or a key.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from socket import gethostname
from typing import Any, TypeVar, Unpack

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from mesh_sdk.observe.gauges import SchedulerReads, WorkerReads
from mesh_sdk.observe.instruments import Counter, Gauge, Histogram, Info, Instrument
from mesh_sdk.protocol import records
from mesh_sdk.protocol.definitions import CANCEL_IN_PROGRESS, CANCEL_NEWEST, QUEUE_NEWEST

EXECUTION_BOUNDS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 15, 60, 300, 1800, 7200)
LOOP_BOUNDS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 15)
TICK_BOUNDS_S = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1)

STEP_OUTCOMES = (
    records.SUCCEEDED,
    records.FAILED_ERROR,
    records.FAILED_TIMEOUT,
    records.FAILED_INVALID,
    records.FAILED_CANCELLED,
)
RUN_OUTCOMES = (records.SUCCEEDED, records.FAILED, records.CANCELLED, records.TIMED_OUT)
RETURN_REASONS = (
    records.RETURNED_FULL,
    records.RETURNED_REDELIVERED,
    records.RETURNED_DRAINING,
    records.RETURNED_PAUSED,
    records.RETURNED_STALLED,
    records.RETURNED_UNKNOWN_ACTION,
    records.RETURNED_WITHDRAWN,
)
CANCELLING_STRATEGIES = (CANCEL_IN_PROGRESS, CANCEL_NEWEST, QUEUE_NEWEST)
STICKY_RESULTS = ("hit", "first", "miss")
RETRY_REASONS = (records.FAILED_ERROR, records.FAILED_TIMEOUT, "lost")
DEAD_LETTER_SOURCES = ("events", "triggers", "reports", "lanes", "journal")
LANES = ("shared", "private")


InstrumentT = TypeVar("InstrumentT", bound=Instrument)


class _Metrics(Collector):
    """A registry of its own, filled from instruments.

    Attributes:
        registry: what the health server exposes.
    """

    def __init__(self) -> None:
        self._instruments: list[Instrument] = []
        self._gauges: dict[str, Gauge] = {}
        self.registry = CollectorRegistry()
        self.registry.register(self)
        ProcessCollector(registry=self.registry)

    def collect(self) -> Iterator[Metric]:
        """Called by the registry at each scrape."""
        for instrument in self._instruments:
            family = instrument.family()
            if family is not None:
                yield family

    def _add(self, instrument: InstrumentT) -> InstrumentT:
        self._instruments.append(instrument)
        return instrument

    def _gauge(self, key: str, name: str, help: str, label: str | None = None) -> None:
        self._gauges[key] = self._add(Gauge(name, help, label))

    def _watch(self, reads: Mapping[str, Any]) -> None:
        for key, read in reads.items():
            self._gauges[key].read = read


class WorkerMetrics(_Metrics):
    """What one worker process counts.

    Args:
        worker: the worker's id.
        name: the worker's name.
        version: of the SDK.
    """

    def __init__(self, worker: str = "", name: str = "", version: str = "") -> None:
        super().__init__()
        self.info = self._add(
            Info(
                "mesh_worker_info",
                "Always 1; the labels say which worker this process is.",
                {"worker": worker, "name": name, "pool": "", "version": version, "host": gethostname()},
            )
        )
        self._gauge("ready", "mesh_worker_ready", "1 while the worker is registered and takes work, else 0.")
        self._gauge("draining", "mesh_worker_draining", "1 while the worker finishes what it holds and takes nothing new, else 0.")
        self._gauge("slots", "mesh_worker_slots", "Steps that the worker can run at the same time.")
        self._gauge("slots_used", "mesh_worker_slots_used", "Slots in use, by the worker's own count.")
        self._gauge(
            "heartbeat_timestamp",
            "mesh_worker_heartbeat_timestamp_seconds",
            "Unix time of the last heartbeat that the worker has sent.",
        )
        self._gauge("executor_threads", "mesh_worker_executor_threads", "Most threads that the pool for sync steps may have.")
        self._gauge("executor_threads_busy", "mesh_worker_executor_threads_busy", "Threads of the pool that run a sync step now.")
        self._gauge("sticky_runs", "mesh_worker_sticky_runs", "Sticky runs that the worker keeps an entry (context.local) for.")
        self._gauge("reports_buffered", "mesh_reports_buffered", "Reports made and not yet stored by the server.")
        self._gauge("nats_connected", "mesh_nats_connected", "1 while the connection to NATS is up, else 0.")
        self._lag = self._add(
            Histogram("mesh_worker_event_loop_lag_seconds", "How late the event loop came back to a timer; sampled.", LOOP_BOUNDS_S)
        )
        self._started = self._add(Counter("mesh_steps_started", "Attempts that began to run.", ("action",)))
        self._finished = self._add(Counter("mesh_steps_finished", "Attempts that ended, by how.", ("action", "outcome")))
        self._execution = self._add(Histogram("mesh_step_execution_seconds", "Time that an attempt ran.", EXECUTION_BOUNDS_S, ("action",)))
        self._returned = self._add(Counter("mesh_steps_returned", "Attempts handed back without having been run, by why.", ("reason",)))
        self._sticky_steps = self._add(
            Counter("mesh_worker_sticky_steps", "Steps of sticky runs that began, by whether its entry was here.", ("workflow", "result"))
        )
        self._sticky_arrivals = self._add(
            Counter("mesh_worker_sticky_arrivals", "Sticky runs that came from another worker.", ("workflow",))
        )
        self._sticky_evictions = self._add(
            Counter("mesh_worker_sticky_evictions", "Entries of sticky runs that made room for others.", ("workflow",))
        )
        self._reconnects = self._add(Counter("mesh_nats_reconnects", "Times that the connection to NATS came back."))
        self._dead_letters = self._add(
            Counter("mesh_dead_letters", "Messages or records that could not be read and were set aside.", ("source",))
        )
        self._returned.preset(*((reason,) for reason in RETURN_REASONS))
        self._dead_letters.preset(("lanes",))

    def watch(self, **reads: Unpack[WorkerReads]) -> None:
        """Say where gauges are read from; a gauge without a read is not shown.

        Args:
            reads: plain functions, called on the scrape's thread; they must only read.
        """
        self._watch(reads)

    def registered(self, pool: str, actions: Iterable[str], sticky: Iterable[str] = ()) -> None:
        """The worker has registered these actions and sticky workflows: show them from now on, as 0, and name the pool."""
        self.info.labels = {**self.info.labels, "pool": pool}
        for action in actions:
            self._started.preset((action,))
            self._execution.preset((action,))
            self._finished.preset(*((action, outcome) for outcome in STEP_OUTCOMES))
        for workflow in sticky:
            self._sticky_steps.preset(*((workflow, result) for result in STICKY_RESULTS))
            self._sticky_arrivals.preset((workflow,))
            self._sticky_evictions.preset((workflow,))

    def step_started(self, action: str) -> None:
        """An attempt of a registered action begins to run."""
        self._started.add((action,))

    def step_finished(self, action: str, outcome: str, seconds: float) -> None:
        """An attempt has ended.

        Args:
            action: `workflow:step`, a registered one.
            outcome: one of STEP_OUTCOMES: "succeeded", or the kind of the `Failed` report.
            seconds: how long it ran.
        """
        self._finished.add((action, outcome))
        self._execution.observe(seconds, (action,))

    def steps_returned(self, reason: str, count: int = 1) -> None:
        """Attempts were handed back; `reason` is one of `records.RETURNED_*`."""
        self._returned.add((reason,), count)

    def sticky_step(self, workflow: str, result: str) -> None:
        """A step of a sticky run begins; `result` is one of STICKY_RESULTS."""
        self._sticky_steps.add((workflow, result))

    def sticky_arrived(self, workflow: str) -> None:
        """A sticky run that was on another worker begins here."""
        self._sticky_arrivals.add((workflow,))

    def sticky_evicted(self, workflow: str) -> None:
        """An entry made room for another run's."""
        self._sticky_evictions.add((workflow,))

    def loop_lag(self, seconds: float) -> None:
        """One sample of how late the loop was."""
        self._lag.observe(seconds)

    def reconnected(self) -> None:
        """The connection to NATS is back."""
        self._reconnects.add()

    def dead_letter(self, source: str = "lanes") -> None:
        """Something unreadable was set aside."""
        self._dead_letters.add((source,))


class SchedulerMetrics(_Metrics):
    """What one scheduler process counts, leading or not.

    What only the leader knows for sure (workers, slots, queue) is shown only while `leader` reads 1, so that a sum over
    all schedulers counts nothing twice.

    Args:
        scheduler: the scheduler's id, as it stands in the lease.
        version: of the engine.
    """

    def __init__(self, scheduler: str = "", version: str = "") -> None:
        super().__init__()
        self._leader_only: list[Gauge] = []
        self.info = self._add(
            Info(
                "mesh_scheduler_info",
                "Always 1; the labels say which scheduler this process is.",
                {"scheduler": scheduler, "version": version, "host": gethostname()},
            )
        )
        self._gauge("leader", "mesh_scheduler_leader", "1 while this scheduler leads, else 0.")
        self._gauge("term", "mesh_scheduler_term", "Newest term that this scheduler knows of.")
        self._gauge("journal_sequence", "mesh_journal_sequence", "Last journal sequence that this scheduler wrote or applied.")
        self._gauge("nats_connected", "mesh_nats_connected", "1 while the connection to NATS is up, else 0.")
        self._leader_gauge("queue_depth", "mesh_queue_depth", "Steps that are ready and wait for a slot.")
        self._leader_gauge("runs_in_progress", "mesh_runs_in_progress", "Runs that have started and not ended.")
        self._leader_gauge("group_runs_waiting", "mesh_concurrency_runs_waiting", "Runs that wait for a place in a concurrency group.")
        self._leader_gauge("rate_steps_waiting", "mesh_rate_limit_steps_waiting", "Steps that wait until a rate limit lets them pass.")
        self._leader_gauge(
            "steps_without_worker", "mesh_steps_without_worker", "Steps that no worker that is there could run, by its labels or slots."
        )
        self._leader_gauge("workers", "mesh_workers", "Workers known to the leader, by state.", "state")
        self._leader_gauge("pool_slots", "mesh_pool_slots", "Slots of a pool's workers.", "pool")
        self._leader_gauge("pool_slots_used", "mesh_pool_slots_used", "Slots of a pool that are held, reserved or released to.", "pool")
        self._leader_changes = self._add(Counter("mesh_scheduler_leader_changes", "Changes of the leader that this scheduler has seen."))
        self._tick = self._add(
            Histogram("mesh_scheduler_tick_seconds", "Time of one turn of the leader's loop: decide and encode one frame.", TICK_BOUNDS_S)
        )
        self._lag = self._add(
            Histogram("mesh_scheduler_event_loop_lag_seconds", "How late the event loop came back to a timer; sampled.", LOOP_BOUNDS_S)
        )
        self._frames = self._add(Counter("mesh_journal_frames", "Frames that this scheduler has written to the journal."))
        self._records = self._add(Counter("mesh_journal_records", "Records in those frames."))
        self._lane_messages = self._add(Counter("mesh_lane_messages", "Messages sent on lanes.", ("lane",)))
        self._assignments = self._add(Counter("mesh_assignments", "Attempts assigned, by the lane they went on.", ("lane",)))
        self._events = self._add(Counter("mesh_events", "Events decided, by whether any workflow listens.", ("matched",)))
        self._runs_started = self._add(Counter("mesh_runs_started", "Runs that began.", ("workflow",)))
        self._runs_finished = self._add(Counter("mesh_runs_finished", "Runs that ended, by how.", ("workflow", "outcome")))
        self._run_duration = self._add(
            Histogram("mesh_run_duration_seconds", "Time from a run's start to its end.", EXECUTION_BOUNDS_S, ("workflow",))
        )
        self._group_cancels = self._add(
            Counter("mesh_concurrency_runs_cancelled", "Runs that were cancelled for others of their concurrency group.", ("strategy",))
        )
        self._retries = self._add(Counter("mesh_retries", "New attempts of steps, by what made them necessary.", ("reason",)))
        self._moves = self._add(Counter("mesh_sticky_moves", "Times that a sticky run was bound to another worker.", ("reason",)))
        self._recalls = self._add(Counter("mesh_steps_recalled", "Assignments asked for again, because nobody had started them in time."))
        self._dead_letters = self._add(
            Counter("mesh_dead_letters", "Messages or records that could not be read and were set aside.", ("source",))
        )
        self._reconnects = self._add(Counter("mesh_nats_reconnects", "Times that the connection to NATS came back."))
        self._lane_messages.preset(*((lane,) for lane in LANES))
        self._assignments.preset(*((lane,) for lane in LANES))
        self._events.preset(("true",), ("false",))
        self._group_cancels.preset(*((strategy,) for strategy in CANCELLING_STRATEGIES))
        self._retries.preset(*((reason,) for reason in RETRY_REASONS))
        self._dead_letters.preset(*((source,) for source in DEAD_LETTER_SOURCES))

    def _leader_gauge(self, key: str, name: str, help: str, label: str | None = None) -> None:
        self._gauge(key, name, help, label)
        self._leader_only.append(self._gauges[key])

    def collect(self) -> Iterator[Metric]:
        """Called by the registry at each scrape."""
        leader = self._gauges["leader"].value()
        for gauge in self._leader_only:
            gauge.shown = leader == 1
        return super().collect()

    def watch(self, **reads: Unpack[SchedulerReads]) -> None:
        """Say where gauges are read from; a gauge without a read is not shown.

        Args:
            reads: plain functions, called on the scrape's thread; they must only read.
        """
        self._watch(reads)

    def registered(self, workflow: str) -> None:
        """A worker has registered this workflow: show it from now on, as 0."""
        self._runs_started.preset((workflow,))
        self._run_duration.preset((workflow,))
        self._runs_finished.preset(*((workflow, outcome) for outcome in RUN_OUTCOMES))

    def leader_changed(self) -> None:
        """Another scheduler than before leads (this one or any other)."""
        self._leader_changes.add()

    def tick(self, seconds: float) -> None:
        """One turn of the leader's loop took this long."""
        self._tick.observe(seconds)

    def loop_lag(self, seconds: float) -> None:
        """One sample of how late the loop was."""
        self._lag.observe(seconds)

    def frame(self, records: int) -> None:
        """A frame with so many records was written to the journal."""
        self._frames.add()
        self._records.add((), records)

    def lane_message(self, lane: str, assignments: int) -> None:
        """A message went out on a lane.

        Args:
            lane: "shared" or "private".
            assignments: attempts that it assigns.
        """
        self._lane_messages.add((lane,))
        self._assignments.add((lane,), assignments)

    def event(self, matched: bool) -> None:
        """An event was decided; `matched` when at least one workflow listens to it."""
        self._events.add(("true",) if matched else ("false",))

    def run_started(self, workflow: str) -> None:
        """A run of a registered workflow began."""
        self._runs_started.add((workflow,))

    def run_finished(self, workflow: str, status: str, seconds: float) -> None:
        """A run has ended.

        Args:
            workflow: a registered one.
            status: one of RUN_OUTCOMES.
            seconds: from its start to its end.
        """
        self._runs_finished.add((workflow, status))
        self._run_duration.observe(seconds, (workflow,))

    def sticky_move(self, *reasons: str, count: int = 1) -> None:
        """A sticky run was bound to another worker, for this reason; with a count of 0 the reasons are only shown from now on."""
        for reason in reasons:
            self._moves.add((reason,), count)

    def recalled(self) -> None:
        """An assignment was asked for again."""
        self._recalls.add()

    def group_cancelled(self, strategy: str) -> None:
        """A run was cancelled for another one of its group; `strategy` is one of CANCELLING_STRATEGIES."""
        self._group_cancels.add((strategy,))

    def retry(self, reason: str) -> None:
        """A step gets a new attempt; `reason` is one of RETRY_REASONS."""
        self._retries.add((reason,))

    def dead_letter(self, source: str) -> None:
        """Something unreadable was set aside; `source` is one of DEAD_LETTER_SOURCES."""
        self._dead_letters.add((source,))

    def reconnected(self) -> None:
        """The connection to NATS is back."""
        self._reconnects.add()
