"""The two blocks of the reference about sticky assignment do what its text says; the cache loads once for each run."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mesh_sdk import Event, Mesh, RunInfo
from tests.cli.processes import Running
from tests.examples.programs import EXAMPLES, eventually, program, worker_program, workers

ASSIGNMENT = "reference/sticky_assignment.py"
CHILDREN = "reference/sticky_children.py"
BOTH = {"left", "right"}
README = EXAMPLES.parent / "README.md"
AT_ONCE = 8
"""Runs that are started together are spread; one alone always finds the first worker as free as the other."""

_rounds = itertools.count(1)


@pytest.fixture
def mesh(url: str) -> Iterator[Mesh]:
    client = Mesh(url=url)
    yield client
    client.close_sync()


@contextmanager
def two_workers(path: str, url: str) -> Iterator[None]:
    """One started as the program that it is, one by `mesh worker`."""
    eventually(lambda: not workers(url))
    with Running("worker", path, folder=EXAMPLES, url=url, environment={"MESH_WORKER_ID": "right"}) as right:
        right.line("ready")
        with worker_program(path, url=url, id="left"):
            yield
        assert right.end() == 0


def runs_of(event: str, workflow: str, mesh: Mesh) -> list[RunInfo]:
    """Publish an event several times and wait for the ends of the runs that it starts; children have their parents' metadata."""
    marks = {"round": str(next(_rounds))}
    mesh.events.publish_many_sync(Event(event, {"user": user}, metadata=marks) for user in range(AT_ONCE))

    def all_ended() -> list[RunInfo]:
        found = mesh.runs.list_sync(workflow=workflow, metadata=marks)
        return list(found) if len(found) == AT_ONCE and all(run.finished_at for run in found) else []

    return [mesh.runs.get_sync(run.run_id) for run in eventually(all_ended)]


def test_every_step_of_a_sticky_run_is_on_one_worker_second_root_included(url: str, mesh: Mesh) -> None:
    with two_workers(ASSIGNMENT, url):
        used: set[str | None] = set()
        while used != BOTH:  # ended by the test's timeout
            for run in runs_of("user:create", "StickyWorkflow", mesh):
                assert (run.status, set(run.steps)) == ("succeeded", {"step1a", "step1b", "step2"})
                [holder] = {step.worker for step in run.steps.values()}
                assert all(step.output == {"worker": holder} for step in run.steps.values())
                used.add(holder)


def test_a_sticky_child_runs_on_its_parents_worker(url: str, mesh: Mesh) -> None:
    with two_workers(CHILDREN, url):
        used: set[str | None] = set()
        while used != BOTH:
            parents = {run.run_id: run for run in runs_of("sticky:parent", "StickyWorkflow", mesh)}
            assert {run.status for run in parents.values()} == {"succeeded"}
            marks = next(iter(parents.values())).metadata
            children = [mesh.runs.get_sync(run.run_id) for run in mesh.runs.list_sync(workflow="StickyChildWorkflow", metadata=marks)]
            assert {run.parent_run_id for run in children} == set(parents)
            for child in children:
                holder = child.steps["child"].worker
                assert (child.status, child.steps["child"].output) == ("succeeded", {"worker": holder})
                assert holder == parents[child.parent_run_id].steps["parent_step"].worker
                used.add(holder)


def edited(name: str, folder: Path, pattern: str, replacement: str) -> Path:
    """The reference's program with one change."""
    text, count = re.subn(pattern, replacement, (EXAMPLES / CHILDREN).read_text())
    assert count == 1
    path = folder / f"{name}.py"
    path.write_text(text)
    return path


def nameless(text: str) -> str:
    """Without the ids of workers, which are new at each start."""
    return re.sub(r"worker '[\w-]+'", "worker '…'", text)


def assert_refused(mesh: Mesh, *words: str) -> None:
    """Before there is a child, with an error that names both and what to do, as the README shows it."""
    for run in runs_of("sticky:parent", "StickyWorkflow", mesh):
        assert run.status == "failed"
        message = str(run.steps["parent_step"].error)
        assert all(word in message for word in ("StickyChildError", "StickyWorkflow:parent_step", "'StickyChildWorkflow'", *words)), message
        assert nameless(message) in nameless(README.read_text())
        assert not mesh.runs.list_sync(workflow="StickyChildWorkflow", metadata=run.metadata)


def test_a_child_that_only_another_worker_registers_is_refused(url: str, mesh: Mesh, tmp_path: Path) -> None:
    parent = edited("parent", tmp_path, r"workflows=\[.*\]", "workflows=[StickyWorkflow]")
    child = edited("child", tmp_path, r"workflows=\[.*\]", "workflows=[StickyChildWorkflow]")
    eventually(lambda: not workers(url))
    with worker_program(parent, url=url, id="left"), worker_program(child, url=url, id="right"):
        assert_refused(mesh, "is not registered on", "'left'", "workflows=[…]")


def test_a_child_without_a_sticky_strategy_is_refused(url: str, mesh: Mesh, tmp_path: Path) -> None:
    plain = edited("plain", tmp_path, r",\nsticky=StickyStrategy.SOFT", "")
    eventually(lambda: not workers(url))
    with worker_program(plain, url=url, id="left"):
        assert_refused(mesh, "declares no sticky strategy", "sticky=StickyStrategy.SOFT or HARD")


def test_the_cache_is_loaded_once_for_each_run(url: str) -> None:
    pattern = r"(\w+) +4 runs +(\d+) loads .*"
    with (
        Running("worker", "sticky_cache", folder=EXAMPLES, url=url) as one,
        Running("worker", "sticky_cache", folder=EXAMPLES, url=url) as two,
    ):
        one.line("ready")
        two.line("ready")
        *lines, last = program("sticky_cache.py", url=url).splitlines()
    assert [match.groups() for line in lines if (match := re.fullmatch(pattern, line))] == [("Unsticky", "16"), ("Sticky", "4")]
    assert re.fullmatch(r"[\d.]+ times as fast with sticky", last)


def test_the_cache_says_what_it_needs() -> None:
    complaint = program("sticky_cache.py", url="nats://127.0.0.1:9", code=1)
    assert complaint.endswith("this needs a running mesh: mesh dev examples/sticky_cache.py\n")
