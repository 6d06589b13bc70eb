"""Where the mesh is: arguments, then the environment, then a file, then defaults.

- arguments of `Mesh(...)`; whoever runs somebody else's module (the command line) may set them above all with `override`
- `MESH_URL` (a comma list) or `NATS_URL`, and `MESH_NAMESPACE`
- the nearest `mesh.toml`, or `[tool.mesh]` of a `pyproject.toml`, in the working directory or above it:
  `url`, `namespace`, `connect_timeout`
- `nats://127.0.0.1:4222`, `default`, five seconds

Rule: nothing is read before a mesh is used for the first time; a value that can't be used is refused, with its source.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mesh_sdk.durations import Duration, duration_ms
from mesh_sdk.errors import ConfigurationError
from mesh_sdk.protocol.subjects import check_token

URL_DEFAULT = "nats://127.0.0.1:4222"
NAMESPACE_DEFAULT = "default"
CONNECT_TIMEOUT_DEFAULT = 5.0

_SCHEMES = ("nats://", "tls://")
_KEYS = ("url", "namespace", "connect_timeout")

_overrides: dict[str, Any] = {}


@dataclass(frozen=True, slots=True)
class Settings:
    """Where the mesh is.

    Attributes:
        servers: URLs of one NATS server or of several of one cluster.
        namespace: which mesh on them.
        connect_timeout_s: how long the first connection may take.
    """

    servers: tuple[str, ...]
    namespace: str
    connect_timeout_s: float


def override(url: str | None = None, namespace: str | None = None) -> None:
    """Set the URL or namespace above all other sources, for every mesh of this process that is not in use yet.

    For programs that load a user's module and take `--url` and `--namespace` themselves.
    """
    given = {"url": url, "namespace": namespace}
    _overrides.update({name: value for name, value in given.items() if value is not None})


def resolve(
    url: str | Sequence[str] | None = None,
    namespace: str | None = None,
    connect_timeout: Duration | None = None,
    *,
    environment: Mapping[str, str] | None = None,
    directory: Path | None = None,
) -> Settings:
    """Find out where the mesh is.

    Args:
        url: the argument of `Mesh(...)`.
        namespace: likewise.
        connect_timeout: likewise.
        environment: instead of the process's.
        directory: where to look for a file, instead of the working directory.

    Raises:
        ConfigurationError: for a value that can't be used, or a file that can't be read.
        InvalidName: for a namespace that can't be part of a subject.
    """
    arguments = {"url": url, "namespace": namespace, "connect_timeout": connect_timeout}
    sources = [
        ("the command line", dict(_overrides)),
        ("an argument of Mesh(...)", {name: value for name, value in arguments.items() if value is not None}),
        _environment(os.environ if environment is None else environment),
    ]
    if any(_find(sources, name) is None for name in _KEYS):
        sources.append(_file(directory or Path.cwd()))
    servers, servers_source = _find(sources, "url") or (URL_DEFAULT, "the default")
    chosen, _ = _find(sources, "namespace") or (NAMESPACE_DEFAULT, "the default")
    timeout, timeout_source = _find(sources, "connect_timeout") or (CONNECT_TIMEOUT_DEFAULT, "the default")
    return Settings(
        servers=_servers(servers, servers_source),
        namespace=check_token("namespace", str(chosen)),
        connect_timeout_s=duration_ms(timeout, f"connect_timeout (from {timeout_source})", ConfigurationError) / 1_000,
    )


def _find(sources: list[tuple[str, dict[str, Any]]], name: str) -> tuple[Any, str] | None:
    return next(((values[name], source) for source, values in sources if name in values), None)


def _environment(environment: Mapping[str, str]) -> tuple[str, dict[str, Any]]:
    values: dict[str, Any] = {}
    url = environment.get("MESH_URL") or environment.get("NATS_URL")
    if url:
        values["url"] = url
    if environment.get("MESH_NAMESPACE"):
        values["namespace"] = environment["MESH_NAMESPACE"]
    return "MESH_URL" if environment.get("MESH_URL") else "the environment", values


def _file(directory: Path) -> tuple[str, dict[str, Any]]:
    for folder in (directory, *directory.parents):
        own = folder / "mesh.toml"
        if own.is_file():
            return str(own), _known(_toml(own), own)
        project = folder / "pyproject.toml"
        if project.is_file():
            table = _toml(project).get("tool", {}).get("mesh")
            if table is not None:
                return str(project), _known(table, project)
    return "", {}


def _toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{path} can't be read: {error}") from error


def _known(table: object, path: Path) -> dict[str, Any]:
    if not isinstance(table, dict):
        raise ConfigurationError(f"{path}: the settings of the mesh must be a table, with {', '.join(_KEYS)}")
    unknown = [name for name in table if name not in _KEYS]
    if unknown:
        raise ConfigurationError(f"{path}: there is no setting {unknown[0]!r}: use {', '.join(_KEYS)}")
    return table


def _servers(value: object, source: str) -> tuple[str, ...]:
    parts = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, Sequence) or not all(isinstance(part, str) for part in parts):
        raise ConfigurationError(f"url is {value!r} (from {source}): use 'nats://host:4222', several separated by commas")
    servers = tuple(_server(part.strip(), source) for part in parts if part.strip())
    if not servers:
        raise ConfigurationError(f"url is {value!r} (from {source}): it names no server; use 'nats://host:4222'")
    return servers


def _server(url: str, source: str) -> str:
    whole = url if "://" in url else f"nats://{url}"
    if not whole.startswith(_SCHEMES) or not whole.partition("://")[2] or any(character.isspace() for character in whole):
        raise ConfigurationError(f"url is {url!r} (from {source}): use 'nats://host:4222' or 'tls://host:4222'")
    return whole
