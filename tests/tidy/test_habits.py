"""Small habits that keep the code readable: names, sizes, clocks."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from tests.tidy.sources import Source, everything, is_in, packages

LINES_MAX = 400
FORBIDDEN_NAMES = frozenset(("utils", "util", "helpers", "helper", "common", "misc", "manager"))

WALL_CLOCKS = ("time.time", "time.time_ns", "datetime.now", "datetime.utcnow", "datetime.datetime.now", "datetime.datetime.utcnow")
BLOCKING = ("time.sleep",)
CLOCK_PLACES = ("mesh_sdk.clock", "mesh_sdk.worker.clock", "mesh_sdk.transport")
CLOCK_PLACES += ("mesh.engine", "mesh.cli", "mesh.demo", "mesh.server", "mesh.testing")
"""Where clocks are made and handed on; loops take them as parameters, so that a simulation can own them."""

LOOP_PLACES = (*CLOCK_PLACES, "mesh.scheduler")
"""Where `asyncio.sleep` may stand too: paces of the scheduler, by the event loop's clock, which a simulation brings along."""


def test_no_file_is_long():
    long = [f"{source.path}: {source.lines} lines, at most {LINES_MAX}" for source in everything() if source.lines > LINES_MAX]
    assert not long, "\n".join(long)


def test_no_file_has_a_name_that_says_nothing():
    wrong = [source.path for source in everything() if FORBIDDEN_NAMES & set(source.module.split("."))]
    assert not wrong


def test_every_module_says_its_job():
    silent = [source.path for source in packages() if source.tree.body and not ast.get_docstring(source.tree)]
    assert not silent


def _calls(source: Source, names: tuple[str, ...]) -> Iterator[str]:
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Call) and (name := ast.unparse(node.func)) in names:
            yield f"{source.path}:{node.lineno} calls {name}"


def _calls_outside(places: tuple[str, ...], names: tuple[str, ...]) -> list[str]:
    return [call for source in packages() if not is_in(source.module, *places) for call in _calls(source, names)]


def test_wall_clocks_stand_only_where_they_are_made():
    wrong = _calls_outside(CLOCK_PLACES, WALL_CLOCKS + BLOCKING)
    assert not wrong, "\n".join(wrong)


def test_nothing_sleeps_but_the_paces_of_the_scheduler():
    wrong = _calls_outside(LOOP_PLACES, ("asyncio.sleep",))
    assert not wrong, "\n".join(wrong)


def _swallows(handler: ast.ExceptHandler) -> bool:
    caught = "" if handler.type is None else ast.unparse(handler.type)
    if caught not in ("", "Exception", "BaseException"):
        return False
    # A handler that raises, or does something with what it caught (logs it, keeps it), does not swallow it.
    nodes = [node for statement in handler.body for node in ast.walk(statement)]
    return not any(isinstance(node, ast.Raise | ast.Call) or (isinstance(node, ast.Name) and node.id == handler.name) for node in nodes)


def test_no_handler_swallows_everything_silently():
    wrong = [
        f"{source.path}:{node.lineno}"
        for source in packages()
        for node in ast.walk(source.tree)
        if isinstance(node, ast.ExceptHandler) and _swallows(node)
    ]
    assert not wrong
