"""The long-life measurements, small: what they check must hold at any size; how fast it is they tell, and no test asks."""

from __future__ import annotations

import gc
import random
from pathlib import Path

import pytest
from msgspec import Raw

from mesh.core import records as facts
from mesh.core.core import Core
from mesh.core.image import digest, encode_image, image
from mesh.core.inputs import SELF, Sender, TermBegan
from mesh.core.loading import load
from mesh.core.state import State
from mesh.scheduler.journal import decode_frame, encode_frame
from mesh.store.snapshots import Snapshots
from mesh.store.topology import Limits, Topology
from mesh_sdk.protocol import records as wire
from mesh_sdk.protocol.codec import encode, trigger_frames
from mesh_sdk.protocol.definitions import StepDefinition, WorkflowDefinition
from mesh_sdk.transport.connection import connect
from tests.faults.journal import NAMES
from tests.longlife import backlog, recovery
from tests.longlife.curves import draw
from tests.longlife.house import House
from tests.longlife.sampling import Curve, Sampler
from tests.longlife.soak import Verdict, soak_for, verdicts

ONE = WorkflowDefinition("one", [StepDefinition("a")])
WORKER = Sender("w1", "0001")
CLIENT = Sender("client", "", 0, 1)


def core_of(finished_max: int) -> Core:
    numbers = iter(range(1_000_000))
    core = Core(State(finished_max), lambda: f"{next(numbers):016x}")
    core.begin(1_700_000_000_000)
    core.decide(TermBegan("me"), SELF)
    core.decide(wire.Register("w1", 10, [ONE], {}, "c"), WORKER)
    core.take()
    return core


def start(core: Core, n: int, input: bytes = b"1") -> wire.Start:
    return wire.Start(f"{core.state.now:012x}{n:020x}", "one", Raw(input))


def finish_all(core: Core) -> None:
    for record in core.take():
        if type(record) is facts.StepReleased:
            core.decide(wire.Finished(record.run, record.step, record.attempt, record.token, Raw(b"2")), WORKER)
    core.take()


def test_a_forgotten_run_needs_no_garbage_collector():
    core = core_of(10)
    gc.collect()
    gc.disable()
    try:
        for n in range(200):
            core.decide(start(core, n), CLIENT)
            finish_all(core)
        assert gc.collect() == 0, "rings of objects wait for the collector: it stops the leader for as long as it frees them"
    finally:
        gc.enable()


@pytest.mark.parametrize("from_image", [False, True])
def test_a_run_does_not_keep_the_frame_that_it_came_in(from_image: bool):
    core = core_of(10)
    frame = wire.TriggerFrame(wire.VERSION, "client", [start(core, 1), start(core, 2, b'"' + b"x" * 200_000 + b'"')])
    decoded, _ = trigger_frames.decode(encode(frame))
    for record in decoded.records:
        core.decide(record, CLIENT)
    state = load(encode_image(image(core.state)), 10) if from_image else core.state
    small = next(iter(state.runs.values())).input
    assert small == Raw(b"1")
    assert small.copy() is small, "a view of something larger"


def test_journaled_runs_do_not_keep_their_frames_either():
    core = core_of(10)
    core.decide(start(core, 1), CLIENT)
    finish_all(core)
    journal = encode_frame(facts.JournalFrame(facts.JOURNAL_VERSION, 1, core.state.now, {}, [facts.WorkflowDefined(ONE)]))
    record = facts.RunStarted("r" * 32, "one", ONE.digest, Raw(b"5"), 1, "", None, "", "", 0, None)
    follower = State(10)
    for data in (journal, encode_frame(facts.JournalFrame(facts.JOURNAL_VERSION, 1, core.state.now, {}, [record]))):
        for fact in decode_frame(data).records:
            follower.apply(fact)
    input = follower.runs["r" * 32].input
    assert input.copy() is input


def test_an_image_of_everything_is_loaded_as_it_was():
    core = core_of(10)
    for n in range(40):
        core.decide(start(core, n), CLIENT)
    assert digest(load(encode_image(image(core.state)), 10)) == digest(core.state)


@pytest.mark.timeout(180)
async def test_it_recovers_from_the_journal_and_from_a_snapshot(tmp_path: Path):
    found = await recovery.measure(tmp_path, 600, quiet_s=0.1)
    assert found["same digest as a cold replay"]
    assert found["live at the end"] >= 200
    assert found["journal after two snapshots"]["first"] > 1, "the journal is trimmed behind two snapshots"
    assert len(found["journal after two snapshots"]["snapshots"]) == 2


@pytest.mark.timeout(180)
async def test_a_backlog_waits_on_disk_and_every_start_runs_once(tmp_path: Path):
    sampler = Sampler()
    found = await backlog.measure(tmp_path, count=6_000, window=1_000, drain=6_000, sampler=sampler)
    assert found["at the top"]["runs"] < 1_000 + 512, "what one message of starts holds is decided as a whole"
    assert found["counts"] == {"started": 6_000, "ended": 6_000, "live": 0, "wrong": []}
    draw(tmp_path / "picture.svg", "A & B", "MiB", [sampler.curves["scheduler"]], sampler.marks, 1 / (1 << 20))
    assert "A &amp; B" in (tmp_path / "picture.svg").read_text()


@pytest.mark.timeout(180)
async def test_a_soak_of_seconds_does_everything_right(tmp_path: Path):
    soak = await soak_for(tmp_path, seconds=12, rate=25, seed=3)
    assert not soak.load.wrong
    assert sum(soak.load.counts.values()) > 50
    assert {"scheduler 1", "leader runs", "nats-server", "store files"} <= {verdict.name for verdict in verdicts(soak)}


def test_what_grows_is_told():
    flat = Curve("flat", [(at, 50 + at % 3) for at in range(90)])
    grows = Curve("grows", [(at, 50 + at) for at in range(90)])
    assert not Verdict(flat, "MiB", 90).grows
    assert Verdict(grows, "MiB", 90).grows


async def test_a_full_bucket_of_snapshots_lets_the_older_one_go(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    with House(tmp_path) as house:
        bus = await connect([house.server.url], name="test")
        try:
            await Topology(NAMES, limits=Limits(snapshots=50_000)).ensure(bus)
            snapshots = Snapshots(bus, NAMES)
            core = core_of(10)
            for n in range(60):
                core.decide(start(core, n, f'"{random.Random(n).randbytes(300).hex()}"'.encode()), CLIENT)  # 20 KB, however compressed
            for sequence in range(1, 12):
                await snapshots.write(sequence, {}, core.state)
                await snapshots.drop_old()
            assert (await snapshots.sequences())[-1] == 11
            newest = await snapshots.newest(10)
            assert newest is not None
            assert digest(newest.state) == digest(core.state)
            assert "no room for a third" in caplog.text
        finally:
            await bus.close()
