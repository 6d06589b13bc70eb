"""Which workflows some worker has registered, as far as a client has asked.

Rule: whoever asks while the answer is on its way waits for that one: ten thousand first starts are one question.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import msgspec

from mesh_sdk.errors import Unavailable, UnknownWorkflow
from mesh_sdk.leader import Leader
from mesh_sdk.protocol.definitions import WorkflowDefinition
from mesh_sdk.protocol.keys import workflow_key
from mesh_sdk.protocol.subjects import Subjects
from mesh_sdk.transport.errors import StreamMissing

if TYPE_CHECKING:
    from mesh_sdk.transport.bus import Bus

_log = logging.getLogger("mesh.client")
_definition = msgspec.json.Decoder(WorkflowDefinition)


class KnownWorkflows:
    """What was looked up.

    Args:
        loop: the client's.
        leader: whose patience with a server that is away is used.
        bus: gives the open connection; raises once the client is closed, which ends what is asked.
        subjects: of the namespace.
        servers: named in messages.

    Attributes:
        definitions: by name; None for one that can't be read here.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        leader: Leader,
        bus: Callable[[], Awaitable[Bus]],
        subjects: Subjects,
        servers: tuple[str, ...],
    ) -> None:
        self.definitions: dict[str, WorkflowDefinition | None] = {}
        self._loop = loop
        self._leader = leader
        self._bus = bus
        self._subjects = subjects
        self._servers = servers
        self._asking: dict[str, asyncio.Task[None]] = {}

    async def look_up(self, workflow: str) -> None:
        """Have the workflow known.

        Raises:
            UnknownWorkflow: none has registered it. A yes is remembered, a no is not.
            Unavailable: no scheduler ever ran here, or the server is away.
        """
        asking = self._asking.get(workflow)
        if asking is None:
            asking = self._asking[workflow] = self._loop.create_task(self._ask(workflow), name=f"mesh client looks for {workflow}")
            asking.add_done_callback(lambda task: self._asked(workflow, task))
        await asyncio.shield(asking)

    def _asked(self, workflow: str, task: asyncio.Task[None]) -> None:
        del self._asking[workflow]
        if not task.cancelled():
            task.exception()  # whoever waits gets it; by now nobody may

    async def _ask(self, workflow: str) -> None:
        namespace = self._subjects.namespace

        async def registered() -> tuple[bytes, int] | None:
            bus = await self._bus()
            return await bus.bucket(self._subjects.workflows_bucket).get(workflow_key(workflow))

        try:
            found = await self._leader.persist(registered, f"whether {workflow!r} is registered")
        except StreamMissing as error:
            raise Unavailable(
                f"no scheduler has set up the namespace {namespace!r} on {', '.join(self._servers)}: "
                "start one with `mesh scheduler`, or check MESH_URL and MESH_NAMESPACE"
            ) from error
        if found is None:
            raise UnknownWorkflow(
                f"no worker ever registered a workflow called {workflow!r} in the namespace {namespace!r}: "
                "start a worker that has it in workflows=[…], or check the name"
            )
        self.definitions[workflow] = _read(workflow, found[0])


def _read(workflow: str, data: bytes) -> WorkflowDefinition | None:
    try:
        return _definition.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        # only its priority and stickiness are wanted here; the scheduler checks again
        _log.debug("the definition of %r can't be read here: %s", workflow, error)
        return None
