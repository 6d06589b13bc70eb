"""`mesh runs`: what happened to runs, and the end of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from mesh.cli import options
from mesh.cli.client import ask
from mesh.cli.output import moment, print_json, print_record, print_table
from mesh.cli.where import Where

if TYPE_CHECKING:
    from mesh_sdk.reads import RunInfo

TIMES = click.DateTime(["%Y-%m-%d", "%Y-%m-%d %H:%M", "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S"])

_THEN = {"given up": "is given up", "tried again": "is tried again"}


@click.group("runs")
def command() -> None:
    """List, show and cancel runs."""


@command.command("list")
@click.option("--workflow", metavar="NAME")
@click.option("--status", metavar="STATUS", help="queued, running, waiting, succeeded, failed, cancelled or timed_out.")
@click.option("--worker", metavar="ID", help="A step was or is on this worker.")
@options.metadata
@click.option("--since", type=TIMES, help="Started then or later (local time).")
@click.option("--until", type=TIMES, help="Started before.")
@click.option("--limit", type=click.IntRange(1, 1000), default=100, show_default=True)
@click.option("--after", metavar="CURSOR", help="Go on behind a page; the page before tells it on standard error.")
@options.where
@options.as_json
def list_runs(where: Where, as_json: bool, **filters: Any) -> None:
    """List runs, newest first."""
    page = ask(where, lambda mesh: mesh.runs.list(**filters))
    if as_json:
        print_json([_plain(run) for run in page])
    else:
        columns = ("RUN", "WORKFLOW", "STATUS", "STARTED", "FINISHED", "WAITING FOR")
        rows = [(run.run_id, run.workflow, run.status, moment(run.started_at), moment(run.finished_at), _shortly(run)) for run in page]
        print_table(columns, rows, "no runs")
    if page.next:
        click.echo(f"more: --after {page.next}", err=True)


@command.command("show")
@click.argument("run_id", metavar="RUN")
@options.where
@options.as_json
def show(run_id: str, where: Where, as_json: bool) -> None:
    """Show a run and its steps."""
    run = ask(where, lambda mesh: mesh.runs.get(run_id))
    if as_json:
        print_json(_plain(run))
        return
    print_record(_facts(run))
    rows = [
        (name, step.status, step.worker, step.attempt, moment(step.started_at), moment(step.finished_at), step.error)
        for name, step in run.steps.items()
    ]
    print_table(("STEP", "STATUS", "WORKER", "ATTEMPT", "STARTED", "FINISHED", "ERROR"), rows, "no steps")
    for name, step in run.steps.items():
        if step.traceback:
            click.echo(f"\n{name}, attempt {step.attempt}:\n{step.traceback.rstrip()}")


@command.command("cancel")
@click.argument("run_id", metavar="RUN")
@click.option("--reason", default="cancelled from the command line", show_default=True, help="What the run will say.")
@options.where
@options.as_json
def cancel(run_id: str, reason: str, where: Where, as_json: bool) -> None:
    """Ask for the end of a run; done once the request is stored."""
    ask(where, lambda mesh: mesh.runs.cancel(run_id, reason))
    if as_json:
        print_json({"run_id": run_id, "cancel_requested": True, "reason": reason})
    else:
        click.echo(f"cancel of {run_id} is stored")


def _shortly(run: RunInfo) -> str | None:
    """What it waits for; where that is a worker or a slot, without when: a table has little room."""
    return (
        run.wait.cause if run.wait is not None and run.wait.kind in ("worker", "slots", "labels", "group", "rate", "key") else run.waiting
    )


def _facts(run: RunInfo) -> dict[str, Any]:
    """What `show` says of the run itself, in its order."""
    first = {"run_id": run.run_id, "workflow": run.workflow, "status": run.status, **_waiting(run), "error": run.error}
    rest = {name: getattr(run, name) for name in ("parent_run_id", "priority", "metadata", "input", "output")}
    return first | {"sticky": _sticky(run)} | rest | {"started": moment(run.started_at), "finished": moment(run.finished_at)}


def _waiting(run: RunInfo) -> dict[str, str | None]:
    """Times for people, as everywhere on the screen."""
    wait = run.wait
    if wait is None:
        return {"reason": run.waiting}
    until = f"{moment(wait.until)}, then it {_THEN.get(wait.then, wait.then)}" if wait.until else ""
    return {"reason": f"waiting: {wait.cause}", "waiting_step": wait.step, "waiting_since": moment(wait.since), "waiting_until": until}


def _sticky(run: RunInfo) -> str:
    if not run.sticky:
        return ""
    bound = f"bound to {run.worker}" if run.worker else "not bound yet"
    times = "" if not run.moves else ", moved once" if run.moves == 1 else f", moved {run.moves} times"
    return f"{run.sticky}, {bound}{times}"


def _plain(run: RunInfo) -> Any:
    from msgspec import to_builtins

    return to_builtins(run)
