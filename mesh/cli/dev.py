"""`mesh dev`: an embedded server, a scheduler and the user's worker, each a process of its own, together in one go.

Rule: it owns everything that it starts: what dies is started again, and nothing is left when it ends.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from mesh.cli import options
from mesh.cli.exits import Exit
from mesh.cli.sources import Sources
from mesh.cli.supervisor import Child, ChildFailed, Stopped, Supervisor, mesh_command, port_arguments
from mesh.cli.where import DEV_FILE
from mesh.errors import PortTaken
from mesh.server import EmbeddedServer
from mesh_sdk.config import NAMESPACE_DEFAULT, URL_DEFAULT
from mesh_sdk.protocol.subjects import check_token

PORT = 4222
"""NATS's own, so that clients find a dev mesh without being told."""
POLL_S = 0.5


@click.command("dev")
@click.argument("module", required=False, metavar="[MODULE[:ATTR]]")
@click.option("--reload", is_flag=True, help="Start the worker again when a .py file below the current directory changes.")
@click.option("--port", type=click.IntRange(1, 65535), help=f"For NATS; {PORT} unless that is taken.")
@click.option(
    "--store", type=click.Path(path_type=Path, file_okay=False), default=Path(".mesh"), show_default=True, help="Folder of the data."
)
@options.namespace
@options.metrics_port
@click.option("--log-level", default="info", show_default=True, help="Of the processes that it starts.")
def command(
    module: str | None, reload: bool, port: int | None, store: Path, namespace: str | None, metrics_port: int | None, log_level: str
) -> int:
    """Run an embedded NATS, a scheduler, and the worker of MODULE if one is given, until Ctrl-C or SIGTERM.

    Data stays in the store over stops. Prints a line that starts with `ready` once all of it is; other commands of
    this folder find it by themselves. With --metrics-port the scheduler serves there and the worker one above.
    """
    chosen = check_token("namespace", namespace or os.environ.get("MESH_NAMESPACE") or "default")
    server = _start_server(store, port)
    try:
        dev = _Dev(server, chosen, metrics_port, log_level)
        return dev.run(module, Sources(Path.cwd()) if reload and module else None)
    finally:
        server.stop()


def _start_server(store: Path, port: int | None) -> EmbeddedServer:
    try:
        return EmbeddedServer(store, port=port or PORT).start()
    except PortTaken:
        if port is not None:
            raise
        return EmbeddedServer(store).start()


class _Dev:
    """The processes of one `mesh dev`."""

    def __init__(self, server: EmbeddedServer, namespace: str, metrics_port: int | None, log_level: str) -> None:
        self._server = server
        self._namespace = namespace
        self._metrics_port = metrics_port
        self._log_level = log_level
        self._supervisor = Supervisor(on_change=self._write_file)

    def run(self, module: str | None, sources: Sources | None) -> int:
        """Start the children, say ready, keep them until a signal, end them."""
        scheduler = self._child("scheduler", ["scheduler"], 0)
        worker = self._child("worker", ["worker", module], 1) if module else None
        with self._supervisor.signals(), self._file():
            try:
                self._bring_up(scheduler, worker, sources)
                self._supervisor.watch(POLL_S, lambda: self._tend(worker, sources))
            except Stopped:
                return Exit.OK
            except ChildFailed as error:
                click.echo(f"mesh: {error}", err=True)
                return error.code or Exit.FAILED
            finally:
                self._supervisor.end_all()

    def _bring_up(self, scheduler: Child, worker: Child | None, sources: Sources | None) -> None:
        self._supervisor.start(scheduler)
        self._supervisor.wait_ready(scheduler)
        if worker is not None:
            self._supervisor.start(worker)
            try:
                self._supervisor.wait_ready(worker)
            except ChildFailed as error:
                if sources is None:
                    raise
                click.echo(f"mesh: {error}; it is started again when a file changes", err=True)
        if (self._server.url, self._namespace) != (URL_DEFAULT, NAMESPACE_DEFAULT):
            click.echo(f"for programs in other terminals: export MESH_URL={self._server.url} MESH_NAMESPACE={self._namespace}")
        click.echo(f"ready {self._server.url} namespace {self._namespace}")

    def _tend(self, worker: Child | None, sources: Sources | None) -> None:
        if not self._server.running:
            click.echo("the embedded nats-server has ended; starting it again", err=True)
            self._server.restart()
            self._write_file()
        if worker is None or sources is None:
            return
        changed = sources.changed()
        if changed:
            rest = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
            click.echo(f"{os.path.relpath(changed[0])}{rest} changed: starting the worker again", err=True)
            self._supervisor.end(worker)
            self._supervisor.start(worker)

    def _child(self, name: str, arguments: list[str], offset: int) -> Child:
        # As options, so that they win over what the user's module says.
        where = ["--url", self._server.url, "--namespace", self._namespace, "--log-level", self._log_level]
        return Child(name, mesh_command(*arguments, *where, *port_arguments(self._metrics_port, offset)), dict(os.environ))

    @contextmanager
    def _file(self) -> Iterator[None]:
        try:
            self._write_file()
            yield
        finally:
            DEV_FILE.unlink(missing_ok=True)

    def _write_file(self) -> None:
        pids = {"dev": os.getpid(), "server": self._server.pid} | {child.name: child.pid for child in self._supervisor.children}
        DEV_FILE.parent.mkdir(exist_ok=True)
        fresh = DEV_FILE.with_suffix(".new")
        fresh.unlink(missing_ok=True)
        with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            json.dump({"url": self._server.url, "namespace": self._namespace, "pids": pids}, file, indent=2)
        fresh.replace(DEV_FILE)  # readers see the old one or the new one, never half of one
