"""A scripted leader: makes the streams, answers registrations, sends what a test tells it to, keeps every report."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec
from msgspec import Raw

from mesh.store.topology import MIB, Limits, Topology
from mesh_sdk.protocol import codec, ids, records
from mesh_sdk.protocol.records import VERSION, Assign, Done, LaneFrame, Notice, NoticeFrame, Register, Registered, Report
from mesh_sdk.protocol.subjects import Subjects
from mesh_sdk.transport.bus import Bus, Delivery
from mesh_sdk.transport.connection import connect
from mesh_sdk.transport.errors import TransportError
from mesh_sdk.transport.settings import ConnectionSettings

FAST = ConnectionSettings(ping_interval_s=0.3, reconnect_wait_s=0.02)
ACK_WAIT_S = 1.0
SMALL = Limits(events=MIB, triggers=MIB, reports=16 * MIB, journal=MIB, dead=MIB, lanes=16 * MIB, snapshots=MIB, buckets=MIB)
"""Many namespaces share a server's storage."""

R = TypeVar("R")


class Reported(msgspec.Struct):
    worker: str
    incarnation: str
    record: Any


class Leader:
    """Plays the scheduler for one namespace."""

    def __init__(self, url: str, namespace: str) -> None:
        self.url = url
        self.subjects = Subjects(namespace)
        self.reports: list[Reported] = []
        self.workers: dict[str, Reported] = {}
        self.refuse = ""
        self.answer = True
        self.results: dict[str, Done] = {}
        self.pools: dict[str, list[str]] = {}
        self._topology = Topology(self.subjects, limits=SMALL)
        self._tasks: list[asyncio.Future[None]] = []
        self._count = itertools.count(1)
        self._news = asyncio.Event()
        self.bus: Bus

    async def start(self) -> Leader:
        self.bus = await connect([self.url], name="leader", settings=FAST)
        await self._topology.ensure(self.bus)
        await self.make_lanes()
        self._reader = self.bus.reader(self.subjects.reports_stream, self.subjects.all_reports, 1, self._on_frame)
        await self._reader.start()
        await self.bus.subscribe(self.subjects.api(">"), self._on_call)
        return self

    async def close(self) -> None:
        await self._reader.close()
        await self.bus.close()

    async def make_lanes(self) -> None:
        await self.bus.ensure_stream(self._topology.lanes())

    async def make_memory(self) -> None:
        """What a restarted server has lost."""
        async with asyncio.timeout(20):
            while True:
                try:
                    await self._topology.ensure_remembered(self.bus)
                    break
                except TransportError:
                    await asyncio.sleep(0.01)
        await self.make_lanes()
        for reported in self.workers.values():
            await self._make_consumer(reported.record)

    async def _make_consumer(self, register: Register) -> None:
        pool = ids.pool_id(action for workflow in register.workflows for action in workflow.actions())
        names = self.subjects
        await self.bus.ensure_consumer(
            names.lanes_stream, names.pool_consumer(pool), names.shared_lane(pool), ack_wait_s=ACK_WAIT_S, memory=True
        )

    # ---- what comes in

    def _on_frame(self, delivery: Delivery) -> None:
        frame, bad = codec.report_frames.decode(delivery.data)
        assert not bad
        for record in frame.records:
            reported = Reported(frame.worker, frame.incarnation, record)
            self.reports.append(reported)
            if isinstance(record, Register) and self.answer:
                self.workers[frame.worker] = reported
                self._tasks.append(asyncio.ensure_future(self._welcome(reported)))
        self._news.set()

    async def _welcome(self, reported: Reported) -> None:
        if not self.refuse:
            await self._make_consumer(reported.record)
        self.notify(reported.record.client, Registered(reported.worker, reported.incarnation, self.refuse))

    def notify(self, client: str, *notices: Notice) -> None:
        self.bus.publish(self.subjects.done(client), codec.encode(NoticeFrame(VERSION, 1, list(notices))))

    def end(self, worker: str, done: Done) -> None:
        """Tell a worker that a child has ended."""
        self.notify(self.workers[worker].record.client, done)

    def _on_call(self, subject: str, reply: str, data: bytes) -> None:
        call = subject.split(".api.0.")[1]
        body = json.loads(data)
        if call == "results":
            answer = codec.encode({"ok": [self.results[run] for run in body["runs"] if run in self.results]})
        elif call == "workflows.get":
            answer = codec.encode({"ok": {"name": body["name"], "workers": self.pools.get(body["name"], [])}})
        else:
            answer = codec.encode({"error": {"type": "RunNotFound", "message": call}})
        self.bus.publish(reply, answer)

    async def report(self, kind: type[R], where: Callable[[R], bool] = lambda record: True, *, count: int = 1, timeout: float = 10) -> R:
        """The `count`-th report of a kind, waited for."""
        async with asyncio.timeout(timeout):
            while True:
                self._news.clear()
                found = [each.record for each in self.reports if isinstance(each.record, kind) and where(each.record)]
                if len(found) >= count:
                    return found[count - 1]  # type: ignore[no-any-return]
                await self._news.wait()

    def of(self, token: str) -> list[Report]:
        """Every report about an attempt so far."""
        return [each.record for each in self.reports if getattr(each.record, "token", None) == token]

    async def last_of(self, token: str, timeout: float = 10) -> Any:
        """The first last report about an attempt."""
        last = records.Finished | records.Failed | records.Returned
        return await self.report(last, lambda record: record.token == token, timeout=timeout)  # type: ignore[arg-type]

    # ---- what goes out

    def assign(self, action: str, input: object = None, **more: Any) -> Assign:
        """An assignment with a token of its own."""
        workflow, _, step = action.partition(":")
        number = next(self._count)
        run = more.pop("run", None) or ids.run_id(1_700_000_000_000 + number, b"tester", number)
        step_index, attempt, token = more.pop("step", 0), more.pop("attempt", 1), more.pop("token", f"token-{number}")
        parents = {name: Raw(codec.encode(value)) for name, value in more.pop("parents", {}).items()}
        return Assign(run, step_index, attempt, token, workflow, step or workflow, Raw(codec.encode(input)), parents, **more)

    async def share(self, worker: str, *orders: Any) -> None:
        """Send to the shared lane of the worker's pool."""
        pool = ids.pool_id(action for workflow in self.workers[worker].record.workflows for action in workflow.actions())
        await self.bus.append(self.subjects.shared_lane(pool), codec.encode(LaneFrame(VERSION, 1, list(orders))))

    async def send(self, worker: str, *orders: Any) -> None:
        """Send to the private lane of a worker's incarnation."""
        lane = self.subjects.worker_lane(worker, self.workers[worker].incarnation)
        await self.bus.append(lane, codec.encode(LaneFrame(VERSION, 1, list(orders))))

    async def acknowledged(self, worker: str, timeout: float = 10) -> None:
        """Return when nothing of the worker's pool awaits an acknowledgement."""
        pool = ids.pool_id(action for workflow in self.workers[worker].record.workflows for action in workflow.actions())
        subject = f"$JS.API.CONSUMER.INFO.{self.subjects.lanes_stream}.{self.subjects.pool_consumer(pool)}"
        async with asyncio.timeout(timeout):
            while True:
                info = json.loads(await self.bus.request(subject, b"", 5))
                if not info["num_ack_pending"] and not info["num_pending"]:
                    return
                await asyncio.sleep(0.01)
