"""Where a command connects: as every client of the SDK, and else to the `mesh dev` that runs in this folder.

Rule: what anybody chose wins over what merely runs here.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

DEV_FILE = Path(".mesh") / "dev.json"
"""What a running `mesh dev` leaves in its folder: `url`, `namespace`, `pids`."""


@dataclass(frozen=True)
class Where:
    """A mesh: its servers (comma separated) and its namespace."""

    url: str
    namespace: str


def find(url: str | None = None, namespace: str | None = None, folder: Path | None = None) -> Where:
    """Decide where to connect.

    Args:
        url: of the command line; wins over everything, as does `namespace`.
        folder: where `mesh.toml` and a running `mesh dev` are looked for; the current directory unless given.

    Raises:
        ConfigurationError: a setting that can't be used, with its source.
        InvalidName: a namespace that can't be part of a subject.
    """
    from mesh_sdk.config import NAMESPACE_DEFAULT, URL_DEFAULT, resolve

    folder = folder or Path.cwd()
    settings = resolve(url, namespace, directory=folder)
    found = Where(",".join(settings.servers), settings.namespace)
    chosen = url or os.environ.get("MESH_URL") or os.environ.get("NATS_URL") or found.url != URL_DEFAULT
    running = None if chosen else running_dev(folder)
    if running is None:
        return found
    named = namespace or os.environ.get("MESH_NAMESPACE") or found.namespace != NAMESPACE_DEFAULT
    return Where(running.url, found.namespace if named else running.namespace)


def running_dev(folder: Path) -> Where | None:
    """The `mesh dev` that runs in a folder, if one lives: a killed one leaves its file behind."""
    try:
        content = json.loads((folder / DEV_FILE).read_text())
        os.kill(int(content["pids"]["dev"]), 0)
        return Where(str(content["url"]), str(content["namespace"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
