"""`mesh workers`: who is there, with how many slots; and an operator's words to a worker."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from mesh.cli import options
from mesh.cli.client import ask
from mesh.cli.output import print_json, print_record, print_table
from mesh.cli.where import Where
from mesh_sdk.errors import WorkerNotFound

if TYPE_CHECKING:
    from mesh_sdk.reads import WorkerInfo


@click.group("workers")
def command() -> None:
    """List workers and their slots, and have one pause, go on or end."""


@command.command("list")
@options.where
@options.as_json
def list_workers(where: Where, as_json: bool) -> None:
    """List workers with their slots, used ones by the leader's ledger, the sticky runs bound to them, and the pools that they make up."""
    workers = ask(where, lambda mesh: mesh.workers.list())
    if as_json:
        from msgspec import to_builtins

        print_json(to_builtins(workers))
        return
    rows = [
        (worker.id, worker.name, worker.pool, _slots(worker), worker.bound, worker.state, _pairs(worker.labels), len(worker.actions))
        for worker in workers
    ]
    print_table(("WORKER", "NAME", "POOL", "SLOTS", "BOUND", "STATE", "LABELS", "ACTIONS"), rows, "no workers")
    if len(workers) > 1:
        used: dict[str, list[int]] = {}
        for worker in workers:
            pool = used.setdefault(worker.pool, [0, 0, 0])
            pool[:] = pool[0] + 1, pool[1] + worker.used, pool[2] + worker.slots
        print_table(("POOL", "WORKERS", "SLOTS"), [(pool, count, f"{busy}/{total}") for pool, (count, busy, total) in used.items()], "")


@command.command("show")
@click.argument("worker_id", metavar="WORKER")
@options.where
@options.as_json
def show(worker_id: str, where: Where, as_json: bool) -> None:
    """Show one worker, with its labels and everything that it can run."""
    worker = next((worker for worker in ask(where, lambda mesh: mesh.workers.list()) if worker.id == worker_id), None)
    if worker is None:
        raise WorkerNotFound(f"there is no worker {worker_id!r}: `mesh workers list` shows those that there are")
    from msgspec import to_builtins

    if as_json:
        print_json(to_builtins(worker))
    else:
        print_record(to_builtins(worker) | {"labels": _pairs(worker.labels), "actions": ", ".join(worker.actions)})


def _steering(what: str, help: str, done: str) -> None:
    """Add a command that tells one worker something."""

    @command.command(what, help=help)
    @click.argument("worker_id", metavar="WORKER")
    @options.where
    @options.as_json
    def steer(worker_id: str, where: Where, as_json: bool) -> None:
        ask(where, lambda mesh: getattr(mesh.workers, what)(worker_id))
        if as_json:
            print_json({"id": worker_id, "state": done})
        else:
            click.echo(f"worker {worker_id} is {done}")


_steering("pause", "Have a worker take no new work until it is resumed; it finishes what it has.", "paused")
_steering("resume", "Have a paused worker take work again.", "active")
_steering("drain", "Have a worker finish what runs, hand back the rest, and end.", "draining")


def _slots(worker: WorkerInfo) -> str:
    return f"{worker.used}/{worker.slots}"


def _pairs(labels: dict[str, str | int | float]) -> str:
    return " ".join(f"{name}={value}" for name, value in labels.items())
