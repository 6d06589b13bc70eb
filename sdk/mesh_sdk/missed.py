"""Asking for what a lost notice would have said.

Two calls of the leader's API (see `reads` for how they travel) serve it:

    results    {"runs": [ids]}      -> [Done…]                 runs that are unknown, have not ended, or don't fit are left out
    started    {"requested": id}    -> Started | Done | null   Done when that start was refused; null: not decided yet

They are asked at each reconnect and new term for everything waited for, and every ASK_S for what has waited that long.
Records travel as in frames. Rule: one question at a time, of at most ASK_RUNS_MAX runs.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable, Iterable

import msgspec

from mesh_sdk.awaited import Awaited
from mesh_sdk.errors import MeshError
from mesh_sdk.keyed import Keyed
from mesh_sdk.leader import Leader
from mesh_sdk.protocol.records import Done, Notice, Started

ASK_S = 10.0
ASK_RUNS_MAX = 500

ANSWER_BYTES = 128 * 1024
"""An answer with outputs of this size may have been cut: its rest is asked for again."""

_log = logging.getLogger("mesh.client")
_results = msgspec.json.Decoder(list[Done])
_started = msgspec.json.Decoder(Started | Done | None)


class Missed:
    """Asks the leader for what may have been missed.

    Args:
        loop: of the client.
        leader: whom to ask.
        awaited: runs waited for.
        keyed: keyed starts waited for.
        on_notice: gets every answer, as if it had come as a notice.
        wall_ms: milliseconds since 1970.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        leader: Leader,
        awaited: Awaited,
        keyed: Keyed,
        on_notice: Callable[[Notice], None],
        wall_ms: Callable[[], int],
    ) -> None:
        self._loop = loop
        self._leader = leader
        self._awaited = awaited
        self._keyed = keyed
        self._on_notice = on_notice
        self._wall_ms = wall_ms
        self._runs: dict[str, None] = {}
        self._requests: dict[str, None] = {}
        self._asking: asyncio.Task[None] | None = None
        self._ticker: asyncio.TimerHandle | None = None
        self._closed = False

    def watch(self) -> None:
        """Something is waited for from now on."""
        if self._ticker is None and not self._closed:
            self._ticker = self._loop.call_later(ASK_S, self._tick)

    def _tick(self) -> None:
        self._ticker = None
        self.ask(self._awaited.runs(before_ms=self._wall_ms() - int(ASK_S * 1_000)), self._keyed.requests())
        if self._awaited or self._keyed:
            self.watch()

    def ask_all(self) -> None:
        """Notices may have been lost: ask for everything that is waited for."""
        self.ask(self._awaited.runs(), self._keyed.requests())

    def ask(self, runs: Iterable[str], requests: Iterable[str] = ()) -> None:
        """Have the leader asked for these."""
        self._runs.update(dict.fromkeys(runs))
        self._requests.update(dict.fromkeys(requests))
        if (self._runs or self._requests) and self._asking is None and not self._closed:
            self._asking = self._loop.create_task(self._ask(), name="mesh client asks for results")
            self._asking.add_done_callback(self._asked)

    async def _ask(self) -> None:
        try:
            while self._requests or self._runs:
                await self._ask_once()
        except (MeshError, msgspec.MsgspecError) as error:
            self._runs.clear()
            self._requests.clear()
            _log.warning("the leader could not be asked for missed results (again in %g s): %s", ASK_S, error)

    async def _ask_once(self) -> None:
        requested = next(iter(self._requests), None)
        if requested is not None:
            answer = _started.decode(await self._leader.call("started", {"requested": requested}))
            self._requests.pop(requested, None)
            if answer is not None:
                self._on_notice(answer)
            return
        runs = list(itertools.islice(self._runs, ASK_RUNS_MAX))
        found = _results.decode(await self._leader.call("results", {"runs": runs}))
        whole = sum(len(bytes(done.output)) for done in found) < ANSWER_BYTES
        for run in runs if whole else [done.run for done in found]:
            self._runs.pop(run, None)
        for done in found:
            self._on_notice(done)

    def _asked(self, task: asyncio.Task[None]) -> None:
        self._asking = None
        if not task.cancelled():
            task.result()
            self.ask(())

    def close(self) -> None:
        """Ask no more."""
        self._closed = True
        if self._ticker is not None:
            self._ticker.cancel()
        if self._asking is not None:
            self._asking.cancel()
