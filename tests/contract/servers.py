"""A nats-server of a test's own: started, killed, started again on the same store."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sysconfig
import time
from pathlib import Path

_READY_S = 20.0


def binary() -> str:
    """Where the nats-server is; a test without one fails."""
    found = shutil.which("nats-server", path=sysconfig.get_path("scripts")) or shutil.which("nats-server")
    assert found, "no nats-server: install the extra [server]"
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """One server on a free port of the loopback, with its store under `folder`."""

    def __init__(self, folder: Path, *, jetstream: bool = True) -> None:
        self.port = free_port()
        self.url = f"nats://127.0.0.1:{self.port}"
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        store = f'jetstream {{ store_dir: "{folder / "store"}", sync_interval: always }}\n' if jetstream else ""
        (folder / "nats.conf").write_text(f"listen: 127.0.0.1:{self.port}\n{store}")

    def start(self) -> Server:
        command = [binary(), "-c", str(self._folder / "nats.conf"), "-l", str(self._folder / "nats.log")]
        self._process = subprocess.Popen(command)
        deadline = time.monotonic() + _READY_S
        while time.monotonic() < deadline:
            try:
                with socket.create_connection(("127.0.0.1", self.port), 1) as connection:
                    connection.settimeout(5)
                    if connection.recv(4) == b"INFO":
                        return self
            except OSError:
                assert self._process.poll() is None, (self._folder / "nats.log").read_text()
                time.sleep(0.01)
        raise AssertionError("the server did not start")

    def kill(self) -> None:
        """As kill -9 does."""
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)
            self._process.kill()
            self._process.wait()
            self._process = None

    def freeze(self) -> None:
        """Stop it where it stands; returns when every thread has stopped."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGSTOP)
        threads = Path(f"/proc/{self._process.pid}/task")
        deadline = time.monotonic() + _READY_S
        while any((each / "stat").read_text().rpartition(")")[2].split()[0] != "T" for each in threads.iterdir()):
            assert time.monotonic() < deadline, "the server did not stop"
            time.sleep(0.001)

    def thaw(self) -> None:
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGCONT)
