"""Makes a snapshot in a process of its own, so that the leader never pauses: the last snapshot plus the journal after it.

`python -m mesh.scheduler.snapshot URL NAMESPACE FINISHED_MAX` follows the journal to its present end, writes the state,
reads it back, compares digests, drops all but two, and prints the sequence that the journal may be trimmed to.
It is as polite as the system lets it be, and gives up after a time of its own: a leader that dies leaves it alone.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import sys
from collections.abc import Awaitable, Callable
from typing import TypeVar

from mesh.core.image import digest
from mesh.scheduler.follower import Follower, Unfollowable
from mesh.store.snapshots import Snapshots
from mesh_sdk.protocol.subjects import Subjects
from mesh_sdk.transport.connection import connect
from mesh_sdk.transport.errors import Disconnected, TimedOut

Done = TypeVar("Done")

log = logging.getLogger(__name__)

MAKE_S = 600.0
"""How long a snapshot may take; at 100,000 live runs, one takes 7 s on an idle machine and a minute on one with five times its work."""
_CATCH_UP_S = 120.0
_AGAIN_S = 0.5
_NICENESS = 10
_GC_THRESHOLDS = (50_000, 3, 700)


async def make(url: str, namespace: str, finished_max: int) -> int:
    """Write and verify a snapshot. Returns the sequence of the older of the two that are kept, 0 if there is one only.

    Raises:
        RuntimeError: what was written does not read back as what was meant.
    """
    subjects = Subjects(namespace)
    bus = await connect(url.split(","), name=f"mesh-snapshot-{namespace}")
    try:
        last = await bus.last(subjects.journal_stream, subjects.journal)
        if last is None:
            return 0
        follower = Follower(bus, subjects, finished_max)
        await follower.start()
        if not await follower.wait_for(last.sequence, _CATCH_UP_S):
            raise RuntimeError(f"the journal up to {last.sequence} was not read within {_CATCH_UP_S:g} s")
        await follower.stop()
        if follower.broken:
            raise RuntimeError(f"the journal after {follower.sequence} can't be applied: its state can't be trusted")
        snapshots = Snapshots(bus, subjects)
        meant = digest(follower.state)
        await _persist(lambda: snapshots.write(follower.sequence, follower.positions, follower.state))
        follower.forget()  # one state at a time: the helper is to stay about as large as a scheduler
        written = await _persist(lambda: snapshots.read(follower.sequence, finished_max))
        if written is None or digest(written.state) != meant:
            raise RuntimeError(f"the snapshot of {follower.sequence} does not read back as what was written")
        return await _persist(snapshots.drop_old)
    finally:
        await bus.close()


async def _persist(act: Callable[[], Awaitable[Done]]) -> Done:
    """Do it, again if need be: while a large state is encoded nobody answers the server's pings, which may hang up on a busy machine."""
    while True:
        try:
            return await act()
        except (Disconnected, TimedOut) as error:
            log.warning("the server was out of reach, tried again: %s", error)
            await asyncio.sleep(_AGAIN_S)


async def _make_in_time(url: str, namespace: str, finished_max: int) -> int:
    async with asyncio.timeout(MAKE_S):
        return await make(url, namespace, finished_max)


def main() -> int:
    """Run as a program."""
    url, namespace, finished_max = sys.argv[1:4]
    if hasattr(os, "nice"):
        os.nice(_NICENESS)  # the leader and the workers come first
    gc.set_threshold(*_GC_THRESHOLDS)
    try:
        print(asyncio.run(_make_in_time(url, namespace, int(finished_max))))  # noqa: T201
    except TimeoutError:
        print(f"no snapshot: it was not made within {MAKE_S:g} s", file=sys.stderr)  # noqa: T201
        return 1
    except Unfollowable as error:
        print(f"no snapshot: {error}", file=sys.stderr)  # noqa: T201
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
