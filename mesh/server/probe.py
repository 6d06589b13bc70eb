"""Asks a nats-server, over a plain socket, what it is and whether its JetStream answers.

Rule: needs nothing but the standard library and never waits longer than it is told, so it can stand at every start.
It speaks to servers that need no credentials: our own, on the loopback.
"""

from __future__ import annotations

import json
import socket
import time
from typing import Any, BinaryIO

_SUBJECT = "$JS.API.INFO"
_INBOX = "_INBOX.mesh.probe"


class NotReady(Exception):
    """The server does not answer as it should; the message says at what point."""


def ask_jetstream(host: str, port: int, timeout: float) -> dict[str, Any]:
    """Connect and have JetStream say how it is.

    Args:
        timeout: seconds for all of it.

    Returns:
        The server's INFO, with its JetStream account under "jetstream_account".

    Raises:
        NotReady: when it can't be reached, is no nats-server, or JetStream doesn't answer in time.
    """
    deadline = time.monotonic() + timeout
    try:
        with socket.create_connection((host, port), timeout=timeout) as connection, connection.makefile("rb") as lines:
            info = _greeting(lines)
            options = json.dumps({"verbose": False, "pedantic": False, "headers": True, "no_responders": True, "lang": "mesh-probe"})
            connection.sendall(f"CONNECT {options}\r\nSUB {_INBOX} 1\r\nPUB {_SUBJECT} {_INBOX} 0\r\n\r\nPING\r\n".encode())
            info["jetstream_account"] = _answer(connection, lines, deadline)
            return info
    except OSError as error:
        raise NotReady(f"{host}:{port}: {error}") from error


def _greeting(lines: BinaryIO) -> dict[str, Any]:
    line = lines.readline()
    if not line.startswith(b"INFO "):
        raise NotReady("what listens there is no nats-server")
    info: dict[str, Any] = json.loads(line[5:])
    if not info.get("jetstream"):
        raise NotReady("the server has no JetStream")
    return info


def _answer(connection: socket.socket, lines: BinaryIO, deadline: float) -> dict[str, Any]:
    while (left := deadline - time.monotonic()) > 0:
        connection.settimeout(left)
        line = lines.readline()
        if not line or line.startswith(b"-ERR"):
            raise NotReady(line.decode(errors="replace").strip() or "the server closed the connection")
        if line.startswith(b"HMSG"):
            raise NotReady("JetStream does not listen yet")
        if line.startswith(b"MSG"):
            answer: dict[str, Any] = json.loads(lines.read(int(line.split()[-1])))
            if "error" in answer:
                raise NotReady(str(answer["error"].get("description")))
            return answer
        if line.startswith(b"PING"):
            connection.sendall(b"PONG\r\n")
    raise NotReady("JetStream did not answer in time")
