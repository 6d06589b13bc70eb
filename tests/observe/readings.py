"""A worker's and a scheduler's metrics with every gauge read and every counter counted once: all there is to see."""

from __future__ import annotations

from mesh_sdk.observe.metrics import SchedulerMetrics, WorkerMetrics


def full_worker() -> WorkerMetrics:
    metrics = WorkerMetrics(worker="w-1", name="test-worker", version="1.0")
    metrics.watch(
        ready=lambda: 1,
        draining=lambda: 0,
        slots=lambda: 5,
        slots_used=lambda: 2,
        heartbeat_timestamp=lambda: 1_700_000_000.0,
        executor_threads=lambda: 5,
        executor_threads_busy=lambda: 1,
        reports_buffered=lambda: 3,
        sticky_runs=lambda: 4,
        nats_connected=lambda: 1,
    )
    metrics.registered("abc", ["index:read", "index:parse"], ["index"])
    metrics.step_started("index:read")
    metrics.step_finished("index:read", "succeeded", 0.2)
    metrics.steps_returned("full", 2)
    metrics.sticky_step("index", "hit")
    metrics.sticky_arrived("index")
    metrics.sticky_evicted("index")
    metrics.loop_lag(0.002)
    metrics.reconnected()
    metrics.dead_letter()
    return metrics


def full_scheduler(leader: int = 1) -> SchedulerMetrics:
    metrics = SchedulerMetrics(scheduler="s-1", version="1.0")
    metrics.watch(
        leader=lambda: leader,
        term=lambda: 17,
        journal_sequence=lambda: 40,
        nats_connected=lambda: 1,
        queue_depth=lambda: 7,
        runs_in_progress=lambda: 4,
        group_runs_waiting=lambda: 3,
        rate_steps_waiting=lambda: 2,
        steps_without_worker=lambda: 1,
        workers=lambda: {"ready": 2, "draining": 1},
        pool_slots=lambda: {"abc": 10},
        pool_slots_used=lambda: {"abc": 3},
    )
    metrics.registered("index")
    metrics.leader_changed()
    metrics.tick(0.001)
    metrics.loop_lag(0.002)
    metrics.frame(12)
    metrics.lane_message("shared", 3)
    metrics.event(True)
    metrics.run_started("index")
    metrics.run_finished("index", "succeeded", 0.5)
    metrics.retry("lost")
    metrics.group_cancelled("CANCEL_NEWEST")
    metrics.sticky_move("gone")
    metrics.recalled()
    metrics.dead_letter("reports")
    metrics.reconnected()
    return metrics
