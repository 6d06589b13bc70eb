"""Writes the dashboards of this folder: `python deploy/grafana/generate.py`; a test compares what it makes with what is there.

Rule: panels are told here in a line or two each (title, what it means, queries, unit); places, ids and everything that
Grafana wants beside that follow from their order.
"""

from __future__ import annotations

import json
from pathlib import Path

from panels import BLUE, GREEN, ORANGE, RED, Panel, Row, counted, dashboard, percentiles, quantile, rate, stat

FOLDER = Path(__file__).parent / "dashboards"
RUNS_MAX = 1_000
"""Entries for sticky runs that a worker keeps unless told otherwise."""
HITS, MISSES, HITS_AND_MISSES = (f"mesh_worker_sticky_steps_total{{result{which}}}" for which in ('="hit"', '="miss"', '!="first"'))


WORKERS = (
    Row(
        "Now",
        (
            stat(
                "Leading schedulers",
                "Exactly one leads. None: nothing is decided, work waits safely. Two for longer than a moment: look at their logs.",
                "sum(mesh_scheduler_leader)",
                ((None, RED), (1, GREEN), (2, RED)),
            ),
            stat("Term", "The leader's term; a new one at each change of the leader.", "max(mesh_scheduler_term)", ((None, BLUE),)),
            stat("Workers ready", "Workers that are registered and take work.", "sum(mesh_worker_ready)", ((None, RED), (1, GREEN))),
            stat("Runs in progress", "Runs that have started and not ended.", "max(mesh_runs_in_progress)", ((None, BLUE),)),
            stat("Queue depth", "Steps that are ready and wait for a slot.", "max(mesh_queue_depth)", ((None, GREEN), (1_000, ORANGE))),
            stat(
                "NATS links down",
                "Workers and schedulers without a connection to NATS. They keep their reports and go on when it is back.",
                "sum(1 - mesh_nats_connected)",
                ((None, GREEN), (1, RED)),
            ),
        ),
    ),
    Row(
        "Workers and slots",
        (
            Panel("Workers by state", "As the leader sees them.", [("{{state}}", "max by (state) (mesh_workers)")], stack=True),
            Panel(
                "Slots by pool",
                "Used counts what is held, reserved or released to the pool. Used at total for long: add workers or slots.",
                [
                    ("{{pool}} used", 'max by (pool) (mesh_pool_slots_used{pool=~"$pool"})'),
                    ("{{pool}} total", 'max by (pool) (mesh_pool_slots{pool=~"$pool"})'),
                ],
            ),
            Panel(
                "Slots used by worker",
                "By each worker's own count, as a share of its slots.",
                [("{{instance}}", "mesh_worker_slots_used / mesh_worker_slots")],
                unit="percentunit",
                maximum=1,
            ),
            Panel(
                "Heartbeat age",
                "Time since each worker's last heartbeat; one goes out every half second.",
                [("{{instance}}", "time() - mesh_worker_heartbeat_timestamp_seconds")],
                unit="s",
                steps=((None, GREEN), (2, ORANGE), (5, RED)),
            ),
            Panel(
                "Queue depth",
                "Steps that are ready and wait for a slot, and runs in progress.",
                [("waiting steps", "max(mesh_queue_depth)"), ("runs in progress", "max(mesh_runs_in_progress)")],
            ),
            Panel("Draining", "Workers that finish what they hold.", [("{{instance}}", "mesh_worker_draining")], stack=True),
        ),
    ),
    Row(
        "Steps and runs",
        (
            counted("Steps by outcome", "Attempts that ended, a second.", "mesh_steps_finished_total", "outcome", stack=True),
            percentiles("Step duration", "Time that attempts ran, on all workers.", "mesh_step_execution_seconds"),
            Panel(
                "Step duration p95 by action",
                "The slow ones stand out.",
                [("{{action}}", quantile(0.95, "mesh_step_execution_seconds", "action"))],
                unit="s",
            ),
            counted("Runs by outcome", "Runs that ended, a second.", "mesh_runs_finished_total", "outcome", stack=True),
            percentiles("Run duration", "From a run's start to its end, waiting included.", "mesh_run_duration_seconds"),
            Panel(
                "Started a second",
                "Runs and attempts that began.",
                [
                    ("runs", "sum(rate(mesh_runs_started_total[$__rate_interval]))"),
                    ("steps", "sum(rate(mesh_steps_started_total[$__rate_interval]))"),
                ],
                unit="ops",
            ),
            counted(
                "Retries by reason",
                "New attempts. `lost` is the infrastructure's and does not count against a step's own retries.",
                "mesh_retries_total",
                "reason",
            ),
            counted(
                "Returned by reason", "Attempts that workers handed back without having run them.", "mesh_steps_returned_total", "reason"
            ),
            counted(
                "Dead letters by source",
                "What could not be read was set aside with its reason; anything here deserves a look.",
                "mesh_dead_letters_total",
                "source",
            ),
        ),
    ),
    Row(
        "Flow control",
        (
            Panel(
                "Held back",
                "Runs that wait for a place in a concurrency group, and steps that wait for a rate limit. That is what limits are for; it "
                "grows for ever only where more comes than they let pass.",
                [("runs, for a group", "max(mesh_concurrency_runs_waiting)"), ("steps, for a rate", "max(mesh_rate_limit_steps_waiting)")],
            ),
            Panel(
                "Steps that no worker could run",
                "By their labels or slots: they wait until such a worker comes. `mesh runs show` says what they want.",
                [("steps", "max(mesh_steps_without_worker)")],
                steps=((None, GREEN), (1, RED)),
            ),
            counted(
                "Cancelled for others of their group",
                "Runs a second, by the strategy that asked for it.",
                "mesh_concurrency_runs_cancelled_total",
                "strategy",
                stack=True,
            ),
        ),
    ),
    Row(
        "Sticky runs",
        (
            Panel(
                "Found in memory",
                "Share of steps that found their run's entry, of those that should have. Falls as workers die, drain, restart or evict.",
                [("{{workflow}}", f"{rate(HITS, 'workflow')} / {rate(HITS_AND_MISSES, 'workflow')}")],
                unit="percentunit",
                maximum=1,
            ),
            Panel(
                "Not found in memory",
                "Steps a second without their run's entry. Arrivals come from another worker; the rest: restarts, failures, evictions.",
                [
                    ("{{workflow}} misses", rate(MISSES, "workflow")),
                    ("{{workflow}} arrivals", rate("mesh_worker_sticky_arrivals_total", "workflow")),
                ],
                unit="ops",
            ),
            Panel(
                "Entries kept",
                "By each worker; the dashed line is the limit unless `sticky_runs` says otherwise. At the limit it evicts.",
                [("{{instance}}", "mesh_worker_sticky_runs")],
                steps=((None, GREEN), (RUNS_MAX, ORANGE)),
            ),
            counted(
                "Evictions",
                "Entries that made room: raise `sticky_runs`, or add workers.",
                "mesh_worker_sticky_evictions_total",
                "workflow",
            ),
            counted("Moves by reason", "Many `full` or `late`: too few slots.", "mesh_sticky_moves_total", "reason", stack=True),
            counted("Assignments recalled", "Not begun by their worker in time, so asked for.", "mesh_steps_recalled_total", "instance"),
        ),
    ),
    Row(
        "Processes",
        (
            Panel(
                "Event loop lag p99, workers",
                "How late the loop comes back to a timer. High: a step blocks it; as a plain `def` it gets a thread.",
                [("{{instance}}", quantile(0.99, "mesh_worker_event_loop_lag_seconds", "instance"))],
                unit="s",
                steps=((None, GREEN), (0.1, ORANGE), (1, RED)),
            ),
            Panel(
                "Executor threads",
                "Threads for sync steps: busy, and how many there may be.",
                [("{{instance}} busy", "mesh_worker_executor_threads_busy"), ("{{instance}} limit", "mesh_worker_executor_threads")],
            ),
            Panel("Reports buffered", "Made, not yet stored; at the limit no work is taken.", [("{{instance}}", "mesh_reports_buffered")]),
            Panel(
                "CPU",
                "Seconds of processor time a second.",
                [("{{job}} {{instance}}", 'rate(process_cpu_seconds_total{job=~"mesh-.*"}[$__rate_interval])')],
                unit="percentunit",
            ),
            Panel("Memory", "Resident memory.", [("{{job}} {{instance}}", 'process_resident_memory_bytes{job=~"mesh-.*"}')], unit="bytes"),
            Panel(
                "NATS link",
                "1 while connected, and reconnects a second.",
                [
                    ("{{job}} {{instance}}", "mesh_nats_connected"),
                    ("{{instance}} reconnects", rate("mesh_nats_reconnects_total", "instance")),
                ],
            ),
        ),
    ),
    Row(
        "Scheduler",
        (
            Panel("Leader", "1 where it leads.", [("{{instance}}", "mesh_scheduler_leader")], stack=True, maximum=1),
            Panel("Term", "As each scheduler knows it.", [("{{instance}}", "mesh_scheduler_term")]),
            Panel(
                "Leader changes",
                "Seen by each scheduler, an hour.",
                [("{{instance}}", "increase(mesh_scheduler_leader_changes_total[1h])")],
            ),
            Panel(
                "Journal frames and records",
                "Frames are fsynced writes; records per frame grow with the load.",
                [
                    ("frames", "sum(rate(mesh_journal_frames_total[$__rate_interval]))"),
                    ("records", "sum(rate(mesh_journal_records_total[$__rate_interval]))"),
                ],
                unit="ops",
            ),
            Panel(
                "Journal sequence",
                "What each scheduler has written or applied. A standby that falls behind takes over later.",
                [("{{instance}}", "mesh_journal_sequence")],
            ),
            Panel(
                "Tick p95",
                "One turn of the leader's loop.",
                [("{{instance}}", quantile(0.95, "mesh_scheduler_tick_seconds", "instance"))],
                unit="s",
            ),
            Panel(
                "Lane messages and assignments",
                "Sent a second, by lane.",
                [
                    ("{{lane}} messages", rate("mesh_lane_messages_total", "lane")),
                    ("{{lane}} assignments", rate("mesh_assignments_total", "lane")),
                ],
                unit="ops",
            ),
            Panel(
                "Events decided",
                "By whether any workflow listens.",
                [("matched {{matched}}", rate("mesh_events_total", "matched"))],
                unit="ops",
            ),
            Panel(
                "Event loop lag p99, schedulers",
                "How late the loop comes back to a timer.",
                [("{{instance}}", quantile(0.99, "mesh_scheduler_event_loop_lag_seconds", "instance"))],
                unit="s",
                steps=((None, GREEN), (0.1, ORANGE), (0.5, RED)),
            ),
        ),
    ),
)


def dashboards() -> dict[str, str]:
    """File name → content of every dashboard."""
    workers = dashboard("mesh-workers", "Workers", "Workers, their slots and steps, and the scheduler that feeds them.", WORKERS)
    return {"workers.json": json.dumps(workers, indent=2) + "\n"}


if __name__ == "__main__":
    for name, content in dashboards().items():
        (FOLDER / name).write_text(content)
