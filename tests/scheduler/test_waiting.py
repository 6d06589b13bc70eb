"""A scheduler that can't work yet waits, says for what, and ends at once when it is told to; one that can't follow is not ready."""

from __future__ import annotations

import asyncio
import logging
import time
import weakref
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

from mesh import engine as engines
from mesh.core.records import JOURNAL_VERSION, JournalFrame, TermStarted
from mesh.engine import Engine
from mesh.errors import ServerStartFailed
from mesh.scheduler.journal import encode_frame
from mesh.store.topology import Topology
from mesh_sdk.protocol.beats import LeaderBeat
from mesh_sdk.protocol.codec import encode
from mesh_sdk.protocol.records import VERSION
from mesh_sdk.protocol.subjects import Subjects
from mesh_sdk.transport.connection import Link, connect
from mesh_sdk.transport.streams import configuration
from tests.cluster import Cluster
from tests.contract.conftest import until
from tests.contract.servers import Server
from tests.faults.fleet import SCHEDULER, Process, await_that

NAMES = Subjects()
END_S = 3.0


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    running = Server(tmp_path).start()
    yield running
    running.kill()


class Running:
    """A scheduler in this process."""

    def __init__(self, url: str) -> None:
        self.engine = Engine(url)
        self.lines: list[str] = []
        self.stop = asyncio.Event()
        self.task = asyncio.create_task(self.engine.run(self.lines.append, self.stop))

    @property
    def ready(self) -> tuple[bool, str]:
        """What /readyz says."""
        return self.engine._readiness.check()

    async def end(self) -> None:
        """It ends in order, and soon."""
        self.stop.set()
        async with asyncio.timeout(END_S):
            await self.task


@asynccontextmanager
async def running(url: str) -> AsyncIterator[Running]:
    scheduler = Running(url)
    try:
        yield scheduler
        await scheduler.end()
    finally:
        scheduler.task.cancel()
        with suppress(asyncio.CancelledError):
            await scheduler.task


def says(process: Process, what: str) -> bool:
    assert process.code is None, process.output
    return what in process.output


@pytest.mark.timeout(90)
def test_a_cluster_without_a_majority_is_waited_for(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path / "nats")
    alone = cluster.servers[0]
    started: list[Process] = []
    try:
        alone.launch()
        with pytest.raises(ServerStartFailed):  # it listens, and its JetStream has nobody to elect a leader with
            alone.wait_ready(2)
        started += [Process(SCHEDULER, tmp_path / f"{name}.log", {"MESH_URL": alone.url}) for name in ("ends", "stays")]
        for process in started:
            await_that("it says what it waits for", partial(says, process, f"JetStream at {alone.url} does not answer"), 20)
            assert "ready" not in process.output
        began = time.monotonic()
        assert started[0].end() == 0
        assert time.monotonic() - began < END_S
        cluster.start()
        started[1].line("ready", 30)
        assert started[1].end() == 0
        assert not [process for process in started if "Traceback" in process.output]
    finally:
        for process in started:
            process.kill()
        cluster.stop()


async def test_a_server_that_dies_while_it_starts_is_waited_for(
    server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    opened: list[Link] = []

    async def connect_and_die(*servers: Any, **settings: Any) -> Link:
        opened.append(await connect(*servers, **settings))
        server.kill()
        return opened[-1]

    monkeypatch.setattr(engines, "connect", connect_and_die)
    async with running(server.url) as scheduler:
        await until(lambda: f"waiting for JetStream at {server.url}" in caplog.text)
        assert scheduler.ready[0] is False
        assert server.url in scheduler.ready[1]
    assert not scheduler.lines
    server.start()
    async with running(server.url) as scheduler:
        await until(lambda: len(opened) == 2 and not opened[1].connected)
        server.start()
        await until(lambda: bool(scheduler.lines))
        await until(lambda: scheduler.ready[0])


async def test_a_stop_while_the_lanes_can_not_be_fenced_leaves_no_lease(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    bus = await connect([server.url], name="test")
    lanes = Topology(NAMES).lanes()
    await bus.ensure_stream(lanes)
    config = configuration(lanes) | {"sealed": True}
    assert b"error" not in await bus.request(f"$JS.API.STREAM.UPDATE.{lanes.name}", msgspec.json.encode(config), 5)
    async with running(server.url) as scheduler:
        await until(lambda: "the lanes could not be fenced" in caplog.text)
        assert scheduler.lines[0].split(maxsplit=1)[1].startswith("leads")
        assert await bus.bucket(NAMES.leader_bucket).get("0") is not None
    assert await bus.bucket(NAMES.leader_bucket).get("0") is None
    await bus.close()


async def test_a_scheduler_that_can_not_follow_is_not_ready_and_tries_less_and_less(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    bus = await connect([server.url], name="test")
    await Topology(NAMES).ensure(bus)
    leading = await bus.append(NAMES.journal, encode_frame(JournalFrame(JOURNAL_VERSION, 1, 1, {}, [TermStarted("other")])), expect=0)
    beating = asyncio.create_task(_beat(bus, leading))
    try:
        async with running(server.url) as scheduler:
            await until(lambda: scheduler.ready[0])
            assert scheduler.lines == [f"{scheduler.engine.id} follows other"]
            await bus.append(NAMES.journal, b"of a newer version, perhaps", expect=leading)
            await until(lambda: not scheduler.ready[0])
            assert "can't be followed" in scheduler.ready[1]
            await until(lambda: len(_tries(caplog)) == 4)
            first, *_, last = _tries(caplog)
            assert last - first > 0.2 + 0.4 + 0.8 - 0.1
        async with running(server.url) as scheduler:
            await until(lambda: "can't be followed" in scheduler.ready[1])
            assert not scheduler.lines
    finally:
        beating.cancel()
        await bus.close()


def _tries(caplog: pytest.LogCaptureFixture) -> list[float]:
    return [record.created for record in caplog.records if record.getMessage().startswith("the journal can't be followed")]


async def _beat(bus: Link, term: int) -> None:
    """Another leader, that lives."""
    while True:
        bus.publish(NAMES.leader_beat, encode(LeaderBeat(VERSION, "other", term, term)))
        await asyncio.sleep(0.1)


async def test_what_a_term_knew_is_freed_when_it_is_over(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    """It is a ring that no counting of references frees: each term would leave all that it knew."""
    caplog.set_level(logging.CRITICAL, "mesh.engine")  # pytest would keep what is logged of its end, and with it the whole term
    bus = await connect([server.url], name="test")
    async with running(server.url) as scheduler:
        await until(lambda: bool(scheduler.lines))
        term = scheduler.engine._term
        assert term is not None
        first = weakref.ref(term.state)
        del term
        await bus.bucket(NAMES.leader_bucket).put("0", b"a stranger")
        await until(lambda: first() is None)
    await bus.close()
