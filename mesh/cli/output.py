"""What commands print: tables for people, JSON for scripts.

Rule: results go to standard output, everything else to standard error.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import click

JSON_ROWS_SPACES = 2


def print_json(value: Any) -> None:
    """Print a value as JSON; what JSON doesn't know becomes its text."""
    click.echo(json.dumps(value, indent=JSON_ROWS_SPACES, ensure_ascii=False, default=_plain))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]], empty: str) -> None:
    """Print rows under a head.

    Args:
        empty: said on standard error when there are no rows.
    """
    if not rows:
        click.echo(empty, err=True)
        return
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, markup=False, emoji=False)
    table = Table(*columns, box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for row in rows:
        table.add_row(*("" if cell is None else _cell(cell) for cell in row))
    if not console.is_terminal:
        console.width = 10_000  # a pipe has no width: never cut or fold what a script may read
        for column in table.columns:
            column.no_wrap = True
    console.print(table)


def print_record(facts: Mapping[str, Any]) -> None:
    """Print what is known of one thing, a line for each fact that has a value."""
    known = {name.replace("_", " "): value for name, value in facts.items() if value not in (None, "", [], {})}
    width = max(map(len, known), default=0)
    for name, value in known.items():
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=_plain)
        click.echo(f"{name:<{width}}  {text}")


def moment(value: datetime | None) -> str:
    """A time for people: local, to the second; "" for none."""
    return "" if value is None else value.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def _cell(value: object) -> Any:
    from rich.text import Text

    return Text(str(value))


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, set | frozenset | tuple):
        return sorted(value)
    return str(value)
