"""What the demo knows at a moment: the processes, the files, the packages. Asked of the mesh, drawn by the screen.

Rule: replaced piece by piece, never half: the screen reads it from another thread.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from mesh.demo.processes import Process
from mesh_sdk import RunInfo, WorkerInfo

LEADS, FOLLOWS, KILLED, AWAY, WORKS = "leads", "follows", "killed", "away", "works"


@dataclass
class Picture:
    """All of it.

    Attributes:
        files: how many there are, by package.
        processes: schedulers and workers.
        roles: what each scheduler does, by name.
        used: slots in use, by worker, by the leader's count or its own; a worker that the leader no longer knows is not in it.
        slots: that each of these workers has.
        done: files that are indexed, by package.
        steps: steps that have succeeded, by the worker of their last attempt.
        runs: what the mesh told last of every file's run.
    """

    files: Counter[str]
    processes: Sequence[Process] = ()
    roles: dict[str, str] = field(default_factory=dict)
    used: dict[str, int] = field(default_factory=dict)
    slots: dict[str, int] = field(default_factory=dict)
    done: Counter[str] = field(default_factory=Counter)
    steps: Counter[str] = field(default_factory=Counter)
    runs: Sequence[RunInfo] = ()
    began: float = field(default_factory=time.monotonic)

    @property
    def elapsed(self) -> float:
        """Seconds since the demo began."""
        return time.monotonic() - self.began

    @property
    def files_total(self) -> int:
        """How many files there are."""
        return self.files.total()

    @property
    def files_done(self) -> int:
        """How many of them are indexed."""
        return self.done.total()

    @property
    def leader(self) -> Process | None:
        """The scheduler that leads; None while none does."""
        return next((each for each in self.processes if self.roles.get(each.name) == LEADS), None)

    def state_of(self, process: Process) -> str:
        """One word for what a process does."""
        if process.killed:
            return KILLED
        if process.name.startswith("worker"):
            return WORKS if process.name in self.used else AWAY
        return self.roles.get(process.name, AWAY)

    def see_workers(self, workers: Iterable[WorkerInfo]) -> None:
        """Take over what the leader knows of the workers."""
        found = list(workers)
        self.slots = {each.id: each.slots for each in found}
        self.used = {each.id: max(each.used, each.running) for each in found}

    def see_runs(self, runs: Sequence[RunInfo]) -> None:
        """Take over what the leader knows of the files' runs."""
        steps = [step for run in runs for step in run.steps.values()]
        self.steps = Counter(step.worker for step in steps if step.worker and step.status == "succeeded")
        self.done = Counter(run.metadata.get("package", "") for run in runs if run.status == "succeeded")
        self.runs = runs
