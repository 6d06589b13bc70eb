"""What a start or a publish gives back: `RunRef` and `EventRef`.

Rule: a reference asks its source, which is the client or the worker that it came from, and remembers the answer: a run ends once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from mesh_sdk.errors import MeshError
from mesh_sdk.failures import error_of
from mesh_sdk.protocol.records import SUCCEEDED, Done
from mesh_sdk.serialize import Parse

R = TypeVar("R")
T = TypeVar("T")


class RunSource(Protocol):
    """Where a `RunRef` gets its answers. The client's is `clients.ClientRuns`; a worker has one for children."""

    async def done(self, requested: str, keyed: bool) -> Done:
        """Wait for the run's end."""
        ...

    async def accepted(self, requested: str, keyed: bool) -> str:
        """Wait until the start is stored and, with a key, answered; gives the run's id."""
        ...

    async def cancel(self, run_id: str, reason: str) -> None:
        """Store a request to cancel the run."""
        ...

    async def status(self, run_id: str) -> str:
        """The run's status now."""
        ...

    def block(self, make: Callable[[], Coroutine[Any, Any, T]], name: str) -> T:
        """Run a coroutine for a thread without a loop, and wait for what it returns."""
        ...


class RunRef(Generic[R]):
    """A run that was started.

    Args:
        source: who answers for it.
        requested: the id that the start was stored under.
        parse: reads the run's output.
        keyed: the start had a key, so the run may be an older one; its id is known once the start is accepted.
    """

    __slots__ = ("_done", "_keyed", "_parse", "_requested", "_run_id", "_source")

    def __init__(self, source: RunSource, requested: str, parse: Parse, *, keyed: bool = False) -> None:
        self._source = source
        self._requested = requested
        self._parse = parse
        self._keyed = keyed
        self._run_id = "" if keyed else requested
        self._done: Done | None = None

    @property
    def run_id(self) -> str:
        """The run's id.

        Raises:
            MeshError: for a start with a key, before `accepted()`.
        """
        if not self._run_id:
            raise MeshError("the id of a run started with a key is known once the start is accepted: `await ref.accepted()` first")
        return self._run_id

    async def accepted(self) -> str:
        """Wait until the start is stored, never to be lost; with a key, until it is known which run it belongs to.

        Returns:
            The run's id.

        Raises:
            MeshError: when the start was refused.
        """
        self._run_id = await self._source.accepted(self._requested, self._keyed)
        return self._run_id

    async def result(self, timeout: float | None = None) -> R:
        """Wait for the run's end and give its output.

        Args:
            timeout: seconds to wait at most; the run itself goes on.

        Raises:
            RunFailed: a step failed for good.
            RunCancelled: it was cancelled; the message is the reason.
            RunTimedOut: its last attempt, or its wait for a worker, took too long.
            TimeoutError: `timeout` has passed.
        """
        done = self._done
        if done is None:
            done = self._done = await self._ended_within(timeout)
        if done.status != SUCCEEDED:
            raise error_of(done)
        value: R = self._parse(bytes(done.output))
        return value

    async def _ended_within(self, timeout: float | None) -> Done:
        if timeout is None:
            return await self._ended()
        try:
            async with asyncio.timeout(timeout):
                return await self._ended()
        except TimeoutError:
            raise TimeoutError(f"{self!r} has not ended within {timeout:g} s; it goes on") from None

    async def _ended(self) -> Done:
        if not self._run_id:
            await self.accepted()
        return await self._source.done(self._run_id, self._keyed)

    async def cancel(self, reason: str = "cancelled by a client") -> None:
        """Ask for the run's end. Returns once the request is stored; a run that has ended stays as it is."""
        if not self._run_id:
            await self.accepted()
        await self._source.cancel(self._run_id, reason)

    async def status(self) -> str:
        """The run's status: `queued running waiting succeeded failed cancelled timed_out`."""
        if not self._run_id:
            await self.accepted()
        return await self._source.status(self._run_id)

    def accepted_sync(self) -> str:
        """`accepted` for code without an event loop."""
        return self._source.block(self.accepted, "ref.accepted")

    def result_sync(self, timeout: float | None = None) -> R:
        """`result` for code without an event loop."""
        return self._source.block(lambda: self.result(timeout), "ref.result")

    def cancel_sync(self, reason: str = "cancelled by a client") -> None:
        """`cancel` for code without an event loop."""
        self._source.block(lambda: self.cancel(reason), "ref.cancel")

    def status_sync(self) -> str:
        """`status` for code without an event loop."""
        return self._source.block(self.status, "ref.status")

    def __repr__(self) -> str:
        return f"<RunRef {self._run_id or f'requested as {self._requested}'}>"


@dataclass(frozen=True, slots=True)
class EventRef:
    """An event that was stored.

    Attributes:
        name: the event's name.
        sequence: its place among all events.
        id: the id that it was published with, "" without one.
    """

    name: str
    sequence: int
    id: str = ""
