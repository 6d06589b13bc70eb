"""What older versions wrote is read as it was meant, and what a later minor writes is read as far as it is known."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from msgspec import Struct

from mesh.core.check import check
from mesh.core.image import StateImage, digest
from mesh.scheduler.journal import decode_frame
from mesh.store.snapshots import SnapshotFile
from mesh_sdk.protocol import codec
from mesh_sdk.protocol.beats import LeaderBeat, WorkerBeat
from mesh_sdk.protocol.records import NULL
from mesh_sdk.worker import holder
from tests.compatibility.arities import default, longer, shorter, shortest, structs_in
from tests.compatibility.fields import ARRAYS, structs
from tests.compatibility.record import replayed
from tests.compatibility.recordings import Recording, follow, kept, plain, recordings, runs_of

RECORDINGS = recordings()
NEWEST = RECORDINGS[-1]
EVERY = pytest.mark.parametrize("recording", RECORDINGS, ids=lambda recording: str(recording.revision))
FRAMES: dict[str, codec.FrameCodec[Any]] = {
    "TriggerFrame": codec.trigger_frames,
    "ReportFrame": codec.report_frames,
    "LaneFrame": codec.lane_frames,
    "NoticeFrame": codec.notice_frames,
}
LONE: dict[str, type[Struct]] = {"LeaderBeat": LeaderBeat, "WorkerBeat": WorkerBeat, "Record": holder.Record}


def read(kind: str, data: bytes) -> Struct:
    """A frame or beat, every record of which can be read."""
    if kind in LONE:
        return msgspec.json.decode(data, type=LONE[kind])
    frame, bad = FRAMES[kind].decode(data)
    assert not bad, (data, bad)
    return frame  # type: ignore[no-any-return]


def everything(recording: Recording) -> Iterator[tuple[bytes, Struct]]:
    """All that was recorded, as it was written and as it is read."""
    for kind, lines in recording.wire.items():
        yield from ((line, read(kind, line)) for line in lines)
    yield from ((line, decode_frame(line)) for line in recording.journal)
    for data in recording.snapshots.values():
        file = msgspec.json.decode(plain(data), type=SnapshotFile)
        yield plain(data), file
        yield bytes(file.image), msgspec.json.decode(file.image, type=StateImage)


def one_of_each(recording: Recording) -> dict[type[Struct], Struct]:
    """One struct of every kind that the recording holds; of the wire's records the one with something in every field."""
    found: dict[type[Struct], Struct] = {}
    for _, value in everything(recording):
        for struct in structs_in(value):
            found.setdefault(type(struct), struct)
    return found


SAMPLES = one_of_each(NEWEST)


# ---- what older versions wrote --------------------------------------------------------------------------------------------


def test_the_newest_recording_holds_one_of_everything() -> None:
    missing = sorted(kind.__name__ for kind in structs(ARRAYS) if kind not in SAMPLES)
    assert not missing, f"recording {NEWEST.revision} holds no {missing}: let them happen in tests/compatibility/life.py"


UNSAID = {
    "StateImage": {"lanes_until", "unclaimed", "kept", "forgotten_before", "horizon", "repeats", "awaited", "full", "orphans"},
    "WorkflowDefinition": {"version", "metadata"},
    "StepDefinition": {"backoff_max_ms"},
    "WorkerImage": {"host", "pid", "draining"},
    "RunImage": {"also"},
    "StepImage": {"avoid_full"},
    "StepError": {"traceback"},
    "AttemptImage": {"lent", "recalled"},
    "StepKeys": {"step"},
}
"""What the life has nothing of at the moments of its snapshots; the other tests of images see to these."""


