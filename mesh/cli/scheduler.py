"""`mesh scheduler`: one scheduler process, leading or standing by."""

from __future__ import annotations

import click

from mesh.cli import options
from mesh.cli.where import Where


@click.command("scheduler")
@options.where
@options.metrics_port
@click.option(
    "--live-runs",
    type=click.IntRange(min=1),
    metavar="N",
    help="How many runs live in memory at once, about 3 KiB each; further starts wait on disk. Else MESH_LIVE_RUNS_MAX, 20000.",
)
@options.logs
def command(where: Where, metrics_port: int | None, live_runs: int | None) -> None:
    """Run a scheduler until SIGTERM.

    Start two or more: one leads, the others take over within 2 seconds when it dies. Prints a line that starts with
    `ready` once the streams exist and it leads or follows.
    """
    from mesh.cli.process import run, until_signal
    from mesh.engine import Engine

    engine = Engine(url=where.url, namespace=where.namespace, metrics_port=metrics_port, live_runs_max=live_runs)
    run(lambda on_ready: until_signal(lambda stop: engine.run(on_ready, stop)))
