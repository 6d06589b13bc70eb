"""`mesh demo`: the demo stands in `mesh.demo`; here is only its command."""

from __future__ import annotations

import click

from mesh.cli import options


@click.command("demo")
@click.option("--linger", metavar="DURATION", callback=options.seconds, help="Keep the processes for so long after the end, e.g. 5m.")
@click.option(
    "--metrics-port",
    type=click.IntRange(1, 65535 - 4),
    envvar="MESH_DEMO_METRICS",
    metavar="PORT",
    help="Of the first process's metrics, the others have the next ones. Else MESH_DEMO_METRICS, else free ones.",
)
def command(linger: float | None, metrics_port: int | None) -> int:
    """Watch real work survive two kills: index the standard library's source with 2 schedulers and 3 workers.

    Ends with 0 only if every file was indexed exactly once and all figures equal a plain count.
    """
    from mesh.demo import run

    return run(linger_s=linger or 0.0, metrics_port=metrics_port)
