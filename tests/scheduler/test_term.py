"""What a term does beside its loop."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

from mesh.core.state import State
from mesh.scheduler.lanes import LanesGone
from mesh.scheduler.term import Term


async def test_buckets_that_go_while_the_lanes_are_made_again_are_looked_at_again() -> None:
    """A server that is restarted then has forgotten them after they were seen to: workers could not say any more that they live."""
    term: Any = Term.__new__(Term)
    term.state, term._lanes_away = State(), False
    term._lanes_reset, term._forgotten, looked = asyncio.Event(), asyncio.Event(), []
    term.loop = SimpleNamespace(tell=lambda _: term._lanes_reset.set())
    term._takeover = SimpleNamespace(send=lambda _: None, ask_holding=lambda: None)
    gone = [LanesGone("restarted"), None]

    async def ensure_remembered(_bus: object) -> None:
        looked.append(len(gone))

    async def make_lanes() -> None:
        while not looked:
            await asyncio.sleep(0)
        if (error := gone.pop(0)) is not None:
            raise error

    term._bus, term._topology, term._make_lanes = None, SimpleNamespace(ensure_remembered=ensure_remembered), make_lanes
    remembering = asyncio.ensure_future(term._remember())
    try:
        async with asyncio.timeout(5):
            await term._remake_lanes()
            while len(looked) < 2:
                await asyncio.sleep(0)
    finally:
        remembering.cancel()
    assert looked == [2, 0], "once when the lanes had gone, once more when they were there again"
