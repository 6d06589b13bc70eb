"""What the demo indexes: the source of the standard library of the Python that runs it.

Rule: whoever looks, client or plain count, finds the same files in the same order.
"""

from __future__ import annotations

import sysconfig
from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel

ROOT = Path(sysconfig.get_path("stdlib"))
TOP_LEVEL = "(top level)"
"""Stands for the package of modules that are in none."""

_SKIPPED = frozenset(("test", "tests", "idlelib", "lib2to3", "turtledemo", "site-packages", "dist-packages", "__pycache__"))
"""Tests hold files that are broken on purpose; the rest is applications, or not the library's."""


class SourceFile(BaseModel, frozen=True):
    """One file: its path below `ROOT`, and the package that it counts for."""

    path: str
    package: str

    def read(self) -> bytes:
        """The file's content."""
        return (ROOT / self.path).read_bytes()


def find_files(root: Path = ROOT) -> list[SourceFile]:
    """Every Python file of the library, by path."""
    return [SourceFile(path=path.as_posix(), package=_package(path)) for path in sorted(_walk(root, Path()))]


def _walk(root: Path, below: Path) -> Iterator[Path]:
    for entry in (root / below).iterdir():
        path = below / entry.name
        if entry.is_dir():
            if entry.name.isidentifier() and entry.name not in _SKIPPED:
                yield from _walk(root, path)
        elif entry.suffix == ".py":
            yield path


def _package(path: Path) -> str:
    return path.parts[0] if len(path.parts) > 1 else TOP_LEVEL
