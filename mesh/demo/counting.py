"""Counts what a source file holds. The steps of the demo and its plain check call the same functions.

Rule: a function of the bytes alone; nothing here knows where they come from.
"""

from __future__ import annotations

import ast
import tokenize
import warnings
from collections.abc import Iterable
from io import BytesIO

from pydantic import BaseModel

from mesh.demo.stdlib import SourceFile

_NO_CODE = frozenset((tokenize.ENCODING, tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT))


class Shape(BaseModel, frozen=True):
    """What the syntax tree of a file tells."""

    functions: int
    classes: int
    imports: int


class Lines(BaseModel, frozen=True):
    """What the tokens of a file tell."""

    lines: int
    code_lines: int


class Counts(BaseModel, frozen=True):
    """Figures of one file or, added up, of many."""

    files: int = 0
    bytes: int = 0
    lines: int = 0
    code_lines: int = 0
    functions: int = 0
    classes: int = 0
    imports: int = 0


def shape_of(source: bytes) -> Shape:
    """Parse a file and count what it defines."""
    functions = classes = imports = 0
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            functions += 1
        elif isinstance(node, ast.ClassDef):
            classes += 1
        elif isinstance(node, ast.Import | ast.ImportFrom):
            imports += len(node.names)
    return Shape(functions=functions, classes=classes, imports=imports)


def lines_of(source: bytes) -> Lines:
    """Tokenise a file and count its lines, and those of them that hold more than a comment."""
    code: set[int] = set()
    for token in tokenize.tokenize(BytesIO(source).readline):
        if token.type not in _NO_CODE and token.string:
            code.update(range(token.start[0], token.end[0] + 1))
    return Lines(lines=len(source.splitlines()), code_lines=len(code))


def counts_of(size: int, shape: Shape, lines: Lines) -> Counts:
    """Everything that is known of one file."""
    return Counts(files=1, bytes=size, **shape.model_dump(), **lines.model_dump())


def add_up(counts: Iterable[Counts]) -> Counts:
    """The sum of all, figure by figure."""
    sums = dict.fromkeys(Counts.model_fields, 0)
    for each in counts:
        for name, value in each:
            sums[name] += value
    return Counts(**sums)


def count_plainly(files: Iterable[SourceFile]) -> dict[str, Counts]:
    """Count all files one after the other, in this process and without the mesh.

    Returns:
        The sum of each package.
    """
    found: dict[str, list[Counts]] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the library's own, e.g. of old escapes
        for file in files:
            source = file.read()
            found.setdefault(file.package, []).append(counts_of(len(source), shape_of(source), lines_of(source)))
    return {package: add_up(counts) for package, counts in found.items()}
