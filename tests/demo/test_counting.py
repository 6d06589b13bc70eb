from __future__ import annotations

from mesh.demo.counting import Counts, Lines, Shape, add_up, count_plainly, counts_of, lines_of, shape_of
from mesh.demo.stdlib import ROOT, TOP_LEVEL, find_files

SOURCE = b'''# a comment

import os, sys
from json import loads  # and another

class A:
    """Two
    lines."""

    async def f(self):
        return lambda: 0


def g(): pass
'''


def test_a_file_is_counted():
    assert shape_of(SOURCE) == Shape(functions=2, classes=1, imports=3)
    assert lines_of(SOURCE) == Lines(lines=14, code_lines=8)
    assert lines_of(b"") == Lines(lines=0, code_lines=0)


def test_sums():
    one = counts_of(len(SOURCE), shape_of(SOURCE), lines_of(SOURCE))
    assert add_up([one, one]) == Counts(files=2, bytes=2 * len(SOURCE), lines=28, code_lines=16, functions=4, classes=2, imports=6)
    assert add_up([]) == Counts()


def test_the_library_is_found_once_and_without_its_tests():
    files = find_files()
    paths = [file.path for file in files]
    assert len(paths) == len(set(paths)) > 300
    assert paths == [file.path for file in find_files()]
    assert not {"test", "tests", "site-packages"} & {part for path in paths for part in path.split("/")}
    packages = {file.path: file.package for file in files}
    assert packages["ast.py"] == TOP_LEVEL
    assert packages["asyncio/events.py"] == packages["asyncio/tasks.py"] == "asyncio"


def test_the_plain_count_adds_up_by_package():
    files = [file for file in find_files() if file.package == "json"]
    found = count_plainly(files)
    assert set(found) == {"json"}
    assert found["json"].files == len(files)
    assert found["json"].bytes == sum((ROOT / file.path).stat().st_size for file in files)
