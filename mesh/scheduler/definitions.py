"""The bucket of definitions, from which clients learn which workflows there are.

Rule: a worker hears that it is registered when all of its definitions stand there; else it would say that it is ready
for runs that nobody can start.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

from mesh.core.slots import Worker
from mesh.core.state import State
from mesh.scheduler.chores import Chores
from mesh_sdk.protocol.codec import encode
from mesh_sdk.protocol.keys import workflow_key
from mesh_sdk.protocol.subjects import Subjects
from mesh_sdk.transport.bus import Bus
from mesh_sdk.transport.errors import StreamFull

log = logging.getLogger(__name__)


class Definitions:
    """Stores them for one term.

    Args:
        bus, subjects, state: of the scheduler.
        chores: what finds no room is put off there.
    """

    def __init__(self, bus: Bus, subjects: Subjects, state: State, chores: Chores) -> None:
        self._bus = bus
        self._bucket = subjects.workflows_bucket
        self._state = state
        self._chores = chores
        self._stored: set[str] = set()
        """Workflows whose newest definition stands in the bucket, as far as this term knows."""
        self._unstored: set[str] = set()
        """Workflows whose definition has found no room; no more than there may be workflows."""

    async def store(self, names: Iterable[str]) -> None:
        """Have the newest definitions of these workflows in the bucket. Those that find no room are stored when there is some."""
        for name in names:
            try:
                await self._put(name)
            except StreamFull as error:
                self._put_off(name, error)

    def _put_off(self, name: str, error: StreamFull) -> None:
        self._stored.discard(name)
        if name in self._unstored:
            return
        log.error("the definition of workflow %r found no room: it can't be started by name, its workers are not ready: %s", name, error)
        if not self._unstored:
            self._chores.add("storing the definitions of workflows", self._store_unstored)
        self._unstored.add(name)

    async def _store_unstored(self) -> None:
        """The smallest first: where it finds no room none of them does."""
        for _, name in sorted((len(encode(self._state.flows[name].definition)), name) for name in self._unstored):
            await self._put(name)
            log.info("the definition of workflow %r has found room", name)

    async def _put(self, name: str) -> None:
        bucket, key, data = self._bus.bucket(self._bucket), workflow_key(name), encode(self._state.flows[name].definition)
        try:
            await bucket.put(key, data)
        except StreamFull:
            there = await bucket.get(key)
            if there is None or there[0] != data:
                raise
        self._unstored.discard(name)
        self._stored.add(name)

    async def has(self, worker: Worker) -> bool:
        """Whether all definitions of the worker stand in the bucket; those of which it is not known yet are stored first."""
        names = {name for name, _ in worker.workflows}
        await self.store(sorted(names - self._stored - self._unstored))
        return names <= self._stored
