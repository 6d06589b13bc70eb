"""`mesh demo`: the demo stands in `mesh.demo`; here is only its command."""

from __future__ import annotations

from typing import Any

import click


@click.command("demo")
def command() -> Any:
    """Watch real work survive two kills: index the standard library's source with 2 schedulers and 3 workers."""
    from mesh.demo import run

    return run()
