"""The embedded nats-server: one process, one store, one lock, from `start` to `stop`.

Rule: it never outlives the process that started it, and never shares its store.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

from mesh.errors import PortTaken, ServerStartFailed
from mesh.server.binary import Version, check_version, find_binary
from mesh.server.configuration import HOST, ServerConfiguration
from mesh.server.lock import StoreLock
from mesh.server.probe import NotReady, ask_jetstream
from mesh.server.spawn import spawn

STORE = ".mesh"
READY_S = 20.0
STOP_S = 15.0
PROBE_S = 1.0
_POLL_S = 0.005
_LOG_TAIL_BYTES = 16_384


class EmbeddedServer:
    """A nats-server with JetStream on 127.0.0.1.

    Args:
        store: folder of its data, configuration and log; `.mesh` of the current directory unless given. Data stays
            there over stops and starts.
        port: what to listen on; None lets the server choose a free one, and keeps it over restarts.
        sync: how often the disk is synced: "always" (nothing acknowledged is lost, not even to a power cut), a duration,
            or None for the server's own default (two minutes).
        binary: path of the executable; else it is found (see `find_binary`).
        settings: further fields of `ServerConfiguration`.

    Example:
        with EmbeddedServer(tmp_path) as server:
            mesh = Mesh(url=server.url)
    """

    def __init__(
        self,
        store: str | Path | None = None,
        *,
        port: int | None = None,
        sync: str | None = "always",
        binary: str | Path | None = None,
        **settings: Any,
    ) -> None:
        folder = Path(store if store is not None else STORE).absolute()
        self._configuration = ServerConfiguration(store=folder, port=port or -1, sync=sync, **settings)
        self._binary = binary
        self._lock = StoreLock(folder)
        self._process: subprocess.Popen[bytes] | None = None
        self.version: Version | None = None

    @property
    def store(self) -> Path:
        """Folder of its data, configuration and log."""
        return self._configuration.store

    @property
    def log(self) -> Path:
        """Its log file."""
        return self._configuration.log

    @property
    def port(self) -> int:
        """What it listens on; known once it has been started."""
        if self._configuration.port == -1:
            raise ServerStartFailed("the port is chosen by the server: start it first")
        return self._configuration.port

    @property
    def url(self) -> str:
        """Where clients connect."""
        return f"nats://{HOST}:{self.port}"

    @property
    def pid(self) -> int:
        """Its process id."""
        if self._process is None:
            raise ServerStartFailed("the server is not running: start it first")
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether its process lives."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> EmbeddedServer:
        """Start it and wait until JetStream answers.

        Raises:
            ServerBinaryMissing: no executable, or one too old.
            StoreLocked: another process has a server on this store.
            PortTaken: something else listens on the port.
            ServerStartFailed: it ended, or did not answer in time; the message has the last line of its log.
        """
        self.launch()
        try:
            self.wait_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def launch(self) -> None:
        """Start the process without waiting, as the members of a cluster need it: they become ready together."""
        if self.running:
            return
        binary = find_binary(self._binary)
        self.version = check_version(binary)
        self._prepare_store()
        self._lock.acquire()
        try:
            self._configuration.file.write_text(self._configuration.render())
            self._forget_ports()
            self._process = spawn(
                [binary, "-c", self._configuration.file],
                inherit=[self._lock.file],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        except BaseException:
            self._lock.release()
            raise

    def wait_ready(self, timeout: float = READY_S) -> None:
        """Wait until the launched process listens and its JetStream answers.

        Args:
            timeout: seconds.

        Raises:
            PortTaken, ServerStartFailed: as `start`.
        """
        deadline = time.monotonic() + timeout
        doubt = "it does not listen"
        while (left := deadline - time.monotonic()) > 0:
            if not self.running:
                raise self._why_it_ended()
            try:
                self._learn_port()
                ask_jetstream(HOST, self.port, min(left, PROBE_S))
            except NotReady as error:
                doubt = str(error)
                time.sleep(_POLL_S)
            else:
                return
        raise ServerStartFailed(f"nats-server was not ready within {timeout:g} s: {doubt}; its log is {self.log}")

    def stop(self, timeout: float = STOP_S) -> None:
        """End it in good order (SIGTERM, after `timeout` seconds SIGKILL) and release the store. May be called twice."""
        self._end(timeout)
        self._lock.release()

    def kill(self) -> None:
        """End it as a crash would (SIGKILL). The store stays locked for a `restart`."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def restart(self) -> EmbeddedServer:
        """Start it again on the same port and store, whether it runs or was killed."""
        self._end(STOP_S)
        return self.start()

    def __enter__(self) -> EmbeddedServer:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    async def __aenter__(self) -> EmbeddedServer:
        return await asyncio.to_thread(self.start)

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await asyncio.to_thread(self.stop)

    def _end(self, timeout: float) -> None:
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def _prepare_store(self) -> None:
        try:
            self._configuration.ports.mkdir(parents=True, exist_ok=True)
            ignore = self.store / ".gitignore"
            if not ignore.exists():
                ignore.write_text("*\n")
        except OSError as error:
            raise ServerStartFailed(f"the store {self.store} can't be used: {error}; choose a folder that can be written") from error

    def _forget_ports(self) -> None:
        for file in self._configuration.ports.glob("*.ports"):
            file.unlink()

    def _learn_port(self) -> None:
        # Also with a port of our choice: until the server has written it down, whoever answers there is somebody else.
        for file in self._configuration.ports.glob(f"*_{self.pid}.ports"):
            try:
                urls = json.loads(file.read_text())["nats"]
            except json.JSONDecodeError:  # still being written
                break
            self._configuration = replace(self._configuration, port=int(urls[0].rpartition(":")[2]))
            return
        raise NotReady("it has not written its port yet")

    def _why_it_ended(self) -> ServerStartFailed:
        tail = self._log_tail()
        if "address already in use" in tail:
            return PortTaken(f"port {self._configuration.port} of {HOST} is taken by another process: choose another port, or stop it")
        fatal = [line for line in tail.splitlines() if "[FTL]" in line or "[ERR]" in line]
        reason = fatal[-1].partition("] ")[2] if fatal else "no reason in its log"
        return ServerStartFailed(f"nats-server ended at once: {reason}; its log is {self.log}")

    def _log_tail(self) -> str:
        """Of this process's lines only: the log is kept over starts."""
        if not self.log.exists():
            return ""
        with self.log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _LOG_TAIL_BYTES))
            text = file.read().decode(errors="replace")
        mine = f"[{self._process.pid}] " if self._process else ""
        return "\n".join(line for line in text.splitlines() if line.startswith(mine))