def test_of_whatever_else_is_remembered_the_newest_snapshots_hold_something() -> None:
    silent: dict[str, set[str]] = {}
    images = [msgspec.json.decode(plain(data), type=SnapshotFile).image for data in NEWEST.snapshots.values()]
    for struct in itertools.chain.from_iterable(structs_in(msgspec.json.decode(image, type=StateImage)) for image in images):
        unsaid = silent.setdefault(type(struct).__name__, set(struct.__struct_fields__))
        unsaid -= {name for name in unsaid if getattr(struct, name) not in ("", 0, None, False, [], {}, NULL)}
    missing = {name: fields - UNSAID.get(name, set()) for name, fields in silent.items()}
    assert not any(missing.values()), f"{missing}: let them happen in tests/compatibility/life.py"


@EVERY
def test_all_of_it_is_read_and_nothing_is_lost(recording: Recording) -> None:
    for written, value in everything(recording):
        again = msgspec.json.encode(value)
        assert kept(msgspec.json.decode(written), msgspec.json.decode(again)), written
        assert recording is not NEWEST or again == written


@EVERY
async def test_the_journal_leads_to_the_same_runs(recording: Recording) -> None:
    follower = await follow(recording.journal)
    check(follower.state)
    assert runs_of(follower.state) == recording.runs


@EVERY
async def test_a_snapshot_and_the_journal_after_it_are_the_whole_journal(recording: Recording) -> None:
    for name, data in recording.snapshots.items():
        follower = await follow(recording.journal, {name: data}, first=int(name) + 1)
        assert follower.snapshot_sequence == int(name)
        check(follower.state)
        assert runs_of(follower.state) == recording.runs


async def test_of_the_newest_recording_every_part_of_the_state_is_the_same() -> None:
    assert await replayed(NEWEST) == NEWEST.digests, (
        "the core makes something else of a journal than it did: a leader and a standby of two versions will differ. "
        "If that is meant, record it: python -m tests.compatibility.record"
    )
    for name, data in NEWEST.snapshots.items():
        at = await follow(NEWEST.journal[: int(name)], {name: data}, first=int(name) + 1)
        assert digest(at.state) == NEWEST.digests[str(int(name))]


# ---- every struct, longer and shorter ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", SAMPLES, ids=lambda kind: kind.__name__)
def test_a_shorter_one_is_read_with_defaults(kind: type[Struct]) -> None:
    sample = SAMPLES[kind]
    fields = msgspec.structs.fields(kind)
    for count, data in shorter(sample):
        found = msgspec.json.decode(data, type=kind)
        for place, field in enumerate(fields):
            expected = getattr(sample, field.name) if place < count else default(field)
            assert getattr(found, field.name) == expected, (count, field.name)


@pytest.mark.parametrize("kind", SAMPLES, ids=lambda kind: kind.__name__)
def test_of_a_longer_one_what_is_known_is_read(kind: type[Struct]) -> None:
    assert msgspec.json.decode(msgspec.json.encode(longer(SAMPLES[kind])), type=kind) == SAMPLES[kind]


@EVERY
@pytest.mark.parametrize("change", [longer, shortest])
def test_whole_frames_of_another_minor_are_read(recording: Recording, change: Any) -> None:
    for kind, lines in recording.wire.items():
        for line in lines:
            frame = read(kind, line)
            assert read(kind, msgspec.json.encode(change(frame))) == frame


@EVERY
@pytest.mark.parametrize("change", [longer, shortest])
async def test_a_journal_and_snapshots_of_another_minor_are_followed(recording: Recording, change: Any) -> None:
    journal = [msgspec.json.encode(change(decode_frame(line))) for line in recording.journal]
    assert digest((await follow(journal)).state) == digest((await follow(recording.journal)).state)
    for name, data in recording.snapshots.items():
        file = msgspec.json.decode(plain(data), type=SnapshotFile)
        file.image = msgspec.Raw(msgspec.json.encode(change(msgspec.json.decode(file.image, type=StateImage))))
        changed = await follow(journal, {name: msgspec.json.encode(change(file))}, first=int(name) + 1)
        assert digest(changed.state) == digest((await follow(recording.journal, {name: data}, first=int(name) + 1)).state)
