"""Everything the core may be told, beside the wire's own records (`Start`, `Cancel` and the reports of workers).

Each input comes with its sender: the client's or worker's name as its frame gives it.
"""

from __future__ import annotations

from typing import NamedTuple

from msgspec import Raw, Struct

from mesh_sdk.protocol.records import Start


class Sender(NamedTuple):
    """Who sent a wire record. `incarnation` is "" for a client."""

    name: str
    incarnation: str = ""
    time_ms: int = 0
    """Server time at which its frame was stored."""
    priority: int = 0
    """Of the subject that a start was stored under."""
    resent: bool = False


SELF = Sender("")
"""Inputs of the scheduler's own."""


class Input(Struct, gc=False):
    """Base of the scheduler's own inputs."""


class TermBegan(Input):
    """This scheduler has become the leader."""

    holder: str


class EventArrived(Input):
    """An event was stored; `data` is JSON."""

    sequence: int
    time_ms: int
    name: str
    data: Raw
    metadata: dict[str, str] | None = None


class WorkerVanished(Input):
    """An incarnation is known to be gone."""

    worker: str
    incarnation: str
    reason: str


class TimePassed(Input):
    """Look at the timers."""


class LanesLost(Input):
    """The lanes stream had to be made again."""


class HoldingAsked(Input):
    """Every worker is being asked what it holds, and the lanes that were lost can give nothing any more to one that answers."""

    question: int


class Undeliverable(Input):
    """The order of this attempt is larger than a message may be: no lane can carry it."""

    token: str
    bytes: int
    bytes_max: int


class CancelsPassed(Input):
    """Every start stored before this server time has been decided."""

    before: int


class Unreadable(Input):
    """A message, or the record at `index` of it (-1: the whole), can't be used."""

    source: str
    sequence: int
    index: int
    reason: str
    start: Start | None = None
    """What the record was, if it was a start: its client, the input's sender, is told."""
