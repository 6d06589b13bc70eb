"""`mesh run`: start a workflow, and await its result if asked to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from mesh.cli import options
from mesh.cli.client import ask
from mesh.cli.output import print_json
from mesh.cli.where import Where

if TYPE_CHECKING:
    from mesh_sdk import Mesh


@click.command("run")
@click.argument("workflow")
@options.data
@click.option("--wait", is_flag=True, help="Await the result and print it.")
@click.option("--timeout", callback=options.seconds, metavar="DURATION", help="With --wait: wait no longer; the run goes on.")
@click.option("--priority", type=click.IntRange(1, 9), help="1 is the lowest.")
@click.option("--key", help="The same key starts one run only.")
@click.option("--delay", metavar="DURATION", callback=options.seconds, help="Start it that much later.")
@click.option("--sticky-worker", metavar="ID", help="Bind the run to this worker; the workflow must be sticky.")
@options.metadata
@options.where
@options.as_json
def command(workflow: str, data: Any, wait: bool, timeout: float | None, where: Where, as_json: bool, **given: Any) -> None:
    """Start a run of WORKFLOW with JSON (`-` reads it from standard input; `{}` unless given).

    Prints the run's id once the start is stored; with --wait its result, as JSON. A run that fails, is cancelled or
    times out ends the command with exit code 7.
    """
    chosen = {name: value for name, value in given.items() if value is not None}

    async def start(mesh: Mesh) -> tuple[str, Any]:
        ref = await mesh.start(workflow, data, **chosen)
        run_id = await ref.accepted()
        if not wait:
            return run_id, None
        try:
            return run_id, await ref.result(timeout=timeout)
        except TimeoutError:
            raise TimeoutError(f"run {run_id} had not ended after {timeout:g} s; it goes on: mesh runs show {run_id}") from None

    run_id, output = ask(where, start)
    if as_json:
        print_json({"run_id": run_id, "workflow": workflow, **({"status": "succeeded", "output": output} if wait else {})})
    elif wait:
        print_json(output)
    else:
        click.echo(run_id)
