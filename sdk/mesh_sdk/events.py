"""`mesh.events`: publishing what starts workflows.

Rule: an event is its JSON on `mesh.<namespace>.events.<name>` and nothing more, so that any NATS client can publish one.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, cast

from mesh_sdk.clients import Clients
from mesh_sdk.errors import InvalidInput, InvalidName, MeshError, Unavailable
from mesh_sdk.options import metadata_of
from mesh_sdk.protocol.subjects import check_event_name
from mesh_sdk.refs import EventRef
from mesh_sdk.serialize import UNTYPED, dumper
from mesh_sdk.transport.backoff import Backoff
from mesh_sdk.transport.errors import Busy, Disconnected, StreamFull, StreamMissing, TimedOut, TransportError
from mesh_sdk.transport.headers import header

if TYPE_CHECKING:
    from mesh_sdk.client import Client
    from mesh_sdk.transport.bus import Bus

    class _HeaderBus(Protocol):
        """What the connection can besides `Bus`: store a message with any headers."""

        def store(self, subject: str, data: bytes, headers: bytes, timeout: float) -> asyncio.Future[int]: ...


METADATA_HEADER = "Mesh-Metadata"
ID_CHARACTERS_MAX = 256
STORE_S = 5.0
PUBLISH_S = 10.0
"""How long a publish waits for a server that is away."""
AHEAD_MAX = 1_000
"""How many publishes of `publish_many` may be on their way at once."""

_dump = dumper(UNTYPED, "the event's payload", InvalidInput)


@dataclass(frozen=True, slots=True)
class Event:
    """An event to publish, for `publish_many`.

    Attributes:
        name: tokens joined by dots.
        payload: anything that can be JSON.
        id: of the publisher's own; publishing it twice within two minutes stores it once.
        metadata: given to the runs that it starts.
    """

    name: str
    payload: Any = None
    id: str = ""
    metadata: Mapping[str, str] | None = None


class Events:
    """`mesh.events`."""

    def __init__(self, clients: Clients) -> None:
        self._clients = clients

    async def publish(
        self, name: str, payload: Any = None, *, id: str | None = None, metadata: Mapping[str, str] | None = None
    ) -> EventRef:
        """Publish an event; returns once it is stored.

        Args:
            name: tokens joined by dots, without spaces, `*`, `>` or empty tokens.
            payload: anything that can be JSON.
            id: of the publisher's own; publishing it twice within two minutes stores it once.
            metadata: given to the runs that it starts.

        Raises:
            InvalidName: no event can have this name.
            InvalidInput: the payload can't be JSON.
            PayloadTooLarge: it is larger than the mesh carries.
            Unavailable: the server refused it, or was away for PUBLISH_S.
        """
        ready = _ready(Event(name, payload, id or "", metadata))
        return await _store(self._clients.here(), ready)

    def publish_sync(self, name: str, payload: Any = None, *, id: str | None = None, metadata: Mapping[str, str] | None = None) -> EventRef:
        """`publish` for code without an event loop."""
        return self._clients.block(lambda: self.publish(name, payload, id=id, metadata=metadata), "mesh.events.publish")

    async def publish_many(self, events: Iterable[Event | tuple[str, Any]]) -> list[EventRef]:
        """Publish any number of events, in order; returns once all are stored.

        Args:
            events: `Event(name, payload, id=…)`, or pairs of name and payload; all are checked before the first is published.

        Raises:
            As `publish`; what was stored before stays.
        """
        ready = [_ready(event if isinstance(event, Event) else Event(*event)) for event in events]
        client = self._clients.here()
        stored: list[EventRef] = []
        for at in range(0, len(ready), AHEAD_MAX):
            stored += await _store_together(client, ready[at : at + AHEAD_MAX])
        return stored

    def publish_many_sync(self, events: Iterable[Event | tuple[str, Any]]) -> list[EventRef]:
        """`publish_many` for code without an event loop."""
        return self._clients.block(lambda: self.publish_many(events), "mesh.events.publish_many")


@dataclass(frozen=True, slots=True)
class _Ready:
    """An event, checked and written."""

    name: str
    data: bytes
    id: str
    message_id: str
    metadata: str
    """As the header carries it, "" for none."""


def _ready(event: Event) -> _Ready:
    name = _checked_name(event.name)
    if event.id and not (len(event.id) <= ID_CHARACTERS_MAX and event.id.isprintable()):
        raise InvalidInput(f"id of event {name!r} is {event.id!r}: use 1 to {ID_CHARACTERS_MAX} printable characters")
    metadata = metadata_of(event.metadata, f"metadata of event {name!r}", InvalidInput)
    text = json.dumps(metadata) if metadata else ""  # ASCII, as a header's value must be
    return _Ready(name, _dump(event.payload), event.id, event.id or secrets.token_hex(12), text)


def _checked_name(name: object) -> str:
    if not isinstance(name, str) or not name.isprintable():
        raise InvalidName(f"event name {name!r} can't be a subject: use printable characters")
    return check_event_name(name)


async def _store(client: Client, event: _Ready) -> EventRef:
    """Store an event; tried again, under the same message id, while the server is away."""
    backoff = Backoff(0.05, 0.5)
    last: TransportError | None = None
    try:
        async with asyncio.timeout(PUBLISH_S):
            while True:
                try:
                    return EventRef(event.name, await _append(await client.bus(), client, event), event.id)
                except (TimedOut, Disconnected, Busy) as error:
                    last = error
                await backoff.wait(client.leader.news)
    except TimeoutError:
        raise Unavailable(f"event {event.name!r} was not stored within {PUBLISH_S:g} s: {last or 'no answer'}") from last
    except TransportError as error:
        raise _refusal(client, event, error) from error


def _append(bus: Bus, client: Client, event: _Ready) -> asyncio.Future[int]:
    subject = client.subjects.event(event.name)
    if event.metadata:
        lines = header("Nats-Msg-Id", event.message_id) + header(METADATA_HEADER, event.metadata)
        return cast("_HeaderBus", bus).store(subject, event.data, lines, STORE_S)
    return bus.append_soon(subject, event.data, message_id=event.message_id, timeout=STORE_S)


async def _store_together(client: Client, events: list[_Ready]) -> list[EventRef]:
    """Send all at once, then go after those whose fate is open."""
    bus = await client.bus()
    sent = await asyncio.gather(*(_append(bus, client, event) for event in events), return_exceptions=True)
    refs = []
    for event, result in zip(events, sent, strict=True):
        if isinstance(result, TimedOut | Disconnected | Busy):
            refs.append(await _store(client, event))
        elif isinstance(result, TransportError):
            raise _refusal(client, event, result) from result
        elif isinstance(result, BaseException):
            raise result
        else:
            refs.append(EventRef(event.name, result, event.id))
    return refs


def _refusal(client: Client, event: _Ready, error: TransportError) -> MeshError:
    namespace = client.subjects.namespace
    if isinstance(error, StreamMissing):
        return Unavailable(
            f"event {event.name!r} was not stored: no scheduler has set up the namespace {namespace!r} on "
            f"{', '.join(client.settings.servers)}: start one with `mesh scheduler`, or check MESH_URL and MESH_NAMESPACE"
        )
    if isinstance(error, StreamFull):
        return Unavailable(f"event {event.name!r} was not stored: the namespace {namespace!r} holds all the events it may; try again later")
    return Unavailable(f"event {event.name!r} was not stored: {error}")
