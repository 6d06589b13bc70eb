"""`mesh publish`: one event, stored before the command ends."""

from __future__ import annotations

from typing import Any

import click

from mesh.cli import options
from mesh.cli.client import ask
from mesh.cli.output import print_json
from mesh.cli.where import Where
from mesh_sdk.protocol.subjects import check_event_name


@click.command("publish")
@click.argument("event")
@options.data
@click.option("--id", metavar="ID", default="", help="The same id within two minutes is stored once.")
@options.metadata
@options.where
@options.as_json
def command(event: str, data: Any, where: Where, as_json: bool, **given: Any) -> None:
    """Publish EVENT with JSON (`-` reads it from standard input; `{}` unless given).

    It is stored when the command ends well, and starts one run of each workflow whose on_events match.
    """
    check_event_name(event)  # before there is a connection
    stored = ask(where, lambda mesh: mesh.events.publish(event, data, **given))
    if as_json:
        print_json({"name": stored.name, "sequence": stored.sequence, "id": stored.id})
    else:
        click.echo(f"published {stored.name}, number {stored.sequence}")
