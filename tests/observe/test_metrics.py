from __future__ import annotations

import re
import shutil
import subprocess
import timeit
from pathlib import Path

import pytest
from prometheus_client import generate_latest

from mesh_sdk.observe.metrics import SchedulerMetrics, WorkerMetrics
from tests.observe.readings import full_scheduler, full_worker

ROOT = Path(__file__).parents[2]

WORKER_NAMES = {
    "mesh_worker_info",
    "mesh_worker_ready",
    "mesh_worker_slots",
    "mesh_worker_slots_used",
    "mesh_worker_heartbeat_timestamp_seconds",
    "mesh_worker_event_loop_lag_seconds",
    "mesh_worker_executor_threads",
    "mesh_worker_executor_threads_busy",
    "mesh_worker_draining",
    "mesh_steps_started_total",
    "mesh_steps_finished_total",
    "mesh_step_execution_seconds",
    "mesh_reports_buffered",
    "mesh_nats_connected",
    "mesh_nats_reconnects_total",
    "mesh_steps_returned_total",
    "mesh_worker_sticky_steps_total",
    "mesh_worker_sticky_arrivals_total",
    "mesh_worker_sticky_evictions_total",
    "mesh_worker_sticky_runs",
    "mesh_dead_letters_total",
}
SCHEDULER_NAMES = {
    "mesh_scheduler_info",
    "mesh_scheduler_leader",
    "mesh_scheduler_term",
    "mesh_scheduler_leader_changes_total",
    "mesh_scheduler_tick_seconds",
    "mesh_scheduler_event_loop_lag_seconds",
    "mesh_journal_frames_total",
    "mesh_journal_records_total",
    "mesh_journal_sequence",
    "mesh_lane_messages_total",
    "mesh_queue_depth",
    "mesh_runs_in_progress",
    "mesh_concurrency_runs_waiting",
    "mesh_concurrency_runs_cancelled_total",
    "mesh_rate_limit_steps_waiting",
    "mesh_steps_without_worker",
    "mesh_runs_started_total",
    "mesh_runs_finished_total",
    "mesh_run_duration_seconds",
    "mesh_retries_total",
    "mesh_dead_letters_total",
    "mesh_workers",
    "mesh_pool_slots",
    "mesh_pool_slots_used",
    "mesh_events_total",
    "mesh_assignments_total",
    "mesh_sticky_moves_total",
    "mesh_steps_recalled_total",
    "mesh_nats_connected",
    "mesh_nats_reconnects_total",
}
LEADER_ONLY = {
    "mesh_queue_depth",
    "mesh_runs_in_progress",
    "mesh_concurrency_runs_waiting",
    "mesh_rate_limit_steps_waiting",
    "mesh_steps_without_worker",
    "mesh_workers",
    "mesh_pool_slots",
    "mesh_pool_slots_used",
}


def text(metrics: WorkerMetrics | SchedulerMetrics) -> str:
    return generate_latest(metrics.registry).decode()


def names(metrics: WorkerMetrics | SchedulerMetrics) -> set[str]:
    return set(re.findall(r"^# TYPE (\S+)", text(metrics), re.MULTILINE))


def own(names: set[str]) -> set[str]:
    return {name for name in names if name.startswith("mesh_")}


def test_the_names_are_the_promised_ones() -> None:
    assert own(names(full_worker())) == WORKER_NAMES
    assert own(names(full_scheduler())) == SCHEDULER_NAMES


@pytest.mark.parametrize("metrics", [full_worker(), full_scheduler(), full_scheduler(leader=0), WorkerMetrics(), SchedulerMetrics()])
def test_promtool_finds_nothing_to_say(metrics: WorkerMetrics | SchedulerMetrics) -> None:
    promtool = shutil.which("promtool")
    assert promtool, "promtool is missing: install the packages in tests/apt-packages.txt"
    checked = subprocess.run([promtool, "check", "metrics"], input=text(metrics), capture_output=True, text=True, timeout=20, check=False)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


def test_every_metric_is_documented_and_nothing_else_is() -> None:
    documented = set(re.findall(r"^\| `([a-z_]+)", (ROOT / "docs/metrics.md").read_text(), re.MULTILINE))
    assert documented == names(full_worker()) | names(full_scheduler())


def test_a_registered_action_shows_as_zero_before_its_first_step() -> None:
    metrics = WorkerMetrics()
    metrics.registered("abc", ["a:b"])
    shown = text(metrics)
    assert 'mesh_steps_started_total{action="a:b"} 0.0' in shown
    assert 'mesh_steps_finished_total{action="a:b",outcome="timeout"} 0.0' in shown
    assert 'mesh_step_execution_seconds_count{action="a:b"} 0.0' in shown
    assert 'pool="abc"' in shown


def test_a_step_is_counted_where_it_belongs() -> None:
    shown = text(full_worker())
    assert 'mesh_steps_started_total{action="index:read"} 1.0' in shown
    assert 'mesh_steps_finished_total{action="index:read",outcome="succeeded"} 1.0' in shown
    assert 'mesh_step_execution_seconds_sum{action="index:read"} 0.2' in shown
    assert 'mesh_steps_returned_total{reason="full"} 2.0' in shown
    assert 'mesh_worker_sticky_steps_total{result="hit",workflow="index"} 1.0' in shown
    assert 'mesh_worker_sticky_steps_total{result="miss",workflow="index"} 0.0' in shown
    assert 'mesh_worker_sticky_arrivals_total{workflow="index"} 1.0' in shown
    assert 'mesh_worker_sticky_evictions_total{workflow="index"} 1.0' in shown


def test_frames_and_records_are_counted() -> None:
    shown = text(full_scheduler())
    assert "mesh_journal_frames_total 1.0" in shown
    assert "mesh_journal_records_total 12.0" in shown
    assert 'mesh_assignments_total{lane="shared"} 3.0' in shown
    assert 'mesh_assignments_total{lane="private"} 0.0' in shown
    assert 'mesh_concurrency_runs_cancelled_total{strategy="CANCEL_NEWEST"} 1.0' in shown
    assert 'mesh_concurrency_runs_cancelled_total{strategy="QUEUE_NEWEST"} 0.0' in shown


def test_who_does_not_lead_tells_nothing_that_only_the_leader_knows() -> None:
    assert names(full_scheduler(leader=1)) - names(full_scheduler(leader=0)) == LEADER_ONLY


def test_an_unknown_gauge_is_refused() -> None:
    with pytest.raises(KeyError):
        WorkerMetrics().watch(slotz=lambda: 1)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    "call",
    [
        "worker.step_started('index:read')",
        "worker.step_finished('index:read', 'succeeded', 0.003)",
        "scheduler.frame(3)",
        "scheduler.run_started('index')",
        "scheduler.run_finished('index', 'succeeded', 0.003)",
        "scheduler.lane_message('shared', 3)",
    ],
)
def test_a_call_costs_about_a_microsecond(call: str) -> None:
    scope = {"worker": full_worker(), "scheduler": full_scheduler()}
    best = min(timeit.repeat(call, globals=scope, number=2_000, repeat=20)) / 2_000
    assert best < 3e-6, f"{call}: {best * 1e6:.2f} µs at best; the aim is 1, the bound leaves room for a slow machine"
