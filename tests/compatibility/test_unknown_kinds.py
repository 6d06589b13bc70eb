"""Records of kinds that this version does not know: in the journal nothing is guessed, on the wire they are set aside alone."""

from __future__ import annotations

import asyncio
import json
import re
import time
from pathlib import Path

import msgspec
import pytest
from msgspec import Raw

from mesh.core import records as facts
from mesh.scheduler.follower import Unfollowable
from mesh.store.snapshots import Snapshots
from mesh_sdk import Mesh
from mesh_sdk.protocol.codec import encode
from mesh_sdk.protocol.ids import run_id
from mesh_sdk.protocol.records import VERSION, Forget, Start
from mesh_sdk.transport.connection import Link
from tests.compatibility.load import settled
from tests.compatibility.recordings import follow, plain, recordings, runs_of
from tests.compatibility.versions import Version, next_version
from tests.faults import journal
from tests.faults.conftest import bus, fleet
from tests.faults.fleet import Fleet, Process, await_that
from tests.faults.journal import NAMES

__all__ = ["bus", "fleet"]
NEWEST = recordings()[-1]
WITHIN_S = 20.0


# ---- followers, on the recordings --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("frame", "told"),
    [
        (b'[1,9,0,{},[["draining","w1"],["novel","?"]]]', "novel"),
        (b'[2,9,0,{},[["draining","w1"]]]', "version 2 of the journal"),
    ],
    ids=["kind", "version"],
)
async def test_a_journal_of_a_newer_version_is_not_followed_further(frame: bytes, told: str) -> None:
    with pytest.raises(Unfollowable, match=f"newer version.*{told}.*no snapshot, no leading"):
        await follow([*NEWEST.journal, frame])


def newer(snapshot: bytes) -> bytes:
    """The snapshot, of an image version that is yet to come."""
    parts = msgspec.json.decode(plain(snapshot), type=list[Raw])
    image = msgspec.json.decode(parts[2], type=list[Raw])
    return msgspec.json.encode([*parts[:2], [99, *image[1:]]])


async def test_where_only_newer_snapshots_are_left_it_says_what_to_do() -> None:
    name, data = list(NEWEST.snapshots.items())[-1]
    with pytest.raises(Unfollowable, match="start schedulers of that version"):
        await follow(NEWEST.journal, {name: newer(data)}, first=int(name) + 1)


async def test_beside_a_newer_snapshot_the_older_one_and_the_journal_do() -> None:
    (older, data), (name, latest) = NEWEST.snapshots.items()
    follower = await follow(NEWEST.journal, {older: data, name: newer(latest)}, first=int(older) + 1)
    assert follower.snapshot_sequence == int(older)
    assert runs_of(follower.state) == NEWEST.runs


# ---- real processes ----------------------------------------------------------------------------------------------------------


def said_ready(process: Process) -> list[str]:
    """Its lines of being ready."""
    return [line for line in process.output.splitlines() if line.startswith("ready")]


@pytest.mark.timeout(90)
async def test_a_scheduler_that_does_not_know_a_record_neither_leads_nor_makes_snapshots(fleet: Fleet, bus: Link, tmp_path: Path) -> None:
    present, novel = Version(fleet), next_version(fleet, tmp_path / "novel", novel=True)
    leader = await asyncio.to_thread(fleet.ready, novel.scheduler())
    standby, worker = present.scheduler(), present.worker("w0")
    await asyncio.to_thread(fleet.ready, worker)
    async with Mesh(url=fleet.server.url) as mesh:
        assert await mesh.run("chain", {"n": 1}) == 2
        refused = await asyncio.to_thread(present.snapshot)
        assert refused.returncode == 1
        assert re.match(r"no snapshot: .*newer version.*start schedulers of that version", refused.stderr.splitlines()[-1])
        assert await Snapshots(bus, NAMES).sequences() == []
        await asyncio.to_thread(leader.kill)
        waiting = await mesh.start("chain", {"n": 2})
        await asyncio.to_thread(await_that, "the standby says so", lambda: "no leading" in standby.output, WITHIN_S)
        second = await asyncio.to_thread(fleet.ready, novel.scheduler())
        assert await waiting.result() == 3
        assert not said_ready(standby)
        made = await asyncio.to_thread(novel.snapshot)
        assert made.returncode == 0, made.stderr
        # An image that this version reads holds all that the record did: behind it there is nothing left that is unknown.
        await asyncio.to_thread(await_that, "the standby follows behind the snapshot", lambda: said_ready(standby), WITHIN_S)
    assert said_ready(standby)[0].split()[2:] == ["follows", second.line("ready").split()[1]]
    stored = await bus.read(NAMES.journal_stream, NAMES.journal)
    terms = [record[1] for message in stored for record in json.loads(message.data)[4] if record[0] == "term"]
    assert terms == [process.line("ready").split()[1] for process in (leader, second)], "the standby has led all the same"


@pytest.mark.timeout(60)
async def test_on_the_wire_an_unknown_record_is_set_aside_alone(fleet: Fleet, bus: Link) -> None:
    present = Version(fleet)
    for process in (present.scheduler(), present.worker("w0")):
        await asyncio.to_thread(fleet.ready, process)
    incarnation = next(r.incarnation for r in await journal.records(bus) if isinstance(r, facts.WorkerRegistered))
    unknown = ["novel", "?"]
    run = run_id(int(time.time() * 1000), b"novel!", 1)
    async with Mesh(url=fleet.server.url) as mesh:
        lane = NAMES.worker_lane("w0", incarnation)
        await bus.append(lane, encode([VERSION, 1, [unknown, Forget(run, "ended")]]))
        await bus.append(NAMES.trigger(5), encode([VERSION, "test", [unknown, Start(run, "hard", Raw(b'{"n":1}')), unknown]]))
        await bus.append(NAMES.report, encode([VERSION, "w0", incarnation, [unknown]]))
        letters = {"triggers": 2, "reports": 1, "lanes": 1}
        async with asyncio.timeout(WITHIN_S):
            for source, count in letters.items():
                while len(found := await bus.read(NAMES.dead_stream, NAMES.dead(source))) < count:
                    await asyncio.sleep(0.02)
                assert len(found) == count
                assert all("novel" in json.loads(letter.data)["reason"] for letter in found)
        assert await mesh.run("hard", {"n": 2}) == 3
        await settled(mesh)
        assert (await mesh.runs.get(run)).status == "succeeded"
