"""Finding the worker in a user's module."""

from __future__ import annotations

import sys

import pytest

from mesh.cli.modules import load_worker
from mesh_sdk.errors import DefinitionError

ONE = """
from mesh_sdk import Mesh
mesh = Mesh()

@mesh.task()
async def hello(ctx) -> int:
    return 1

worker = mesh.worker("one", workflows=[hello])
alias = worker
"""

TWO = ONE + 'other = mesh.worker("two", workflows=[hello])\n'


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current directory; modules and paths of a test don't outlive it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path[:])
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if getattr(sys.modules[name], "__file__", None) and str(tmp_path) in str(sys.modules[name].__file__):
            del sys.modules[name]


def test_the_only_worker_is_found(folder):
    (folder / "only_one.py").write_text(ONE)
    worker = load_worker("only_one")
    assert worker is sys.modules["only_one"].worker
    assert sys.path[0] == str(folder)


def test_a_path_is_a_module_too(folder):
    (folder / "app").mkdir()
    (folder / "app" / "by_path.py").write_text(ONE)
    assert load_worker("app/by_path.py:alias") is sys.modules["app.by_path"].worker


def test_of_two_workers_one_must_be_named(folder):
    (folder / "two_of_them.py").write_text(TWO)
    with pytest.raises(DefinitionError, match=r"2 workers .*two_of_them:"):
        load_worker("two_of_them")
    assert load_worker("two_of_them:other") is sys.modules["two_of_them"].other


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("x = 1 / 0\n", r"ZeroDivisionError.*broken_module\.py, line 1"),
        ("import no_such_dependency\n", "no_such_dependency"),
        ("def (:\n", "SyntaxError"),
        ("raise SystemExit(3)\n", "SystemExit"),
        (ONE.replace("@mesh.task()", "@mesh.task(retries=-1)"), r"retries.*broken_module\.py, line 5"),
        (ONE + "worker.start()\n", r"worker\.start\(\) was called .*__main__.*broken_module\.py, line 11"),
    ],
)
def test_a_broken_module_says_where(folder, text, told):
    (folder / "broken_module.py").write_text(text)
    with pytest.raises(DefinitionError, match=told):
        load_worker("broken_module")
