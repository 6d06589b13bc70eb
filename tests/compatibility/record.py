"""Records the present contract as a new revision, beside the older ones: `python -m tests.compatibility.record`.

Rule: a recording is never written again. What was recorded has been released: somebody's journal looks like that. Only of
one that nobody has had yet, since its change is still in the making, `--anew` writes the newest revision again.
"""

from __future__ import annotations

import asyncio
import shutil
import sys
from pathlib import Path
from typing import cast

from msgspec import Struct

from mesh.core.image import digest
from mesh.scheduler.journal import encode_frame
from mesh.store.snapshots import Snapshots
from mesh_sdk.protocol.codec import encode
from mesh_sdk.protocol.subjects import Subjects
from mesh_sdk.transport.bus import Bus
from tests.compatibility.fields import breaks, layout
from tests.compatibility.life import full_frames, lived, shape
from tests.compatibility.recordings import FOLDER, Recording, Shelf, follow, lines_of, plain, recordings, runs_of

SNAPSHOTS_AT = (0.55, 0.9)
"""Parts of the journal after which a snapshot is taken. The first is kept plain: that is how they were before they were compressed."""


async def record(folder: Path) -> None:
    """Write the recording of a life into a folder that is not there yet."""
    world = lived()
    journal = [encode_frame(frame) for frame in world.frames]
    digests: dict[str, str] = {}
    shelf = Shelf(journal)
    for sequence in [int(part * len(journal)) for part in SNAPSHOTS_AT]:
        at = await follow(journal[:sequence])
        await Snapshots(cast(Bus, shelf), Subjects()).write(sequence, at.positions, at.state)
        digests[str(sequence)] = digest(at.state)
    end = (await follow(journal)).state
    digests[str(len(journal))] = digest(end)
    (folder / "wire").mkdir(parents=True)
    (folder / "snapshots").mkdir()
    (folder / "journal.jsonl").write_bytes(b"".join(line + b"\n" for line in journal))
    (folder / "layout.json").write_bytes(lines_of(layout()))
    (folder / "digests.json").write_bytes(lines_of(digests))
    (folder / "runs.json").write_bytes(lines_of(runs_of(end)))
    first, *rest = shelf.kept.items()
    (folder / "snapshots" / f"{first[0]}.json").write_bytes(plain(first[1]))
    for name, data in rest:
        (folder / "snapshots" / f"{name}.zlib").write_bytes(data)
    for kind, lines in _wire(world.said).items():
        (folder / "wire" / f"{kind}.jsonl").write_bytes(b"".join(line + b"\n" for line in lines))


async def replayed(recording: Recording) -> dict[str, str]:
    """The digests that its journal leads to now."""
    return {sequence: digest((await follow(recording.journal[: int(sequence)])).state) for sequence in recording.digests}


def _wire(said: list[Struct]) -> dict[str, list[bytes]]:
    """Frames by their kind; of those whose records are of one shape the first only."""
    found: dict[str, list[bytes]] = {}
    seen = set()
    for frame in (*full_frames(), *said):
        key = repr(shape(frame))
        if key not in seen:
            seen.add(key)
            found.setdefault(type(frame).__name__, []).append(encode(frame))
    return found


def main(arguments: list[str] | None = None) -> int:
    """Record, unless there is nothing new or what there is can't be lived with."""
    known = recordings() if FOLDER.exists() else []
    newest = known.pop() if arguments == ["--anew"] and known else None
    present = layout()
    if newest is None and known and known[-1].layout == present and asyncio.run(replayed(known[-1])) == known[-1].digests:
        print(f"revision {known[-1].revision} is what the present code has and does: there is nothing to record")
        return 1
    broken = [f"revision {old.revision}: {each}" for old in known for each in breaks(old.layout, present)]
    if broken:
        print("what was recorded could not be read any more; append instead, with a default:", *broken, sep="\n")
        return 1
    folder = FOLDER / str(known[-1].revision + 1 if known else 1)
    if newest is not None:
        shutil.rmtree(newest.folder)
    asyncio.run(record(folder))
    print(f"recorded revision {folder.name}: commit {folder} with the change that made it necessary")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
