"""Trims the journal behind its snapshots, which a process of its own makes.

Rule: never past a snapshot that was read back, never of the last frame. Two snapshots are kept; only where the journal has no
room left the newest must do, for a leader that can't write can't go on.
"""

from __future__ import annotations

import asyncio
import logging
import sys

from mesh.scheduler.snapshot import MAKE_S
from mesh.store.snapshots import Snapshots
from mesh_sdk.protocol.subjects import Subjects
from mesh_sdk.transport.bus import Bus

log = logging.getLogger(__name__)

CROWDED_PART = 0.75
"""Past this part of its bytes the journal is crowded: a snapshot is made now, and again, until there is room."""
_FULL_BYTES = 16 * 1024
"""With less than this left not even the first frame of a term is sure to fit."""
_GRACE_S = 10.0


class HelperFailed(Exception):
    """There is no snapshot, and why."""


async def crowded(bus: Bus, subjects: Subjects) -> bool:
    """Whether the journal is about to be full."""
    state = await bus.stream_state(subjects.journal_stream)
    return state is not None and 0 < state.limit_bytes * CROWDED_PART < state.bytes


async def full(bus: Bus, subjects: Subjects) -> bool:
    """Whether nobody can lead, because not even the frame that says so finds room."""
    state = await bus.stream_state(subjects.journal_stream)
    return state is not None and 0 < state.limit_bytes < state.bytes + _FULL_BYTES


async def trim(bus: Bus, subjects: Subjects, url: str, finished_max: int) -> None:
    """Have a snapshot made and the journal trimmed.

    Raises:
        HelperFailed, OSError: there is no snapshot; nothing was trimmed.
        TransportError: nothing was trimmed.
    """
    older = await _run_helper(url, subjects.namespace, finished_max)
    if older:
        await bus.purge(subjects.journal_stream, before=older + 1)
    if await crowded(bus, subjects):
        await _trim_to_newest(bus, subjects)


async def _trim_to_newest(bus: Bus, subjects: Subjects) -> None:
    last = await bus.last(subjects.journal_stream, subjects.journal)
    sequences = await Snapshots(bus, subjects).sequences()
    if last is None or not sequences:
        return
    log.warning("the journal is nearly full: it is trimmed behind the newest of its snapshots, %d; give it more room", sequences[-1])
    await bus.purge(subjects.journal_stream, before=min(sequences[-1] + 1, last.sequence))  # an emptied one refuses its leader for ever


async def _run_helper(url: str, namespace: str, finished_max: int) -> int:
    """What the helper process prints."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "mesh.scheduler.snapshot", url, namespace, str(finished_max), stdout=asyncio.subprocess.PIPE
    )
    try:
        async with asyncio.timeout(MAKE_S + _GRACE_S):  # it has a limit of its own, but may hang before it knows
            out, _ = await process.communicate()
    except TimeoutError:
        raise HelperFailed(f"the helper process did not end within {MAKE_S:g} s: are this machine and the server overloaded?") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0 or not out.strip().isdigit():
        raise HelperFailed(f"the helper process ended with {process.returncode}, its last lines on standard error say why")
    return int(out)
