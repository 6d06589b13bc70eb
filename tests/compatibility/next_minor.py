"""Makes a copy of the packages that is of the next minor version: `python -m tests.compatibility.next_minor FOLDER [novel]`.

Every struct that travels or is stored as an array has one more field at its end, with a default. With `novel` the copy's
leaders also journal a record of a kind that nobody knows yet. Rule: where the sources don't look as expected it fails.
"""

from __future__ import annotations

import ast
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("mesh", "sdk/mesh_sdk")
FILES = (
    "sdk/mesh_sdk/protocol/beats.py",
    "sdk/mesh_sdk/protocol/records.py",
    "sdk/mesh_sdk/protocol/definitions.py",
    "sdk/mesh_sdk/worker/holder.py",
    "mesh/core/records.py",
    "mesh/core/image.py",
    "mesh/store/snapshots.py",
)
BASES = ("Record", "Fact")
FIELD = '    of_next_minor: str = "next"'
NOVEL = {
    "mesh/core/records.py": (
        ("Recorded = (\n", 'class Novel(Fact, tag="novel"):\n    word: str\n\n\nRecorded = (\n    Novel | '),
        ("| LanesSettled\n", "| LanesSettled\n"),
    ),
    "mesh/core/state.py": (("facts.WorkerRefused: _nothing,", "facts.WorkerRefused: _nothing, facts.Novel: _nothing,"),),
    "mesh/core/core.py": (
        ("self.record(facts.TermStarted(input.holder))", 'self.record(facts.TermStarted(input.holder)); self.record(facts.Novel("?"))'),
    ),
}


def make(folder: Path, *, novel: bool = False) -> str:
    """Write the copy.

    Args:
        folder: where it goes; it need not be there.
        novel: its leaders journal a record of an unknown kind at the beginning of their term.

    Returns:
        The PYTHONPATH of the copy, tests of the present code behind it.
    """
    for package in PACKAGES:
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    for name in FILES:
        file = folder / name
        file.write_text(lengthened(file.read_text()))
    for name, replacements in NOVEL.items() if novel else ():
        file = folder / name
        text = file.read_text()
        for old, new in replacements:
            assert text.count(old) == 1, f"{name} does not have one {old!r}"
            text = text.replace(old, new)
        file.write_text(text)
    return f"{folder}:{folder / 'sdk'}:{ROOT}"


def lengthened(source: str) -> str:
    """The source with one more field in every struct that is an array."""
    lines = source.splitlines()
    classes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ClassDef) and _travels(node)]
    assert classes, "there is no struct"
    for node in sorted(classes, key=lambda node: node.lineno, reverse=True):
        assert node.end_lineno is not None
        lines.insert(node.end_lineno, FIELD)
    return "\n".join(lines) + "\n"


def _travels(node: ast.ClassDef) -> bool:
    bases = [ast.unparse(base) for base in node.bases]
    array = any(keyword.arg == "array_like" for keyword in node.keywords)
    return (array and "Struct" in bases and not (node.name in BASES and len(node.body) == 1)) or any(base in BASES for base in bases)


if __name__ == "__main__":
    print(make(Path(sys.argv[1]), novel="novel" in sys.argv[2:]))
