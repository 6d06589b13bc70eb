"""Answers what asks for many things, one list after the other, in slices between which the leader does its work.

Rule: each slice looks at the state of one journal sequence, and the page is sent when the last of these stands.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Protocol

from mesh.scheduler.answers import error, guarded

WAITING_MAX = 32
"""Lists that wait for their turn; whoever asks for one more is told to ask again."""
PAUSE_S = 0.003
"""Between two slices: the leader's own work goes on at half its speed at least."""

Ask = Callable[[Callable[[int], Callable[[], None]]], None]


class Page(Protocol):
    """A list in the making."""

    def slice(self) -> bool:
        """Do some more of it, in a few milliseconds; True when it is complete."""
        ...

    def answer(self) -> bytes:
        """What is sent."""
        ...


class Lists:
    """Serves one term.

    Args:
        begin: by the name of the call: begins a list, given the request.
        ask: has a question answered at a journal sequence (see `Loop.ask`).
        reply: sends an answer.
    """

    def __init__(self, begin: Mapping[str, Callable[[bytes], Page]], ask: Ask, reply: Callable[[str, bytes], object]) -> None:
        self._begin = begin
        self._ask = ask
        self._reply = reply
        self._waiting: asyncio.Queue[tuple[str, str, bytes]] = asyncio.Queue(WAITING_MAX)
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Answer from now on."""
        self._task = asyncio.get_running_loop().create_task(self._run(), name="lists")

    def close(self) -> None:
        """Answer no more."""
        if self._task is not None:
            self._task.cancel()

    def serves(self, call: str) -> bool:
        """Whether the call is answered here."""
        return call in self._begin

    def hear(self, call: str, reply: str, data: bytes) -> None:
        """Somebody asks for a list."""
        try:
            self._waiting.put_nowait((call, reply, data))
        except asyncio.QueueFull:
            self._reply(reply, error("Unavailable", f"{WAITING_MAX} lists are asked for already: ask again in a moment"))

    async def _run(self) -> None:
        while True:
            call, reply, data = await self._waiting.get()
            self._reply(reply, await self._page(call, data))

    async def _page(self, call: str, data: bytes) -> bytes:
        begun: list[Page] = []

        def some() -> bytes | None:
            """A slice; the answer when it was the last one."""
            if not begun:
                begun.append(self._begin[call](data))
                return None
            return begun[0].answer() if begun[0].slice() else None

        while True:
            page = await self._at_a_sequence(lambda: guarded(call, some))
            if page is not None:
                return page
            await asyncio.sleep(PAUSE_S)

    async def _at_a_sequence(self, look: Callable[[], bytes | None]) -> bytes | None:
        """What is seen at a journal sequence, when that stands."""
        seen: asyncio.Future[bytes | None] = asyncio.get_running_loop().create_future()

        def question(sequence: int) -> Callable[[], None]:
            found = look()
            return lambda: None if seen.done() else seen.set_result(found)

        self._ask(question)
        return await seen
