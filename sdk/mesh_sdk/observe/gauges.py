"""What the gauges of workers and schedulers are read from, at the scrape.

Rule: a read is a plain function that only reads; it is called on the scrape's thread.
"""

from __future__ import annotations

from typing import TypedDict

from mesh_sdk.observe.instruments import Read, ReadEach


class WorkerReads(TypedDict, total=False):
    """What a worker's gauges are read from."""

    ready: Read
    """1 once the leader has journaled the registration and the worker takes work, else 0."""
    draining: Read
    slots: Read
    slots_used: Read
    heartbeat_timestamp: Read
    """Seconds since 1970 of the last heartbeat that went out."""
    executor_threads: Read
    executor_threads_busy: Read
    reports_buffered: Read
    sticky_runs: Read
    """Sticky runs that the worker keeps something for."""
    nats_connected: Read


class SchedulerReads(TypedDict, total=False):
    """What a scheduler's gauges are read from. All but the first four are shown only while it leads."""

    leader: Read
    """1 while this process leads, else 0."""
    term: Read
    """The newest term that this process knows of."""
    journal_sequence: Read
    """The last journal sequence that this process has written or applied."""
    nats_connected: Read
    queue_depth: Read
    runs_in_progress: Read
    group_runs_waiting: Read
    """Runs that wait for a place in a concurrency group."""
    rate_steps_waiting: Read
    """Steps that wait for a rate limit."""
    steps_without_worker: Read
    """Steps that none of the workers there could run, by its labels or slots."""
    workers: ReadEach
    """Workers by state."""
    pool_slots: ReadEach
    """Slots by pool."""
    pool_slots_used: ReadEach
