"""Message headers and reply subjects as they stand on the wire. Pure; bytes in, bytes out.

Rule: whatever a header is made of has passed `header()`, so that no value can forge another line.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import NamedTuple

NO_HEADERS = b""

_VERSION = b"NATS/1.0"
_STATUS_END = len(_VERSION) + 4


def header(name: str, value: str | int) -> bytes:
    """One header line.

    Raises:
        ValueError: when the value holds a line break or another control character.
    """
    text = str(value)
    if not text.isprintable():
        raise ValueError(f"header {name}: {text!r} holds control characters")
    return f"{name}: {text}\r\n".encode()


def ttl_header(ttl_s: float) -> bytes:
    """The line that has the server remove a message after this many seconds (at least one)."""
    return b"Nats-TTL: %dms\r\n" % round(ttl_s * 1000)


def status(raw: bytes | None) -> int:
    """The status in front of the headers (404, 503…); 0 when there is none."""
    if raw is None or raw[len(_VERSION) : len(_VERSION) + 1] != b" ":
        return 0
    code = raw[len(_VERSION) + 1 : _STATUS_END]
    return int(code) if code.isdigit() else 0


def description(raw: bytes) -> str:
    """The text behind the status, in lower case."""
    return raw[_STATUS_END:].split(b"\r\n", 1)[0].strip().decode("utf-8", "replace").lower()


def value(raw: bytes | None, name: bytes) -> bytes | None:
    """The first value of one header; None when it is not there."""
    if raw is None:
        return None
    start = raw.find(b"\r\n" + name + b":")
    if start < 0:
        return None
    start += len(name) + 3
    return raw[start : raw.index(b"\r\n", start)].strip()


def number(raw: bytes | None, name: bytes) -> int:
    """The value of a header that is a number; 0 when it is not there or none."""
    found = value(raw, name)
    return int(found) if found is not None and found.isdigit() else 0


def parse(raw: bytes) -> dict[str, str]:
    """All headers; the last one wins where a name stands twice."""
    found: dict[str, str] = {}
    for line in raw.decode("utf-8", "replace").split("\r\n")[1:]:
        name, colon, text = line.partition(":")
        if colon:
            found[name] = text.strip()
    return found


def time_ns(text: str) -> int:
    """Nanoseconds since 1970 of a server's timestamp (RFC 3339 with up to nine decimals, in UTC).

    Raises:
        ValueError: when it is none.
    """
    whole, _, fraction = text.rstrip("Z").partition(".")
    seconds = int(datetime.fromisoformat(whole).replace(tzinfo=UTC).timestamp())
    return seconds * 1_000_000_000 + int(fraction.ljust(9, "0")[:9] or "0")


class Origin(NamedTuple):
    """Where a delivery comes from, as its acknowledgement subject says."""

    deliveries: int
    sequence: int
    consumer_sequence: int
    time_ns: int
    pending: int


def origin(reply: bytes) -> Origin:
    """Read `$JS.ACK.<stream>.<consumer>.<deliveries>.<sequence>.<consumer sequence>.<time>.<pending>`.

    The newer form has domain and account behind `ACK`, and perhaps a token at the end.

    Raises:
        ValueError, IndexError: when it is no such subject.
    """
    parts = reply.split(b".")
    at = 4 if len(parts) == 9 else 6
    return Origin(int(parts[at]), int(parts[at + 1]), int(parts[at + 2]), int(parts[at + 3]), int(parts[at + 4]))
