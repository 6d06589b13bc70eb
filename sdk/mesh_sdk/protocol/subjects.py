"""Every subject, stream and bucket name of one namespace. No other module builds one by hand.

A namespace is one token: it stands in subjects (`mesh.<namespace>.…`), in stream names
(`mesh_<namespace>_JOURNAL`) and in bucket names (`mesh_<namespace>_slots`).
"""

from __future__ import annotations

import re

from mesh_sdk.errors import InvalidName

PARTITION = "0"
"""The only partition so far; the token is in every subject so that more can come."""

PRIORITIES = range(1, 10)
"""1 is the lowest and the default, 9 the highest."""

_TOKEN = re.compile(r"[A-Za-z0-9_-]{1,64}")
_EVENT = re.compile(r"[^\s.*>\x00-\x1f\x7f]+(\.[^\s.*>\x00-\x1f\x7f]+)*")
_EVENT_CHARACTERS_MAX = 200


def check_token(kind: str, value: str) -> str:
    """Return `value` if a subject can carry it as one token.

    Args:
        kind: what the value names, for the message ("namespace", "worker id").
        value: 1 to 64 characters out of A-Z a-z 0-9 _ -.

    Raises:
        InvalidName: when it is anything else.
    """
    if not _TOKEN.fullmatch(value):
        raise InvalidName(f"{kind} {value!r} can't be part of a subject: use 1 to 64 of the characters A-Z a-z 0-9 _ -")
    return value


def check_event_name(name: str) -> str:
    """Return `name` if it can be published as an event: tokens joined by dots, no spaces, `*`, `>` or empty tokens.

    Raises:
        InvalidName: when it can't.
    """
    if len(name) > _EVENT_CHARACTERS_MAX or not name.isprintable() or not _EVENT.fullmatch(name):
        raise InvalidName(
            f"event name {name!r} can't be a subject: use tokens joined by dots, without spaces, '*', '>' or empty tokens, "
            f"{_EVENT_CHARACTERS_MAX} characters at most"
        )
    return name


class Subjects:
    """The names of one namespace.

    Args:
        namespace: one token; "default" unless the user chose another.

    Raises:
        InvalidName: when the namespace can't be a token.
    """

    def __init__(self, namespace: str = "default") -> None:
        self.namespace = check_token("namespace", namespace)
        self.prefix = prefix = f"mesh.{namespace}"
        stream = f"mesh_{namespace}"
        # streams
        self.events_stream = f"{stream}_EVENTS"
        self.triggers_stream = f"{stream}_TRIGGERS"
        self.reports_stream = f"{stream}_REPORTS"
        self.journal_stream = f"{stream}_JOURNAL"
        self.lanes_stream = f"{stream}_LANES"
        self.dead_stream = f"{stream}_DEAD"
        # buckets (a bucket is the stream KV_<bucket> with subjects $KV.<bucket>.<key>; an object store OBJ_<bucket>)
        self.workers_bucket = f"{stream}_workers"
        self.slots_bucket = f"{stream}_slots"
        self.workflows_bucket = f"{stream}_workflows"
        self.leader_bucket = f"{stream}_leader"
        self.snapshots_bucket = f"{stream}_snapshots"
        # subjects
        self.journal = f"{prefix}.journal.{PARTITION}"
        self.report = f"{prefix}.report.{PARTITION}"
        self.trigger_control = f"{prefix}.trigger.{PARTITION}.control"
        self.lane_fence = f"{prefix}.lane.fence.{PARTITION}"
        self.leader_beat = f"{prefix}.beat.leader.{PARTITION}"
        self.all_events = f"{prefix}.events.>"
        self.all_triggers = f"{prefix}.trigger.>"
        self.all_reports = f"{prefix}.report.>"
        self.all_journals = f"{prefix}.journal.>"
        self.all_lanes = f"{prefix}.lane.>"
        self.all_worker_lanes = f"{prefix}.lane.worker.>"
        self.all_pushes = f"{prefix}.push.worker.>"
        self.all_dead = f"{prefix}.dead.>"
        self.all_worker_beats = f"{prefix}.beat.worker.*"
        self.control_all = f"{prefix}.control-all"
        self._events = f"{prefix}.events."

    def event(self, name: str) -> str:
        """Where an event of this name is published. The caller has checked the name."""
        return self._events + name

    def event_name(self, subject: str) -> str:
        """The event's name, from the subject it was stored under."""
        return subject[len(self._events) :]

    def trigger(self, priority: int) -> str:
        """Where starts of this priority (1 to 9) are stored."""
        return f"{self.prefix}.trigger.{PARTITION}.{priority}"

    def shared_lane(self, pool: str) -> str:
        """The lane that all workers of a pool pull from."""
        return f"{self.prefix}.lane.shared.{pool}"

    def worker_lane(self, worker: str, incarnation: str) -> str:
        """The private lane of one incarnation of a worker, as stored in the lanes stream."""
        return f"{self.prefix}.lane.worker.{worker}.{incarnation}"

    def worker_push(self, worker: str, incarnation: str) -> str:
        """The core subject that the private lane is republished to."""
        return f"{self.prefix}.push.worker.{worker}.{incarnation}"

    def pool_consumer(self, pool: str) -> str:
        """Name of the durable pull consumer of a pool's shared lane."""
        return f"pool_{pool}"

    def consumer_pool(self, consumer: str) -> str:
        """The pool whose consumer has this name; "" when it is no pool's."""
        return consumer.removeprefix("pool_") if consumer.startswith("pool_") else ""

    def done(self, client: str) -> str:
        """Where a client (or worker) hears that its runs have ended."""
        return f"{self.prefix}.done.{client}"

    def live(self, run: str) -> str:
        """What the steps of one run send to whoever watches it right now, as core messages."""
        return f"{self.prefix}.live.{run}"

    def control(self, worker: str) -> str:
        """Request/reply with one worker: probes."""
        return f"{self.prefix}.control.{worker}"

    def worker_beat(self, worker: str) -> str:
        """Heartbeats of one worker, as core messages."""
        return f"{self.prefix}.beat.worker.{worker}"

    def api(self, call: str) -> str:
        """Request/reply with the leader, e.g. `runs.get`."""
        return f"{self.prefix}.api.{PARTITION}.{call}"

    def dead(self, source: str) -> str:
        """Dead letters of one source: `events`, `triggers`, `reports`, `lanes`, `journal`."""
        return f"{self.prefix}.dead.{source}"
