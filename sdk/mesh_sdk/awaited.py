"""Results that somebody waits for, and the latest of those that nobody waited for yet. Belongs to one event loop.

Rule: what nobody waits for is kept by count and bytes only; forgetting it costs a question to the leader, nothing else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from mesh_sdk.generations import Generations
from mesh_sdk.protocol.ids import run_id_time_ms
from mesh_sdk.protocol.records import Done

RECENT_RECORDS_MAX = 5_000
RECENT_BYTES_MAX = 8 * 1024 * 1024


class Awaited:
    """Futures by run.

    Args:
        loop: that the futures belong to.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: dict[str, list[asyncio.Future[Done]]] = {}
        self._recent: Generations[Done] = Generations(RECENT_RECORDS_MAX, RECENT_BYTES_MAX)

    @property
    def forgotten(self) -> int:
        """Grows when ends that nobody waited for are forgotten."""
        return self._recent.forgotten

    def expect(self, run: str) -> asyncio.Future[Done]:
        """A new future of the run's end. Cancelling it disturbs no other."""
        future: asyncio.Future[Done] = self._loop.create_future()
        done = self._recent.get(run)
        if done is not None:
            future.set_result(done)
        else:
            self._waiting.setdefault(run, []).append(future)
        return future

    def expect_new(self, run: str) -> asyncio.Future[Done]:
        """`expect` for a run whose id was made this moment: nothing can be known of it."""
        future: asyncio.Future[Done] = self._loop.create_future()
        self._waiting[run] = [future]
        return future

    def settle(self, done: Done) -> None:
        """A run has ended."""
        waiting = self._waiting.pop(done.run, None)
        if waiting is None:
            self._keep(done)
            return
        for future in waiting:
            if not future.done():
                future.set_result(done)

    def _keep(self, done: Done) -> None:
        output = done.output.copy()  # a Raw is a view of the whole frame, which must not live as long
        self._recent.put(done.run, Done(done.run, done.status, output, done.errors), len(bytes(output)))

    def fail(self, runs: Iterable[str], make: Callable[[], Exception]) -> None:
        """These runs can't be waited for: each future gets an error of its own."""
        for run in runs:
            for future in self._waiting.pop(run, ()):
                if not future.done():
                    future.set_exception(make())

    def knows(self, run: str) -> bool:
        """Whether the run's end came before anybody waited for it, and is not forgotten."""
        return self._recent.get(run) is not None

    def runs(self, before_ms: int | None = None) -> list[str]:
        """Every run waited for.

        Args:
            before_ms: only those whose id was made before this time.
        """
        gone = [run for run, futures in self._waiting.items() if all(future.done() for future in futures)]
        for run in gone:  # whoever was cancelled while waiting left its future here
            del self._waiting[run]
        if before_ms is None:
            return list(self._waiting)
        return [run for run in self._waiting if _time_ms(run) < before_ms]

    def __len__(self) -> int:
        """How many runs are waited for."""
        return len(self._waiting)


def _time_ms(run: str) -> int:
    try:
        return run_id_time_ms(run)
    except ValueError:  # an id that a user made up: as old as can be
        return 0
