"""Servers that answer but can't carry a mesh: without JetStream, or too old."""

from __future__ import annotations

import json
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mesh.cli.app import run
from mesh.server.binary import find_binary


@pytest.fixture
def without_jetstream(tmp_path: Path) -> Iterator[str]:
    server = subprocess.Popen(
        [find_binary(), "-a", "127.0.0.1", "-p", "-1", "--ports_file_dir", tmp_path], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield _url(tmp_path / f"nats-server_{server.pid}.ports")
    finally:
        server.terminate()
        server.wait(10)


def _url(file: Path) -> str:
    deadline = time.monotonic() + 10
    while True:
        assert time.monotonic() < deadline, "the server did not start"
        try:
            return json.loads(file.read_text())["nats"][0]
        except (FileNotFoundError, json.JSONDecodeError):
            time.sleep(0.01)


@pytest.fixture
def too_old() -> Iterator[str]:
    """Greets as an old server would, and answers pings."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        host, port = listener.getsockname()
        thread = threading.Thread(target=_greet, args=(listener,))
        thread.start()
        yield f"nats://{host}:{port}"
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(10)


def _greet(listener: socket.socket) -> None:
    info = {"server_id": "OLD", "version": "2.9.25", "proto": 1, "headers": True, "jetstream": True, "max_payload": 1 << 20}
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        with connection, connection.makefile("rb") as lines:
            connection.sendall(f"INFO {json.dumps(info)}\r\n".encode())
            for line in lines:
                if line.startswith(b"PING"):
                    connection.sendall(b"PONG\r\n")


def _one_line(capfd: pytest.CaptureFixture[str]) -> str:
    out, error = capfd.readouterr()
    assert out == ""
    assert error.count("\n") == 1
    return error


def test_a_server_without_jetstream_is_unsuitable(without_jetstream, capfd):
    assert run(["runs", "list", "--url", without_jetstream]) == 5
    assert "JetStream" in _one_line(capfd)


def test_a_server_too_old_is_unsuitable(too_old, capfd):
    assert run(["runs", "list", "--url", too_old]) == 5
    assert "2.9.25" in _one_line(capfd)
