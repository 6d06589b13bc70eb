"""Results that somebody waits for, and the latest of those that somebody may still come for. Belongs to one event loop.

Rule: what may still be asked for is kept by count and bytes only; forgetting it costs a question to the leader, nothing else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator

from mesh_sdk.generations import Generations
from mesh_sdk.protocol.ids import run_id_time_ms
from mesh_sdk.protocol.records import Done

RECENT_RECORDS_MAX = 5_000
RECENT_BYTES_MAX = 8 * 1024 * 1024

Future = asyncio.Future[Done]


class Awaited:
    """Futures by run.

    Args:
        loop: that the futures belong to.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._only: dict[str, Future] = {}
        """Runs that one caller started and waits for, and nobody else knows."""
        self._shared: dict[str, list[Future]] = {}
        self._recent: Generations[Done] = Generations(RECENT_RECORDS_MAX, RECENT_BYTES_MAX)

    @property
    def forgotten(self) -> int:
        """Grows when ends that somebody may come for are forgotten."""
        return self._recent.forgotten

    def expect(self, run: str) -> Future:
        """A new future of the run's end. Cancelling it disturbs no other."""
        future: Future = self._loop.create_future()
        done = self._recent.get(run)
        if done is not None:
            future.set_result(done)
        else:
            self._shared.setdefault(run, []).append(future)
        return future

    def expect_only(self, run: str) -> Future:
        """The only future of the end of a run whose id was made this moment, and which nobody else gets to know."""
        future: Future = self._loop.create_future()
        self._only[run] = future
        return future

    def settle(self, done: Done) -> None:
        """A run has ended."""
        only = self._only.pop(done.run, None)
        if only is not None:
            if not only.done():
                only.set_result(done)
            return
        for future in self._shared.pop(done.run, ()):
            if not future.done():
                future.set_result(done)
        output = done.output.copy()  # a Raw is a view of the whole frame, which must not live as long
        self._recent.put(done.run, Done(done.run, done.status, output, done.errors), len(bytes(output)))

    def fail(self, runs: Iterable[str], make: Callable[[], Exception]) -> None:
        """These runs can't be waited for: each future gets an error of its own."""
        for run in runs:
            only = self._only.pop(run, None)
            for future in self._shared.pop(run, ()) if only is None else (only,):
                if not future.done():
                    future.set_exception(make())

    def knows(self, run: str) -> bool:
        """Whether the run's end is known and not forgotten."""
        return self._recent.get(run) is not None

    def runs(self, before_ms: int | None = None) -> list[str]:
        """Every run waited for.

        Args:
            before_ms: only those whose id was made before this time.
        """
        for run in [run for run, future in self._only.items() if future.done()]:
            del self._only[run]  # whoever was cancelled while waiting left its future here
        for run in [run for run, futures in self._shared.items() if all(future.done() for future in futures)]:
            del self._shared[run]
        return [run for run in self._all() if before_ms is None or _time_ms(run) < before_ms]

    def _all(self) -> Iterator[str]:
        yield from self._only
        yield from self._shared

    def __len__(self) -> int:
        """How many runs are waited for."""
        return len(self._only) + len(self._shared)


def _time_ms(run: str) -> int:
    try:
        return run_id_time_ms(run)
    except ValueError:  # an id that a user made up: as old as can be
        return 0
