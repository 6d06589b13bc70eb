"""What leader and workers say about themselves again and again: heartbeats, and the value of a worker's presence key.

Arrays on the wire, as records are. A beat is never the only copy of a fact.
"""

from __future__ import annotations

from msgspec import Struct


class LeaderBeat(Struct, array_like=True, gc=False):
    """The leader lives; `resigned` when it stops of its own accord."""

    version: int
    holder: str
    term: int
    sequence: int
    """Last journal sequence it wrote."""
    resigned: bool = False


class WorkerBeat(Struct, array_like=True, gc=False):
    """A worker's own view of itself; core subject every 0.5 s, presence key slower."""

    version: int
    worker: str
    incarnation: str
    name: str
    slots: int
    running: int
    """Slots in use right now, by the worker's own count."""
    lag_ms: int
    """How late the main loop is at this moment."""
    threads: int
    threads_busy: int
    draining: bool = False
    started_ms: int = 0
    paused: bool = False
