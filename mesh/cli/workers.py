"""`mesh workers`: who is there, with how many slots."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from mesh.cli import options
from mesh.cli.client import ask
from mesh.cli.output import print_json, print_table
from mesh.cli.where import Where

if TYPE_CHECKING:
    from mesh_sdk.reads import WorkerInfo


@click.group("workers")
def command() -> None:
    """List workers and their slots."""


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


def _slots(worker: WorkerInfo) -> str:
    return f"{worker.used}/{worker.slots}"


def _pairs(labels: dict[str, str | int | float]) -> str:
    return " ".join(f"{name}={value}" for name, value in labels.items())
