"""The project's Python files, read once, and what each imports."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Source:
    """One file: its path from the root of the project, its module name, its syntax tree."""

    path: str
    module: str
    lines: int
    tree: ast.Module


@cache
def packages() -> tuple[Source, ...]:
    """Every module of the two packages."""
    return (*_read(ROOT / "mesh", ROOT), *_read(ROOT / "sdk" / "mesh_sdk", ROOT / "sdk"))


@cache
def everything() -> tuple[Source, ...]:
    """Every Python file of the project, tests and examples too."""
    rest = [source for folder in ("tests", "examples", "bench", "deploy") for source in _read(ROOT / folder, ROOT)]
    return (*packages(), *rest)


def imports(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of each import, wherever it stands; `from a import b` counts as `a.b`.

    What stands under `if TYPE_CHECKING` counts too: an arrow in a type is an arrow.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def is_in(name: str, *packages: str) -> bool:
    """Whether a dotted name is one of these packages or something inside one."""
    return any(name == package or name.startswith(package + ".") for package in packages)


def _read(folder: Path, base: Path) -> list[Source]:
    found = []
    for path in sorted(folder.rglob("*.py")):
        text = path.read_text()
        module = ".".join(path.relative_to(base).with_suffix("").parts).removesuffix(".__init__")
        found.append(Source(str(path.relative_to(ROOT)), module, len(text.splitlines()), ast.parse(text, str(path))))
    return found
