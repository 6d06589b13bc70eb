"""`mesh.workers`: who is there, with how many slots; and an operator's words to a worker."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from mesh_sdk.errors import MeshError, Unavailable, WorkerNotFound
from mesh_sdk.protocol.records import DRAIN, PAUSE, RESUME, Steer
from mesh_sdk.reads import WorkerInfo, read
from mesh_sdk.transport.backoff import Backoff

if TYPE_CHECKING:
    from mesh_sdk.clients import Clients

Workers = list[WorkerInfo]

HEARD_WITHIN_S = 10.0
_ASK_AGAIN_S = (0.05, 0.5)
_STATES = {PAUSE: "paused", RESUME: "active", DRAIN: "draining"}
"""A worker's state once it was heard."""


class WorkerReads:
    """`mesh.workers`."""

    def __init__(self, clients: Clients) -> None:
        self._clients = clients

    async def list(self) -> Workers:
        """Every worker that the leader knows.

        Raises:
            Unavailable: when no scheduler answers.
        """
        return await read(self._clients, "workers.list", {}, Workers)

    def list_sync(self) -> Workers:
        """`list` for code without an event loop."""
        return self._clients.block(self.list, "mesh.workers.list")

    async def pause(self, id: str) -> None:
        """Have a worker take no new work until `resume`; it finishes what it has. Returns once the leader has it so.

        Steps of SOFT runs that are bound to it go elsewhere, those of HARD runs wait. A worker that is started anew is not paused.

        Raises:
            WorkerNotFound: there is no such worker.
            MeshError: it drains, and will end.
            Unavailable: when no scheduler answers.
        """
        await self._steer(id, PAUSE)

    async def resume(self, id: str) -> None:
        """Have a paused worker take work again.

        Raises:
            WorkerNotFound, MeshError, Unavailable: as `pause`.
        """
        await self._steer(id, RESUME)

    async def drain(self, id: str) -> None:
        """Have a worker end as on SIGTERM: it hands back what it has not begun, finishes what runs, and its process ends.

        Returns once the leader knows that it drains.

        Raises:
            WorkerNotFound, Unavailable: as `pause`.
        """
        await self._steer(id, DRAIN)

    def pause_sync(self, id: str) -> None:
        """`pause` for code without an event loop."""
        self._clients.block(lambda: self.pause(id), "mesh.workers.pause")

    def resume_sync(self, id: str) -> None:
        """`resume` for code without an event loop."""
        self._clients.block(lambda: self.resume(id), "mesh.workers.resume")

    def drain_sync(self, id: str) -> None:
        """`drain` for code without an event loop."""
        self._clients.block(lambda: self.drain(id), "mesh.workers.drain")

    async def _steer(self, id: str, what: str) -> None:
        known = {worker.id: worker.state for worker in await self.list()}
        if id not in known:
            there = ", ".join(sorted(known)[:10]) or "none"
            raise WorkerNotFound(f"there is no worker {id!r} to {what}; those that the leader knows: {there}")
        _check_goes_on(id, what, known[id])
        client = self._clients.here()
        await client.control(Steer(id, what), f"the request to {what} worker {id}")
        backoff = Backoff(*_ASK_AGAIN_S)
        try:
            async with asyncio.timeout(HEARD_WITHIN_S):
                while not await self._has_heard(id, what):  # the leader says no word when it has heard, its list does
                    await backoff.wait(client.leader.news)
        except TimeoutError:
            waited = f"within {HEARD_WITHIN_S:g} s no leader has heard it"
            raise Unavailable(f"the request to {what} worker {id!r} is stored, but {waited}: is `mesh scheduler` running?") from None

    async def _has_heard(self, id: str, what: str) -> bool:
        state = next((worker.state for worker in await self.list() if worker.id == id), None)
        if state is None and what != DRAIN:
            raise WorkerNotFound(f"worker {id!r} has gone before it could {what}")
        _check_goes_on(id, what, state)
        return state is None or state == _STATES[what]


def _check_goes_on(id: str, what: str, state: str | None) -> None:
    """Nothing but its end is to be had of a worker that drains."""
    if state == _STATES[DRAIN] and what != DRAIN:
        raise MeshError(f"worker {id!r} is draining and its process will end: it can't {what} any more; a process started anew takes work")
