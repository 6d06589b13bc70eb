"""The recordings, read: what each revision of the contract has left behind, and a follower that lives on them alone."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import msgspec

from mesh.core.state import State
from mesh.scheduler.follower import Follower
from mesh.scheduler.strays import EXPECTATION
from mesh_sdk.protocol.subjects import PARTITION, Subjects
from mesh_sdk.transport.bus import Bus, Delivery
from tests.compatibility.fields import Layout

FOLDER = Path(__file__).parent / "recorded"
FINISHED_MAX = 20
READ_S = 5.0


class Shelf:
    """As much of a bus as a follower needs: a journal that is all there, and an object store.

    Args:
        frames: the journal's messages, the first of them of sequence 1.
        objects: by name.
        first: lower sequences were trimmed.
    """

    def __init__(self, frames: list[bytes], objects: dict[str, bytes] | None = None, first: int = 1) -> None:
        self.frames = frames
        self.kept = objects if objects is not None else {}
        self.first = first

    def objects(self, bucket: str) -> Shelf:
        return self

    async def names(self) -> list[str]:
        return list(self.kept)

    async def get(self, name: str) -> bytes | None:
        return self.kept.get(name)

    async def put(self, name: str, data: bytes) -> None:
        self.kept[name] = data

    def reader(self, stream: str, subject: str, start: int, on_message: Callable[[Delivery], None], *, window: int) -> Shelf:
        at = subject.replace(">", PARTITION)
        self._deliveries = [Delivery(place, 0, at, data, 0, {EXPECTATION: f"{place - 1}"}) for place, data in enumerate(self.frames, 1)]
        self._start, self._on_message = max(start, self.first), on_message
        return self

    async def start(self) -> None:
        for delivery in self._deliveries[self._start - 1 :]:
            self._on_message(delivery)

    async def close(self) -> None:
        """Nothing is open."""


async def follow(frames: list[bytes], objects: dict[str, bytes] | None = None, *, first: int = 1) -> Follower:
    """A follower at the end of a journal; of one that it can't follow it raises `Unfollowable`."""
    follower = Follower(cast(Bus, Shelf(frames, objects, first)), Subjects(), FINISHED_MAX)
    await follower.start()
    assert await follower.wait_for(len(frames), READ_S)
    return follower


@dataclass(frozen=True)
class Recording:
    """One revision of the contract, as it was when it was recorded."""

    folder: Path

    @property
    def revision(self) -> int:
        return int(self.folder.name)

    @cached_property
    def layout(self) -> Layout:
        return cast(Layout, msgspec.json.decode((self.folder / "layout.json").read_bytes()))

    @cached_property
    def digests(self) -> dict[str, str]:
        """Of the state at some journal sequences, by sequence: as long as states are as they were then."""
        return msgspec.json.decode((self.folder / "digests.json").read_bytes(), type=dict[str, str])

    @cached_property
    def runs(self) -> dict[str, Any]:
        """What became of every run by the end of the journal: for as long as there is a journal."""
        return msgspec.json.decode((self.folder / "runs.json").read_bytes(), type=dict[str, Any])

    @cached_property
    def journal(self) -> list[bytes]:
        return (self.folder / "journal.jsonl").read_bytes().splitlines()

    @cached_property
    def snapshots(self) -> dict[str, bytes]:
        """By their names in the store."""
        return {file.stem: file.read_bytes() for file in sorted((self.folder / "snapshots").iterdir())}

    @cached_property
    def wire(self) -> dict[str, list[bytes]]:
        """By the kind of frame or beat."""
        return {file.stem: file.read_bytes().splitlines() for file in sorted((self.folder / "wire").glob("*.jsonl"))}


def runs_of(state: State) -> dict[str, Any]:
    """Every run that is known, as its user sees it: status, worker, and of each step its state, attempt, worker and output."""
    runs = {run.id: run for run in (*state.finished.all(), *state.runs.values())}
    return {
        id: [run.status, run.worker, [[step.state, step.attempt, step.worker, bytes(step.output).decode()] for step in run.steps]]
        for id, run in sorted(runs.items())
    }


def lines_of(members: dict[str, Any]) -> bytes:
    """JSON of an object, one member a line: to be read in a diff."""
    told = [msgspec.json.encode(name) + b": " + msgspec.json.encode(value) for name, value in members.items()]
    return b"{\n" + b",\n".join(told) + b"\n}\n"


def recordings() -> list[Recording]:
    """All of them, the oldest first."""
    return sorted((Recording(folder) for folder in FOLDER.iterdir()), key=lambda each: each.revision)


def plain(snapshot: bytes) -> bytes:
    """A snapshot as it is before it is compressed, and as it was stored before any were."""
    return snapshot if snapshot.startswith(b"[") else zlib.decompress(snapshot)


def kept(old: Any, new: Any) -> bool:
    """Whether JSON still says what it said: arrays may have grown at their end, nothing else."""
    if isinstance(old, list):
        return isinstance(new, list) and len(new) >= len(old) and all(map(kept, old, new))
    if isinstance(old, dict):
        return isinstance(new, dict) and new.keys() == old.keys() and all(kept(value, new[key]) for key, value in old.items())
    return type(old) is type(new) and old == new
