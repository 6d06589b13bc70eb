"""The end of the demo: what was found, what it took, and whether all of it is right.

Rule: a check compares what the mesh says with what was counted without it; nothing is assumed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table
from rich.text import Text

from mesh.demo.counting import Counts, add_up
from mesh.demo.stdlib import SourceFile
from mesh.demo.workflows import Totals
from mesh_sdk import RunInfo

PACKAGES_SHOWN = 8
_MISSING_SHOWN = 3


@dataclass(frozen=True)
class Check:
    """One thing that must hold."""

    what: str
    holds: bool
    detail: str = ""


@dataclass(frozen=True)
class Effort:
    """What the work took.

    Attributes:
        runs: how many, by workflow.
        steps: that succeeded.
        attempts: of them all together.
        lost: new attempts because a worker died, as the leader counted them.
    """

    runs: Counter[str]
    steps: int
    attempts: int
    lost: int

    @classmethod
    def of(cls, runs: Iterable[RunInfo], lost: int) -> Effort:
        """Add up what the mesh tells of these runs."""
        found = list(runs)
        steps = [step for run in found for step in run.steps.values()]
        return cls(
            runs=Counter(run.workflow for run in found),
            steps=sum(step.status == "succeeded" for step in steps),
            attempts=sum(step.attempt for step in steps),
            lost=lost,
        )

    @property
    def handed_back(self) -> int:
        """Attempts that a worker handed back without having run them, because it was full: no step here may fail."""
        return self.attempts - self.steps - self.lost


@dataclass(frozen=True)
class Memory:
    """What keeping each file at hand on one worker came to.

    Attributes:
        runs: sticky ones.
        workers: those that were asked: whoever is killed takes its counts along.
        found: steps on them that found their file in memory.
        missed: steps on them that should have and did not.
        moves: times that a run went to another worker because its own was gone, as the leader counted them.
    """

    runs: int
    workers: Sequence[str]
    found: int
    missed: int
    moves: int


def check_all(
    files: Sequence[SourceFile], file_runs: Sequence[RunInfo], package_runs: Sequence[RunInfo], found: Totals, plain: dict[str, Counts]
) -> Iterator[Check]:
    """Hold what the mesh says against the files and the plain count.

    Args:
        files: all that there are.
        file_runs: every run of index-file that the mesh knows.
        package_runs: every run of index-package.
        found: the result of index-library.
        plain: the plain count.
    """
    indexed = Counter(run.metadata.get("path", "?") for run in file_runs)
    expected = Counter(file.path for file in files)
    yield Check(
        f"every file is indexed exactly once: {len(files)} files, {len(file_runs)} runs",
        indexed == expected,
        _differences(indexed, expected),
    )
    unfinished = Counter(run.status for run in (*file_runs, *package_runs) if run.status != "succeeded")
    yield Check("every run has succeeded", not unfinished, str(dict(unfinished)))
    packages = {file.package for file in files}
    yield Check(f"one child run for each of {len(packages)} packages", len(package_runs) == len(packages), f"{len(package_runs)} runs")
    wrong = sorted(name for name in packages | set(found.packages) if found.packages.get(name) != plain.get(name))
    yield Check("each package's figures equal the plain count's", not wrong, ", ".join(wrong))
    total = add_up(plain.values())
    yield Check("the totals equal the plain count's", found.total == total, f"{found.total} against {total}")


def check_places(file_runs: Sequence[RunInfo], killed: Sequence[str]) -> Check:
    """Hold where each run's steps ran against how often the mesh says that the run has moved.

    Args:
        file_runs: every run of index-file.
        killed: the processes that were killed.
    """
    ran = {run.run_id: {step.worker for step in run.steps.values()} for run in file_runs}
    strayed = [run for run in file_runs if run.worker not in ran[run.run_id] or len(ran[run.run_id]) > 1 + run.moves]
    moved = [run for run in file_runs if run.moves]
    fled = sum(ran[run.run_id] - {run.worker} <= set(killed) for run in moved)
    reasons = [(fled, f"when {_dead_worker(killed)} died"), (len(moved) - fled, "from a worker that lives")]
    moves = " and ".join(f"the {_runs(count)} that moved {why}" for count, why in reasons if count)
    paths = [run.metadata.get("path", "?") for run in strayed]
    return Check(
        f"every file's steps ran on one worker{f', but for {moves}' if moves else ''}",
        not strayed,
        f"not those of {len(paths)}, {paths[:_MISSING_SHOWN]}",
    )


def _differences(indexed: Counter[str], expected: Counter[str]) -> str:
    missing, extra = list((expected - indexed).elements()), list((indexed - expected).elements())
    return f"{len(missing)} missing {missing[:_MISSING_SHOWN]}, {len(extra)} too many {extra[:_MISSING_SHOWN]}"


def show_totals(console: Console, found: Totals) -> None:
    """Print the largest packages and the sum of all."""
    table = Table(box=None, padding=(0, 1), header_style="dim")
    table.add_column("package", no_wrap=True)
    names = [name for name in Counts.model_fields if name != "bytes"]
    for name in names:
        table.add_column(name.partition("_")[0], justify="right", no_wrap=True)
    largest = sorted(found.packages.items(), key=lambda item: -item[1].lines)
    rest = add_up(counts for _, counts in largest[PACKAGES_SHOWN:])
    rows = [*largest[:PACKAGES_SHOWN], (f"{len(largest[PACKAGES_SHOWN:])} more", rest)]
    for label, counts in rows:
        table.add_row(label, *(f"{getattr(counts, name):,}" for name in names))
    table.add_section()
    table.add_row("total", *(f"{getattr(found.total, name):,}" for name in names), style="bold")
    console.print()
    console.print(table)


def show_effort(console: Console, effort: Effort, killed: Sequence[str]) -> None:
    """Print what it took, and what the deaths cost."""
    runs = ", ".join(f"{count} {name}" for name, count in effort.runs.items())
    console.print()
    _print(console, f"{effort.runs.total():,} runs ({runs}), {effort.steps:,} steps")
    _print(console, f"{effort.lost} steps were retried because of the deaths of {' and '.join(killed)}")
    _print(console, f"{effort.handed_back} attempts were handed back unrun by a worker that was full, and assigned again")


def show_memory(console: Console, memory: Memory, killed: Sequence[str]) -> None:
    """Print what it was good for that a run's steps are on one worker."""
    workers = " and ".join(memory.workers)
    _print(console, f"{memory.runs} sticky runs: {memory.found:,} steps on {workers} found their file in memory, {memory.missed} did not")
    _print(console, f"{_runs(memory.moves)} moved to another worker because of the death of {_dead_worker(killed)}")


def _dead_worker(killed: Sequence[str]) -> str:
    return next((name for name in killed if name.startswith("worker")), "nobody")


def _runs(count: int) -> str:
    return f"{count} run" if count == 1 else f"{count} runs"


def _print(console: Console, text: str) -> None:
    console.print(text, highlight=False, markup=False, soft_wrap=True)


def show_checks(console: Console, checks: Sequence[Check]) -> bool:
    """Print each check with how it came out; True when all hold."""
    console.print()
    for check in checks:
        mark = Text("✓ ", "bold green") if check.holds else Text("✗ ", "bold red")
        console.print(mark + Text(check.what if check.holds else f"{check.what}: {check.detail}"), soft_wrap=True)
    return all(check.holds for check in checks)
