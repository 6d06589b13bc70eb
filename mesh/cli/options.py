"""Options that many commands share, and how their values are read."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import click

from mesh.cli.where import find

Command = TypeVar("Command", bound=Callable[..., Any])


def json_value(context: click.Context, parameter: click.Parameter, text: str) -> Any:
    """Read a JSON text, or standard input when it is `-`."""
    text = sys.stdin.read() if text == "-" else text
    try:
        return json.loads(text)
    except ValueError as error:
        shown = text if len(text) <= 60 else text[:60] + "…"
        raise click.BadParameter(f"{shown!r} is no JSON: {error}", context, parameter) from None


def pairs(context: click.Context, parameter: click.Parameter, texts: tuple[str, ...]) -> dict[str, str] | None:
    """Read `key=value` texts; None when there are none."""
    wrong = next((text for text in texts if not text.partition("=")[1] or text.startswith("=")), None)
    if wrong is not None:
        raise click.BadParameter(f"{wrong!r} is not KEY=VALUE", context, parameter)
    return dict(text.split("=", 1) for text in texts) or None


def seconds(context: click.Context, parameter: click.Parameter, text: str | None) -> float | None:
    """Read a duration (`30s`, `5m`, `1h30m`, or a number of seconds) as seconds."""
    if text is None:
        return None
    from mesh_sdk.durations import duration_ms

    try:
        return duration_ms(float(text) if text.replace(".", "", 1).isdigit() else text, "it") / 1000
    except ValueError as error:
        raise click.BadParameter(str(error), context, parameter) from None


data = click.argument("data", metavar="[JSON]", default="{}", callback=json_value)

metadata = click.option("--metadata", metavar="KEY=VALUE", multiple=True, callback=pairs, help="May be given several times.")

as_json = click.option("--json", "as_json", is_flag=True, help="One JSON array or object, for scripts.")

url = click.option("--url", metavar="URL", help="NATS server, or several with commas. Else MESH_URL, NATS_URL, mesh.toml.")

namespace = click.option("--namespace", metavar="NAME", help="Else MESH_NAMESPACE, mesh.toml, 'default'.")

metrics_port = click.option(
    "--metrics-port", type=click.IntRange(0, 65535), metavar="PORT", help="Serve /metrics, /healthz and /readyz there; 0: any free port."
)


def where(command: Command) -> Command:
    """Give a command `--url` and `--namespace`; it gets what they come to as `where`."""

    @url
    @namespace
    @functools.wraps(command)
    def located(*arguments: Any, url: str | None, namespace: str | None, **options: Any) -> Any:
        return command(*arguments, where=find(url, namespace), **options)

    return located  # type: ignore[return-value]  # the same command, with two options more


def logs(command: Command) -> Command:
    """Give a long-running command `--log-level` and `--log-json`, and have its logging set up by them."""

    @click.option(
        "--log-level", type=click.Choice(["debug", "info", "warning", "error"]), default="info", show_default=True, help="What to log."
    )
    @click.option("--log-json", is_flag=True, help="Log JSON lines.")
    @functools.wraps(command)
    def logging(*arguments: Any, log_level: str, log_json: bool, **options: Any) -> Any:
        from mesh_sdk.observe.logs import configure

        configure(log_level, json=log_json)
        return command(*arguments, **options)

    return logging  # type: ignore[return-value]  # the same command, with two options more
