"""A scripted scheduler for clients: reads starts and cancels from the stream, ends runs as their workflow's name says, answers calls.

`echo` succeeds with its input, `typed` with a receipt, `fails`, `cancelled`, `slow` (times out), `refused`; `held` runs until
`release`; `silent` ends without a notice, so that only asking tells.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from msgspec import Raw

from mesh_sdk.protocol import codec, records
from mesh_sdk.protocol.beats import LeaderBeat
from mesh_sdk.protocol.definitions import StepDefinition, WorkflowDefinition
from mesh_sdk.protocol.keys import workflow_key
from mesh_sdk.protocol.records import NULL, VERSION, Cancel, Done, Notice, NoticeFrame, RunError, Start, Started
from mesh_sdk.protocol.subjects import Subjects
from mesh_sdk.transport.bus import Bus, Delivery, StreamSettings
from mesh_sdk.transport.connection import connect
from mesh_sdk.transport.kv import bucket_stream
from mesh_sdk.transport.settings import ConnectionSettings

FAST = ConnectionSettings(ping_interval_s=0.3, reconnect_wait_s=0.02)
STREAM_BYTES = 16 * 1024 * 1024
WORKFLOWS = ("echo", "typed", "fails", "cancelled", "slow", "refused", "held", "silent", "sticky one")

Answer = Callable[[dict[str, Any]], Any]
LOST = object()
"""Instead of an answer: the leader died with the request."""


class Scheduler:
    """Plays the leader for one namespace."""

    def __init__(self, url: str, namespace: str) -> None:
        self.url = url
        self.subjects = Subjects(namespace)
        self.starts: list[tuple[str, Start]] = []
        self.cancels: list[Cancel] = []
        self.priorities: list[int] = []
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.answers: dict[str, Answer] = {}
        self.keys: dict[str, str] = {}
        self.requested: dict[str, str] = {}
        self.results: dict[str, Done] = {}
        self.mute = False
        self.bus: Bus

    async def start(self) -> Scheduler:
        self.bus = await connect([self.url], name="scripted scheduler", settings=FAST)
        names = self.subjects
        await self.bus.ensure_stream(StreamSettings(names.events_stream, (names.all_events,), STREAM_BYTES))
        await self.bus.ensure_stream(StreamSettings(names.triggers_stream, (names.all_triggers,), STREAM_BYTES))
        await self.bus.ensure_stream(bucket_stream(names.workflows_bucket, max_bytes=STREAM_BYTES))
        for name in WORKFLOWS:
            await self.register(name, sticky="HARD" if name == "sticky one" else "")
        self._reader = self.bus.reader(self.subjects.triggers_stream, self.subjects.all_triggers, 1, self._on_frame)
        await self._reader.start()
        await self.bus.subscribe(self.subjects.api("*.*"), self._on_call)
        await self.bus.subscribe(self.subjects.api("*"), self._on_call)
        return self

    async def close(self) -> None:
        await self._reader.close()
        await self.bus.close()

    async def register(self, name: str, **more: Any) -> None:
        definition = WorkflowDefinition(name, [StepDefinition(name)], **more)
        await self.bus.bucket(self.subjects.workflows_bucket).put(workflow_key(name), codec.encode(definition))

    # ---- starts

    def _on_frame(self, delivery: Delivery) -> None:
        frame, bad = codec.trigger_frames.decode(delivery.data)
        assert not bad
        for record in frame.records:
            if isinstance(record, Cancel):
                self.cancels.append(record)
            elif record.run not in self.requested:
                self.starts.append((frame.client, record))
                self.priorities.append(int(delivery.subject.rpartition(".")[2]))
                self._begin(frame.client, record)

    def _begin(self, client: str, start: Start) -> None:
        run = self.keys.setdefault(start.key, start.run) if start.key else start.run
        self.requested[start.run] = run
        if start.key:
            self.notify(client, Started(start.run, run))
        if start.workflow == "held" or run != start.run:
            return
        done = end_of(start)
        self.results[run] = done
        if start.workflow != "silent":
            self.notify(client, done)

    def release(self) -> None:
        """End every held run."""
        for client, start in self.starts:
            if start.workflow == "held" and start.run not in self.results:
                self.results[start.run] = Done(start.run, records.SUCCEEDED, start.input)
                self.notify(client, self.results[start.run])

    def notify(self, client: str, *notices: Notice) -> None:
        if not self.mute:
            self.bus.publish(self.subjects.done(client), codec.encode(NoticeFrame(VERSION, 1, list(notices))))

    def beat(self, term: int) -> None:
        """Say that a leader lives."""
        self.bus.publish(self.subjects.leader_beat, codec.encode(LeaderBeat(VERSION, "scripted", term, term)))

    # ---- calls

    def _on_call(self, subject: str, reply: str, data: bytes) -> None:
        call = subject.split(".api.0.")[1]
        body = json.loads(data)
        self.calls.append((call, body))
        if call in self.answers:
            answer = self.answers[call](body)
        elif call == "results":
            answer = [self.results[run] for run in body["runs"] if run in self.results]
        elif call == "started":
            run = self.requested.get(body["requested"])
            answer = None if run is None else Started(body["requested"], run)
        else:
            answer = {"error": {"type": "RunNotFound", "message": f"no run {body}"}}
        if answer is not LOST:
            self.bus.publish(reply, codec.encode(answer))


def end_of(start: Start) -> Done:
    """How a run of this workflow ends."""
    run = start.run
    match start.workflow:
        case "typed":
            return Done(run, records.SUCCEEDED, Raw(b'{"order_id":7,"charged":9.5}'))
        case "fails":
            errors = [RunError("first", "ValueError", "no such thing", "Traceback…", 2), RunError("second", "KeyError", "'x'")]
            return Done(run, records.FAILED, NULL, errors)
        case "cancelled":
            return Done(run, records.CANCELLED, NULL, [RunError("", "RunCancelled", "not wanted any more")])
        case "slow":
            return Done(run, records.TIMED_OUT, NULL, [RunError("wait", "TimeoutError", "took more than 60 s")])
        case "refused":
            return Done(run, records.REFUSED, NULL, [RunError("", "UnknownWorkflow", "no worker has 'refused'")])
        case _:
            return Done(run, records.SUCCEEDED, start.input)
