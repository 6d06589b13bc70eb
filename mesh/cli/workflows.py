"""`mesh workflows`: what workers have registered."""

from __future__ import annotations

import click

from mesh.cli import options
from mesh.cli.client import ask
from mesh.cli.output import print_json, print_record, print_table
from mesh.cli.where import Where


@click.group("workflows")
def command() -> None:
    """List and show workflows."""


@command.command("list")
@options.where
@options.as_json
def list_workflows(where: Where, as_json: bool) -> None:
    """List every workflow that a worker ever registered."""
    workflows = ask(where, lambda mesh: mesh.workflows.list())
    if as_json:
        from msgspec import to_builtins

        print_json(to_builtins(workflows))
        return
    rows = [
        (workflow.name, workflow.version, len(workflow.steps), ", ".join(workflow.on_events), workflow.sticky, len(workflow.workers))
        for workflow in workflows
    ]
    print_table(("WORKFLOW", "VERSION", "STEPS", "ON EVENTS", "STICKY", "WORKERS"), rows, "no workflows")


@command.command("show")
@click.argument("name", metavar="WORKFLOW")
@options.where
@options.as_json
def show(name: str, where: Where, as_json: bool) -> None:
    """Show a workflow, its steps and the live workers that can run it."""
    workflow = ask(where, lambda mesh: mesh.workflows.get(name))
    if as_json:
        from msgspec import to_builtins

        print_json(to_builtins(workflow))
        return
    print_record({each: getattr(workflow, each) for each in ("name", "version", "digest", "on_events", "sticky", "priority", "workers")})
    print_table(("STEP", "PARENTS"), [(step.name, ", ".join(step.parents)) for step in workflow.steps], "no steps")
