"""What can go wrong between here and the server: the one place that maps foreign errors.

Internal to the mesh: loops handle these by kind. What reaches a user is a `mesh_sdk.errors.MeshError`.

```
TransportError
├── Disconnected          no connection; nothing was sent, or its fate is unknown
├── TimedOut              no answer in time; its fate is unknown
├── NoResponders
├── Damaged               what was read is not what was written
└── Refused               the server's own answer
    ├── WrongSequence
    ├── Busy              the same again, later
    ├── StreamFull        the same again, when there is room
    ├── TooFewServers     fewer than the copies that were asked for
    └── StreamMissing     the same again, when somebody has made it
```
"""

from __future__ import annotations

from msgspec import Struct


class TransportError(Exception):
    """Base of everything that the transport raises."""


class Disconnected(TransportError):
    """There is no connection right now; nothing was sent, or its fate is unknown."""


class TimedOut(TransportError):
    """No answer in time; what was asked for may have happened."""


class NoResponders(TransportError):
    """Nobody listens on the subject."""


class Damaged(TransportError):
    """What was read is not what was written: a chunk is missing or a digest differs."""


class Refused(TransportError):
    """The server answered with an error.

    Attributes:
        code: the server's `err_code`, 0 when it gave none.
    """

    def __init__(self, message: str, code: int = 0) -> None:
        super().__init__(message)
        self.code = code


class WrongSequence(Refused):
    """An expected last sequence does not hold: somebody else wrote (10071)."""


class Busy(Refused):
    """Can't be done now: another write is under way (10164) or no server leads. Try the same again."""


class StreamFull(Refused):
    """The stream (or the server's storage) is at its limit and refuses new messages."""


class TooFewServers(Refused):
    """The cluster does not know as many servers as a stream shall have copies; one that is down for now is known."""


class StreamMissing(Refused):
    """There is no such stream (or consumer)."""


NO_RESPONDERS = 503
"""The code of an answer that says that nobody listens, in headers and as `Refused.code`."""

CODE_NO_PLACE = 10005
CODE_CONSUMER_EXISTS = 10148
CODE_NO_MESSAGE = 10037
CODE_STREAM_NAME_IN_USE = 10058

_KINDS: dict[int, type[Refused]] = {
    10071: WrongSequence,
    10158: Busy,  # a message of this id is being stored (clustered streams): the next answer tells whether it was
    10164: Busy,  # another write with an expectation on this subject is in flight (clustered streams)
    10008: Busy,  # JetStream temporarily unavailable: an election is under way
    10009: Busy,  # not the leader
    10176: Busy,  # the server lost the beginning of an atomic batch: nothing of it was stored
    10210: Busy,  # too many open batches
    10002: StreamFull,  # limits of the account
    10023: StreamFull,  # insufficient resources
    10028: StreamFull,  # limits of the server's memory
    10047: StreamFull,  # limits of the server's storage
    10077: StreamFull,  # the store refused: maximum bytes or messages exceeded, no space left
    10074: TooFewServers,  # no cluster at all
    10059: StreamMissing,
    10014: StreamMissing,  # consumer not found
}


def refusal(code: int, description: str, what: str) -> Refused:
    """The error for what the server answered.

    Args:
        code: the server's `err_code`.
        description: the server's text.
        what: the subject or call that was refused.
    """
    kind = _no_place(description) if code == CODE_NO_PLACE else _KINDS.get(code, Refused)
    return kind(f"{what}: {description or 'refused'} ({code})", code)


def _no_place(description: str) -> type[Refused]:
    """What it is that a cluster lacks; only the text says."""
    lacks = description.lower().partition("no suitable peers for placement")[2].strip(" ,.")
    if "insufficient storage" in lacks:
        return StreamFull
    return Refused if lacks else TooFewServers


class ServerError(Struct):
    """The error inside an answer of the JetStream API."""

    code: int = 0
    err_code: int = 0
    description: str = ""
