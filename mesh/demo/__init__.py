"""The demo: the standard library's source, indexed by a real mesh of which two processes are killed on the way.

An embedded NATS server, two schedulers and three workers; one event for each file; see `story` for what happens and
`workflows` for what runs. Rule: whatever happens, no process and no file is left behind.
"""

from __future__ import annotations

import asyncio
import signal
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from rich.console import Console

from mesh.demo.processes import NAMESPACE, Processes
from mesh.demo.report import Check, show_checks
from mesh.demo.stdlib import ROOT, SourceFile, find_files
from mesh.demo.story import SCHEDULERS, WORKERS, Story
from mesh.server import EmbeddedServer
from mesh_sdk import Mesh
from mesh_sdk.errors import MeshError


def run(*, linger_s: float = 0.0, metrics_port: int | None = None) -> int:
    """Run the demo.

    Args:
        linger_s: keep what lives for so long after the verdict, for a look at its metrics.
        metrics_port: of the first scheduler, the other processes have the next ones; None for free ones.

    Returns:
        0 when every check holds, else 1.
    """
    console = Console(highlight=False)
    files = find_files()
    title = "[bold]mesh demo[/bold]: 2 schedulers and 3 workers index the standard library; two of them will be killed"
    console.print(title, soft_wrap=True)
    console.print(f"{len(files)} files of {ROOT}", style="dim", soft_wrap=True)
    with _interruptible(), tempfile.TemporaryDirectory(prefix="mesh-demo-") as folder, EmbeddedServer(Path(folder) / "nats") as server:
        processes = Processes(server.url, Path(folder), metrics_port, SCHEDULERS + WORKERS)
        try:
            holds = asyncio.run(_tell(console, server.url, processes, files))
            if linger_s:
                _linger(console, linger_s)
        except MeshError:
            for each in processes.all:
                console.print(each.tail(), markup=False, soft_wrap=True)
            raise
        finally:
            with _uninterrupted():
                wrong = processes.end()
        drained = Check("all that was left drained on SIGTERM and ended with 0", not wrong, ", ".join(wrong))
        return 0 if show_checks(console, [drained]) and holds else 1


async def _tell(console: Console, url: str, processes: Processes, files: Sequence[SourceFile]) -> bool:
    async with Mesh(url=url, namespace=NAMESPACE) as mesh:
        return await Story(console, mesh, processes, files).tell()


def _linger(console: Console, seconds: float) -> None:
    console.print(f"lingering for {seconds:g} s; a signal ends it", highlight=False)
    with suppress(KeyboardInterrupt):
        time.sleep(seconds)


@contextmanager
def _interruptible() -> Iterator[None]:
    """Have SIGTERM end the demo as Ctrl-C does, through every `finally`."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Let no signal cut the clearing up short; that is bounded."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
