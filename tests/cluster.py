"""Three nats-servers that form a cluster, for tests of replicated streams."""

from __future__ import annotations

import socket
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

from mesh.server import EmbeddedServer


class Cluster:
    """Servers `n0`, `n1`, `n2` on free ports of the loopback, each with a store of its own under `folder`."""

    def __init__(self, folder: Path, *, size: int = 3, sync: str | None = "always", advertise: bool = True) -> None:
        routes = _free_ports(size)
        hidden = "" if advertise else ", no_advertise: true"
        urls = ", ".join(f"nats://127.0.0.1:{port}" for port in routes)
        self.servers = [
            EmbeddedServer(
                folder / f"n{index}",
                name=f"n{index}",
                sync=sync,
                extra=f"cluster {{ name: tests, listen: 127.0.0.1:{port}, routes: [{urls}]{hidden} }}\n",
            )
            for index, port in enumerate(routes)
        ]

    @property
    def url(self) -> str:
        """All of them, comma separated."""
        return ",".join(server.url for server in self.servers)

    def start(self) -> Cluster:
        """Start all and wait until JetStream has its leader."""
        with ExitStack() as undo:
            undo.callback(self.stop)
            for server in self.servers:
                server.launch()
            for server in self.servers:
                server.wait_ready()
            undo.pop_all()
        return self

    def stop(self) -> None:
        for server in self.servers:
            server.stop()

    def __enter__(self) -> Cluster:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()


def _free_ports(count: int) -> list[int]:
    # Held open together, so that they differ.
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
