"""A server that answers "not now", or refuses: what is asked before a start is asked again, or told; no start is left hanging."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from mesh_sdk import InvalidInput, Mesh, Unavailable, leader, triggers
from mesh_sdk.client import Client
from mesh_sdk.transport.errors import Busy, Damaged, Refused, TimedOut, TransportError
from mesh_sdk.transport.kv import Bucket
from tests.sdk.scheduler import Scheduler

AWAY = {"sticky": "HARD", "here": False, "known": False}
"""What the leader says of a worker that is not there: whether it ever was, the slots bucket knows."""
SOON_S = 10.0
REFUSALS = [Refused("refused (10000)", 10000), Damaged("a chunk is missing")]

Upset = Callable[[str, TransportError, int], None]


@pytest.fixture
def upset(scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch) -> Upset:
    """Have the reads of one bucket answered by an error, so many times."""
    scheduler.answers["workers.binding"] = lambda body: {"ok": {**AWAY, "known": body["worker"] == "w-1"}}
    scheduler.answers["runs.list"] = lambda body: {"ok": {"runs": [], "next": None}}
    get = Bucket.get

    def upset(bucket: str, error: TransportError, times: int) -> None:
        left = [error] * times

        async def told(self: Bucket, key: str) -> Any:
            if self._stream == f"KV_{bucket}" and left:
                raise left.pop()
            return await get(self, key)

        monkeypatch.setattr(Bucket, "get", told)

    return upset


@pytest.mark.parametrize("bucket", ["workflows_bucket", "slots_bucket"])
async def test_a_busy_server_is_asked_again(mesh: Mesh, scheduler: Scheduler, upset: Upset, bucket: str):
    upset(getattr(scheduler.subjects, bucket), Busy("an election is under way", 10008), 2)
    bound = mesh.start_nowait("sticky one", 1, sticky_worker="w-1")
    never = mesh.start_nowait("sticky one", 2, sticky_worker="nobody")
    free = mesh.start_nowait("sticky one", 3)
    async with asyncio.timeout(SOON_S):
        assert await bound.accepted()
        with pytest.raises(InvalidInput, match="no worker of this id was ever seen"):
            await never.accepted()
        assert await free.accepted()
        with pytest.raises(InvalidInput, match="no worker of this id was ever seen"):
            await mesh.run("sticky one", 4, sticky_worker="nobody")
    assert not len(mesh.clients.here().unstored)


async def test_a_server_that_stays_busy_is_told(mesh: Mesh, scheduler: Scheduler, upset: Upset, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(leader, "FAILOVER_S", 0.3)
    upset(scheduler.subjects.workflows_bucket, Busy("an election is under way", 10008), 1_000)
    with pytest.raises(Unavailable, match=r"whether 'echo' is registered: .*the NATS server is busy .*an election is under way"):
        await mesh.run("echo", 1)


@pytest.mark.parametrize("refusal", REFUSALS)
async def test_a_server_that_refuses_to_tell_of_a_workflow(mesh: Mesh, scheduler: Scheduler, upset: Upset, refusal: TransportError):
    upset(scheduler.subjects.workflows_bucket, refusal, 3)
    for ask in (mesh.start, mesh.run):
        with pytest.raises(Unavailable, match=f"whether 'echo' is registered: .*{refusal.args[0][:7]}"):
            await ask("echo", 1)
    lost = [mesh.start_nowait("echo", number) for number in range(3)]
    async with asyncio.timeout(SOON_S):
        for ref in lost:
            with pytest.raises(Unavailable, match="whether 'echo' is registered"):
                await ref.accepted()
        assert await mesh.run("echo", 4) == 4
    assert not len(mesh.clients.here().unstored)


@pytest.mark.parametrize("refusal", REFUSALS)
async def test_a_server_that_refuses_to_tell_of_a_worker(mesh: Mesh, scheduler: Scheduler, upset: Upset, refusal: TransportError):
    upset(scheduler.subjects.slots_bucket, refusal, 3)
    for ask in (mesh.start, mesh.run):
        with pytest.raises(Unavailable, match="whether worker 'nobody' was ever there"):
            await ask("sticky one", 1, sticky_worker="nobody")
    lost = mesh.start_nowait("sticky one", 2, sticky_worker="nobody")
    free = mesh.start_nowait("sticky one", 3)
    async with asyncio.timeout(SOON_S):
        with pytest.raises(Unavailable, match="whether worker 'nobody' was ever there"):
            await lost.accepted()
        assert await free.accepted(), "it does not name that worker"
    assert not len(mesh.clients.here().unstored)


async def test_whatever_goes_wrong_before_a_start_is_its_outcome(
    mesh: Mesh, scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    async def late(client: Client, workflow: str) -> None:
        raise TimedOut("no room within 5 s")

    monkeypatch.setattr(Client, "prepare", late)
    lost = [mesh.start_nowait("echo", number) for number in range(3)]
    async with asyncio.timeout(SOON_S):
        for ref in lost:
            with pytest.raises(Unavailable, match=r"^'echo' can't be started now: no room within 5 s$"):
                await ref.accepted()
    assert not len(mesh.clients.here().unstored)
    assert sum("was not started" in record.message for record in caplog.records) == 3


async def test_what_the_server_refuses_is_told_as_unavailable(mesh: Mesh, scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch):
    await mesh.start("echo", 1)

    def refused(*_: object) -> asyncio.Future[int]:
        frame: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        frame.set_exception(Refused("no message may be stored now (10077)", 10077))
        return frame

    for verb in ("start", "control"):
        monkeypatch.setattr(triggers.Triggers, verb, refused)
    with pytest.raises(Unavailable, match="the start of 'echo' could not be stored"):
        await mesh.start("echo", 2)
    with pytest.raises(Unavailable, match=r"the cancel of run 0+ could not be stored"):
        await mesh.runs.cancel("0" * 32, "why not")
