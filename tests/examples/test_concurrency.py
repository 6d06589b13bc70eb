"""The three blocks of the reference about concurrency limits do what its text says."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mesh_sdk import Event, Mesh, RunInfo
from tests.examples.programs import EXAMPLES, eventually, scheduled, worker_program

EVENT = "concurrency-test"
WORK_S = 0.3
"""How long a step works where the test looks at what goes on at once; the reference's only print."""

_rounds = itertools.count(1)


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    """Of a server of its own: the blocks share the name of their event, and two of them that of their workflow."""
    with scheduled(tmp_path) as url:
        yield url


@pytest.fixture
def mesh(url: str) -> Iterator[Mesh]:
    client = Mesh(url=url)
    yield client
    client.close_sync()


def publish(mesh: Mesh, *users: str) -> dict[str, str]:
    """One event for each user; the metadata that their runs have."""
    marks = {"round": str(next(_rounds))}
    mesh.events.publish_many_sync(Event(EVENT, {"user_id": user}, metadata=marks) for user in users)
    return marks


def ends(mesh: Mesh, marks: dict[str, str], count: int) -> list[RunInfo]:
    """The runs that have these marks, once so many have ended, by age."""

    def all_ended() -> list[RunInfo]:
        found = mesh.runs.list_sync(metadata=marks)
        return list(found) if len(found) == count and all(run.finished_at for run in found) else []

    return [mesh.runs.get_sync(run.run_id) for run in reversed(eventually(all_ended))]


@contextmanager
def two_at_work(name: str, url: str, folder: Path) -> Iterator[Path]:
    """Two workers of the reference's program with a step that works for a while and writes down when; the file with that."""
    log = folder / "log"
    log.touch()
    work = (
        "import time; began = time.monotonic_ns(); "
        f'print("+", began, context.workflow_input()["user_id"], file=open({str(log)!r}, "a"), flush=True); '
        f"time.sleep({WORK_S}); "
        f'print("-", time.monotonic_ns(), context.workflow_input()["user_id"], file=open({str(log)!r}, "a"), flush=True)'
    )
    text, count = re.subn(r'print\("executed step1"\)', lambda _: work, (EXAMPLES / f"reference/{name}.py").read_text())
    assert count == 1
    path = folder / f"{name}.py"
    path.write_text(text)
    with worker_program(path, url=url, id="left"), worker_program(path, url=url, id="right"):
        yield log


def most_at_once(log: Path, user: str = "") -> int:
    """How many steps worked at one time."""
    marks = sorted((int(when), sign) for sign, when, whose in map(str.split, log.read_text().splitlines()) if user in ("", whose))
    return max(itertools.accumulate(1 if sign == "+" else -1 for _, sign in marks))


def check_plain(name: str, url: str, mesh: Mesh) -> None:
    """The program as it stands: its key function is no step."""
    with worker_program(f"reference/{name}.py", url=url):
        [run] = ends(mesh, publish(mesh, "ada"), 1)
        assert (run.status, set(run.steps)) == ("succeeded", {"step1"})
        assert mesh.ref(run.run_id).result_sync() is None


def test_five_at_once_of_a_key_that_is_the_same_for_all(url: str, mesh: Mesh, tmp_path: Path) -> None:
    check_plain("concurrency_static_key", url, mesh)
    with two_at_work("concurrency_static_key", url, tmp_path) as log:
        runs = ends(mesh, publish(mesh, *(f"user-{n}" for n in range(15))), 15)
    assert {run.status for run in runs} == {"succeeded"}
    assert 1 < most_at_once(log) <= 5


def test_one_at_once_of_each_user(url: str, mesh: Mesh, tmp_path: Path) -> None:
    check_plain("concurrency_per_user", url, mesh)
    with two_at_work("concurrency_per_user", url, tmp_path) as log:
        runs = ends(mesh, publish(mesh, *("ada", "lin") * 4), 8)
    assert {run.status for run in runs} == {"succeeded"}
    assert (most_at_once(log, "ada"), most_at_once(log, "lin"), most_at_once(log)) == (1, 1, 2)


def test_the_newest_of_each_user_cancels_what_runs(url: str, mesh: Mesh, tmp_path: Path) -> None:
    check_plain("concurrency_cancel_in_progress", url, mesh)
    with two_at_work("concurrency_cancel_in_progress", url, tmp_path) as log:
        first = publish(mesh, "ada", "lin")
        eventually(lambda: log.read_text().count("+") == 2)
        [newer] = ends(mesh, publish(mesh, "ada"), 1)
        older, other = (next(run for run in ends(mesh, first, 2) if run.input["user_id"] == user) for user in ("ada", "lin"))
    assert (newer.status, older.status, other.status) == ("succeeded", "cancelled", "succeeded")
    assert "CANCEL_IN_PROGRESS" in str(older.error)
    assert most_at_once(log, "ada") == 1
