"""Work that an event may cut short. Rule: what is begun here is over when the call returns."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any


async def unless(event: asyncio.Event, work: Coroutine[Any, Any, object]) -> bool:
    """Await `work`, unless `event` is set before. Whether it was finished."""
    task = asyncio.ensure_future(work)
    cut = asyncio.ensure_future(event.wait())
    try:
        await asyncio.wait({task, cut}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        cut.cancel()
        if not task.done():
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
    if task.cancelled():
        return False
    task.result()
    return True
