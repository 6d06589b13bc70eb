"""Waiting for what a server can't do yet, and ending every wait when the scheduler is to stop.

Rule: whoever waits says for what, once every few seconds, in one line.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from types import TracebackType
from typing import Any, TypeVar

from mesh.scheduler.readiness import Readiness
from mesh_sdk.transport.backoff import Backoff
from mesh_sdk.transport.errors import TransportError

log = logging.getLogger(__name__)

SAY_S = 5.0
"""How often a wait is told."""
_AGAIN_S = 0.2
_AGAIN_S_MAX = 2.0

Done = TypeVar("Done")


class Stopped(Exception):
    """The scheduler is to stop; what was waited for was given up."""


class Patience:
    """Waits for one scheduler, until it is to stop.

    Args:
        url: the servers, for the log.
        stop: set when it is to stop.
        readiness: is told what is waited for.
    """

    def __init__(self, url: str, stop: asyncio.Event, readiness: Readiness) -> None:
        self._url = url
        self._readiness = readiness
        self._said_at = float("-inf")
        self.stopping = asyncio.create_task(stop.wait(), name="stopping")
        """Done when the scheduler is to stop."""

    def __enter__(self) -> Patience:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stopping.cancel()

    def say(self, why: str) -> None:
        """Tell what is waited for, unless that was just told."""
        self._readiness.doubt(why)
        now = asyncio.get_running_loop().time()
        if now - self._said_at >= SAY_S:
            self._said_at = now
            log.warning("%s", why)

    async def unless_stopped(self, work: Coroutine[Any, Any, Done]) -> Done:
        """Do something, and give it up when the scheduler is to stop.

        Raises:
            Stopped: it was given up.
        """
        task = asyncio.create_task(work)
        try:
            await asyncio.wait((task, self.stopping), return_when=asyncio.FIRST_COMPLETED)
        finally:
            given_up = task.cancel()
            await asyncio.wait((task,))
        if given_up:
            if not task.cancelled() and (error := task.exception()) is not None:
                log.info("what was given up ended with: %s", error)
            raise Stopped
        return task.result()

    async def until_done(self, what: str, work: Callable[[], Awaitable[Done]]) -> Done:
        """Do something again until the server does it."""
        backoff = Backoff(_AGAIN_S, _AGAIN_S_MAX)
        while True:
            try:
                return await work()
            except TransportError as error:
                self.say(f"waiting for {what} at {self._url}: {error}")
                await asyncio.sleep(backoff.next())
