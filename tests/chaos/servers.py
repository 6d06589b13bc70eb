"""The NATS servers of a chaos run: one, or a cluster of three.

Rule: they tell no client about one another, and reach one another through proxies only, so that every way leads through a network of
the run.
"""

from __future__ import annotations

import asyncio
import errno
import json
import os
import random
import signal
import socket
import subprocess
import urllib.request
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from mesh.server import EmbeddedServer
from mesh_sdk.errors import MeshError
from mesh_sdk.transport.connection import connect
from mesh_sdk.transport.errors import TransportError
from tests.chaos.network import Mode, Network

FILE_STORE_MAX = 16 << 30
SMALL_DISK_MIB = 192
FILLER = "filler"
CHUNK = bytes(1 << 20)
ASK_S = 2.0
READY_S = 60.0
"""It may be cut off from the others while it starts."""
PORTS = range(20_000, 32_000)
"""Below those that outgoing connections get: a server that comes back finds its own free."""
NOWHERE = 9
"""The servers give out this port as theirs to one another, lest they learn of a way past the proxies; nothing listens there."""
OPPOSITE = {Mode.DEAF: Mode.MUTE, Mode.MUTE: Mode.DEAF}


class Servers:
    """Servers `n0`, …, the last one with its store on a small disk of its own if this machine lets us make one.

    Args:
        folder: of their stores.
        size: 1 or 3.
    """

    def __init__(self, folder: Path, size: int) -> None:
        self.down: set[int] = set()
        self.small_disk: Path | None = None
        ports = _free_ports(3 * size)
        clients, self._routes, self.monitors = ports[:size], ports[size : 2 * size], ports[2 * size :]
        self.routes = Network(self._routes)
        """Each server is a process there: what it has of the others' route ports."""
        stores = [folder / f"n{index}" for index in range(size)]
        if _mounted(stores[-1]):
            self.small_disk = stores[-1]
        self._each = [
            EmbeddedServer(
                store,
                name=f"n{index}",
                port=clients[index],
                max_file_store=FILE_STORE_MAX,
                ping_interval="2s",
                extra=self._cluster(index) if size > 1 else "",
            )
            for index, store in enumerate(stores)
        ]

    def _cluster(self, index: int) -> str:
        """The configuration of a member."""
        ways = self.routes.url(f"n{index}").split(",")
        return (
            f"http: 127.0.0.1:{self.monitors[index]}\n"
            f"cluster {{ name: chaos, listen: 127.0.0.1:{self._routes[index]}, advertise: 127.0.0.1:{NOWHERE}, no_advertise: true, "
            f"routes: [{', '.join(way for other, way in enumerate(ways) if other != index)}] }}\n"
        )

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
            server.wait_ready(READY_S)
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
        server = self._each[index]
        if server.running:
            server.stop()
        server.launch()
        server.wait_ready(READY_S)
        self.down.discard(index)

    def part(self, index: int, mode: Mode) -> None:
        """What the ways between one server and all others do from now on; MUTE: it is not heard, DEAF: it does not hear."""
        name = f"n{index}"
        others = [other for other in range(len(self)) if other != index]
        self.routes.set(name, others, mode)
        for other in others:
            self.routes.set(f"n{other}", [index], OPPOSITE.get(mode, mode))

    def direct_routes(self) -> list[str]:
        """Routes that a server has made past the proxies, to the port that another listens on: there should be none."""
        found = []
        for index, monitor in enumerate(self.monitors * (len(self) > 1)):
            with urllib.request.urlopen(f"http://127.0.0.1:{monitor}/routez", timeout=ASK_S) as answer:
                routes: list[dict[str, Any]] = json.load(answer)["routes"]
            found += [f"n{index} to port {each['port']}" for each in routes if each["port"] in self._routes]
        return found

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
        self.routes.close()
        if self.small_disk is not None:
            subprocess.run(["umount", self.small_disk], check=True)


def _mounted(folder: Path) -> bool:
    folder.mkdir(parents=True)
    try:
        made = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SMALL_DISK_MIB}m", "chaos", folder], capture_output=True, check=False)
    except FileNotFoundError:
        return False
    return made.returncode == 0


def _free_ports(count: int) -> list[int]:
    found: list[int] = []
    with ExitStack() as held:  # held open together, so that they differ
        for port in random.sample(PORTS, len(PORTS)):
            tried = held.enter_context(socket.socket())
            try:
                tried.bind(("127.0.0.1", port))
            except OSError:
                continue
            found.append(port)
            if len(found) == count:
                return found
    raise OSError(errno.EADDRINUSE, f"{count} free ports in {PORTS}")
