"""The NATS servers of a chaos run: one, or a cluster of three.

Rule: they tell no client about one another, so that every way leads through the network of the run.
"""

from __future__ import annotations

import asyncio
import errno
import json
import os
import signal
import subprocess
from pathlib import Path

from mesh.server import EmbeddedServer
from mesh_sdk.errors import MeshError
from mesh_sdk.transport.connection import connect
from mesh_sdk.transport.errors import TransportError
from tests.cluster import _free_ports

FILE_STORE_MAX = 16 << 30
SMALL_DISK_MIB = 192
FILLER = "filler"
CHUNK = bytes(1 << 20)
ASK_S = 2.0


class Servers:
    """Servers `n0`, …, the last one with its store on a small disk of its own if this machine lets us make one.

    Args:
        folder: of their stores.
        size: 1 or 3.
    """

    def __init__(self, folder: Path, size: int) -> None:
        self.down: set[int] = set()
        self.small_disk: Path | None = None
        routes = _free_ports(size)
        urls = ", ".join(f"nats://127.0.0.1:{port}" for port in routes)
        stores = [folder / f"n{index}" for index in range(size)]
        if _mounted(stores[-1]):
            self.small_disk = stores[-1]
        self._each = [
            EmbeddedServer(
                store,
                name=f"n{index}",
                max_file_store=FILE_STORE_MAX,
                ping_interval="2s",
                extra=f"cluster {{ name: chaos, listen: 127.0.0.1:{routes[index]}, routes: [{urls}], no_advertise: true }}\n" * (size > 1),
            )
            for index, store in enumerate(stores)
        ]

    def __len__(self) -> int:
        return len(self._each)

    @property
    def url(self) -> str:
        """All of them, past the network."""
        return ",".join(server.url for server in self._each)

    @property
    def ports(self) -> list[int]:
        return [server.port for server in self._each]

    @property
    def logs(self) -> list[Path]:
        return [server.log for server in self._each]

    def start(self) -> None:
        """Start those that are not running, and wait until they answer."""
        for server in self._each:
            server.launch()
        for server in self._each:
            server.wait_ready()
        self.down.clear()

    def kill(self, *which: int) -> None:
        """SIGKILL, all before the first has been waited for."""
        self.down.update(which)
        for index in which:
            os.kill(self._each[index].pid, signal.SIGKILL)
        for index in which:
            self._each[index].kill()

    def restart(self, index: int) -> None:
        """Start it again (after a SIGTERM, if it runs), and wait until it answers."""
        self.down.add(index)
        self._each[index].restart()
        self.down.discard(index)

    def send(self, index: int, number: signal.Signals) -> None:
        os.kill(self._each[index].pid, number)

    def fill(self) -> None:
        """Leave the small disk no room."""
        assert self.small_disk is not None
        with (self.small_disk / FILLER).open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(CHUNK)
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise

    def free(self) -> None:
        """Make room again."""
        assert self.small_disk is not None
        (self.small_disk / FILLER).unlink(missing_ok=True)

    async def leader(self, stream: str) -> int | None:
        """Which server leads a stream; None when nobody says so."""
        try:
            bus = await connect(self.url.split(","), name="chaos asks", connect_timeout=ASK_S)
        except MeshError:
            return None
        try:
            answer = json.loads(await bus.request(f"$JS.API.STREAM.INFO.{stream}", b"", ASK_S))
            name = str(answer.get("cluster", {}).get("leader", ""))
            return int(name[1:]) if name else None
        except TransportError:
            return None
        finally:
            await asyncio.shield(bus.close())

    def stop(self) -> None:
        """End all, and give the small disk back."""
        for server in self._each:
            if server.running:
                os.kill(server.pid, signal.SIGCONT)
            server.stop()
        if self.small_disk is not None:
            subprocess.run(["umount", self.small_disk], check=True)


def _mounted(folder: Path) -> bool:
    folder.mkdir(parents=True)
    try:
        made = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SMALL_DISK_MIB}m", "chaos", folder], capture_output=True, check=False)
    except FileNotFoundError:
        return False
    return made.returncode == 0
