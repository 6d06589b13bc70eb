from __future__ import annotations

from io import StringIO

from rich.console import Console

from mesh.demo.counting import Counts
from mesh.demo.report import Check, Effort, Memory, check_all, check_places, show_checks, show_memory
from mesh.demo.stdlib import SourceFile
from mesh.demo.workflows import Totals
from mesh_sdk import RunInfo, StepInfo

FILES = [SourceFile(path="a/x.py", package="a"), SourceFile(path="a/y.py", package="a"), SourceFile(path="b/z.py", package="b")]
A, B, ALL = Counts(files=2, lines=7), Counts(files=1, lines=3), Counts(files=3, lines=10)
PLAIN = {"a": A, "b": B}


def file_run(path: str, status: str = "succeeded", attempt: int = 1) -> RunInfo:
    steps = {"read": StepInfo(status=status, attempt=attempt)}
    return RunInfo(run_id=path, workflow="index-file", status=status, steps=steps, metadata={"path": path})


RUNS = [file_run(file.path) for file in FILES]
FOUND = Totals(packages=PLAIN, total=ALL)
PACKAGE_RUNS = [RunInfo(run_id=name, workflow="index-package", status="succeeded") for name in PLAIN]


def failing(runs: list[RunInfo] = RUNS, packages: list[RunInfo] = PACKAGE_RUNS, found: Totals = FOUND) -> list[str]:
    return [check.what.partition(":")[0] for check in check_all(FILES, runs, packages, found, PLAIN) if not check.holds]


def test_all_is_well():
    assert not failing()


def test_a_missing_and_a_doubled_file_are_noticed():
    assert failing(RUNS[1:]) == ["every file is indexed exactly once"]
    assert failing([*RUNS, RUNS[0]]) == ["every file is indexed exactly once"]


def test_a_run_that_has_not_succeeded_is_noticed():
    assert failing([*RUNS[1:], file_run("a/x.py", "failed")]) == ["every run has succeeded"]


def test_wrong_figures_are_noticed():
    assert failing(found=Totals(packages={"a": B, "b": B}, total=ALL)) == ["each package's figures equal the plain count's"]
    assert failing(found=Totals(packages={"a": A}, total=ALL)) == ["each package's figures equal the plain count's"]
    assert failing(found=Totals(packages=PLAIN, total=A)) == ["the totals equal the plain count's"]


def test_a_missing_child_is_noticed():
    assert failing(packages=PACKAGE_RUNS[1:]) == ["one child run for each of 2 packages"]


def test_effort_tells_deaths_from_hand_backs():
    effort = Effort.of([file_run("x", attempt=3), file_run("y", attempt=2), file_run("z")], lost=1)
    assert (effort.steps, effort.attempts, effort.handed_back) == (3, 6, 2)


def placed(*workers: str, bound: str = "w-1", moves: int = 0) -> RunInfo:
    steps = {str(number): StepInfo(status="succeeded", worker=worker) for number, worker in enumerate(workers)}
    return RunInfo(run_id="-".join(workers), workflow="index-file", status="succeeded", steps=steps, worker=bound, moves=moves)


KILLED = ["worker-3", "scheduler-1"]
STAYED, FLED, FLED_BEFORE_ITS_END = placed("w-1", "w-1"), placed("worker-3", "w-1", moves=1), placed("w-1", moves=1)
LEFT = placed("w-2", "w-1", moves=1)


def test_where_steps_ran_is_told():
    told = "every file's steps ran on one worker"
    assert check_places([STAYED], KILLED) == Check(told, True, "not those of 0, []")
    assert check_places([STAYED, FLED], KILLED).what == f"{told}, but for the 1 run that moved when worker-3 died"
    many = check_places([STAYED, FLED, FLED_BEFORE_ITS_END, LEFT], KILLED)
    assert many.what == f"{told}, but for the 2 runs that moved when worker-3 died and the 1 run that moved from a worker that lives"
    assert many.holds


def test_a_step_in_another_place_is_noticed():
    assert not check_places([STAYED, placed("w-1", "w-2")], KILLED).holds
    assert not check_places([placed("worker-3", "w-1")], KILLED).holds, "it is not said to have moved"
    assert not check_places([placed("w-2", "worker-3", "w-1", moves=1)], KILLED).holds
    assert not check_places([placed("w-2")], KILLED).holds, "it is bound to another worker"


def test_the_memory_is_told():
    console = Console(file=StringIO(), width=40)
    show_memory(console, Memory(runs=579, workers=["worker-1", "worker-2"], found=1_408, missed=4, moves=1), KILLED)
    assert console.file.getvalue() == (
        "579 sticky runs: 1,408 steps on worker-1 and worker-2 found their file in memory, 4 did not\n"
        "1 run moved to another worker because of the death of worker-3\n"
    )


def test_the_verdict_names_what_does_not_hold():
    console = Console(file=StringIO(), width=40)
    assert show_checks(console, [Check("good", True)])
    assert not show_checks(console, [Check("good", True), Check("bad", False, "why")])
    assert "✗ bad: why" in console.file.getvalue()
