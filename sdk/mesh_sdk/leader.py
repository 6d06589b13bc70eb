"""Asking the leader: requests without effect, put again until somebody answers.

Rule: a read waits out a failover, up to FAILOVER_S, and no longer; what a leader took along when it died is asked again as soon as there is
another one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
from msgspec import Raw, Struct

from mesh_sdk.errors import MeshError, Unavailable
from mesh_sdk.failures import error_class
from mesh_sdk.protocol.codec import encode
from mesh_sdk.protocol.subjects import Subjects
from mesh_sdk.transport.backoff import Backoff
from mesh_sdk.transport.errors import Busy, Disconnected, NoResponders, StreamMissing, TimedOut, TransportError

if TYPE_CHECKING:
    from mesh_sdk.transport.bus import Bus

FAILOVER_S = 10.0
_REQUEST_S = 5.0
_ASK_AGAIN_FIRST_S = 1.0
"""Twice as long each time. An answer may take longer, so the older request stays open."""
_RETRY_FIRST_S = 0.05
_RETRY_MOST_S = 0.5

T = TypeVar("T")


class _Problem(Struct):
    type: str = "MeshError"
    message: str = ""


class _Answer(Struct):
    ok: Raw = Raw(b"null")
    error: _Problem | None = None


_decode = msgspec.json.Decoder(_Answer).decode


class Leader:
    """The leader, as seen from one client.

    Args:
        bus: gives the open connection.
        subjects: of the namespace.
    """

    def __init__(self, bus: Callable[[], Awaitable[Bus]], subjects: Subjects) -> None:
        self._bus = bus
        self._subjects = subjects
        self.news = asyncio.Event()
        """Set when it makes sense to ask again at once: there is a connection again, or a new leader."""

    async def call(self, name: str, body: Mapping[str, Any], what: str = "") -> bytes:
        """Ask for something.

        Args:
            name: of the call, e.g. `runs.get`.
            body: of the request.
            what: is asked, for the message; else the call's name.

        Returns:
            The answer's JSON.

        Raises:
            MeshError: as the leader answered.
            Unavailable: nobody answered for FAILOVER_S.
        """
        subject, data = self._subjects.api(name), encode(dict(body))

        async def ask() -> bytes:
            bus = await self._bus()
            return _unwrap(await self._first_answer(bus, subject, data))

        return await self.persist(ask, what or name)

    async def _first_answer(self, bus: Bus, subject: str, data: bytes) -> bytes:
        """The first answer to a request, which is put once more from time to time, and when there is news."""
        patience = Backoff(_ASK_AGAIN_FIRST_S, _REQUEST_S)
        asked: list[asyncio.Task[bytes]] = []
        try:
            while True:
                asked.append(asyncio.create_task(bus.request(subject, data, _REQUEST_S)))
                again = asyncio.create_task(patience.wait(self.news))
                try:
                    await asyncio.wait((*asked, again), return_when=asyncio.FIRST_COMPLETED)
                finally:
                    again.cancel()
                for request in asked:
                    if request.done():
                        return request.result()
        finally:
            for request in asked:
                request.cancel()
            await asyncio.gather(*asked, return_exceptions=True)

    async def persist(self, ask: Callable[[], Awaitable[T]], what: str) -> T:
        """Ask until there is an answer.

        Args:
            ask: one try.
            what: is asked, for the message.

        Raises:
            Unavailable: FAILOVER_S have passed, or the server refuses to tell.
            StreamMissing: whoever asks knows what that means.
        """
        backoff = Backoff(_RETRY_FIRST_S, _RETRY_MOST_S)
        last: Exception | None = None
        try:
            async with asyncio.timeout(FAILOVER_S):
                while True:
                    try:
                        return await ask()
                    except (NoResponders, TimedOut, Disconnected, Busy, Unavailable) as error:
                        last = error
                    except StreamMissing:
                        raise
                    except TransportError as error:
                        raise Unavailable(f"{what}: the NATS server refused to tell: {error}") from error
                    await backoff.wait(self.news)
        except TimeoutError:
            raise self._unavailable(what, last) from last

    def _unavailable(self, what: str, last: Exception | None) -> Unavailable:
        who = "no scheduler leads"
        if isinstance(last, Disconnected | Busy):
            who = f"the NATS server is {'away' if isinstance(last, Disconnected) else 'busy'}"
        return Unavailable(
            f"{what}: nobody answered within {FAILOVER_S:g} s: {who} in the namespace {self._subjects.namespace!r}"
            f"{f' ({last})' if last is not None else ''}; is `mesh scheduler` running?"
        )


def _unwrap(data: bytes) -> bytes:
    if not data.startswith(b"{"):
        return data
    try:
        answer = _decode(data)
    except msgspec.MsgspecError as error:
        raise MeshError(f"the scheduler's answer can't be read: {error}: are both of one version?") from error
    if answer.error is None:
        return bytes(answer.ok)
    kind = error_class(answer.error.type) or MeshError
    raise kind(answer.error.message or answer.error.type)
