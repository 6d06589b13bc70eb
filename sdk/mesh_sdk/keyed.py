"""Starts with a key: which run each of them turned out to be. Belongs to one event loop.

Rule: an answer that nobody waited for is remembered for a while; a forgotten one can be asked for again.
"""

from __future__ import annotations

import asyncio

from mesh_sdk.generations import Generations

ANSWERS_MAX = 10_000


class Keyed:
    """Futures of run ids, by the id that was asked for.

    Args:
        loop: that the futures belong to.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: dict[str, list[asyncio.Future[str]]] = {}
        self._answers: Generations[str] = Generations(ANSWERS_MAX)

    def expect(self, requested: str) -> asyncio.Future[str]:
        """A new future of the run's id."""
        future: asyncio.Future[str] = self._loop.create_future()
        answer = self._answers.get(requested)
        if answer is not None:
            future.set_result(answer)
        else:
            self._waiting.setdefault(requested, []).append(future)
        return future

    def settle(self, requested: str, run: str) -> None:
        """A start was answered."""
        self._answers.put(requested, run)
        for future in self._waiting.pop(requested, ()):
            if not future.done():
                future.set_result(run)

    def fail(self, requested: str, error: Exception) -> None:
        """A start was refused."""
        for future in self._waiting.pop(requested, ()):
            if not future.done():
                future.set_exception(error)

    def requests(self) -> list[str]:
        """Every start that somebody waits for."""
        gone = [requested for requested, futures in self._waiting.items() if all(future.done() for future in futures)]
        for requested in gone:
            del self._waiting[requested]
        return list(self._waiting)

    def __contains__(self, requested: str) -> bool:
        """Whether somebody waits for this start."""
        return requested in self._waiting

    def __len__(self) -> int:
        """How many starts are waited for."""
        return len(self._waiting)
