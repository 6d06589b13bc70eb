"""What workers executed in a chaos run, by their own clocks, held against the promises about executions.

Rule: an execution that did not say its end lasted until its process was killed.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import NamedTuple

from mesh.core import records as facts
from tests.chaos.audit import Audit
from tests.chaos.history import Line
from tests.chaos.ledger import Ledger
from tests.chaos.workload import HARD, STICKY

ENDS = ("end", "fail", "cancelled")
Attempt = tuple[str, str, int]
"""(run, step, attempt)."""


class Span(NamedTuple):
    """One execution."""

    run: str
    workflow: str
    step: str
    attempt: int
    worker: str
    pid: int
    since: float
    until: float
    holds_until: float
    """When its slot was free again: lent, or at its end."""
    how: str
    """One of ENDS, "" when its process was killed."""


def spans(lines: list[Line]) -> list[Span]:
    """Every execution, in the order of their beginnings."""
    last = {line.pid: line.at for line in lines}
    later: dict[tuple[int, str, str, int], dict[str, float]] = defaultdict(dict)
    for line in lines:
        if line.what in (*ENDS, "lends"):
            later[line.pid, line.fields["run"], line.fields["step"], line.fields["attempt"]][line.what] = line.at
    kills = [line for line in lines if line.what == "fault" and line.fields["kind"] == "worker killed"]
    found = []
    for line in lines:
        if line.what != "begin":
            continue
        run, step, attempt = line.fields["run"], line.fields["step"], line.fields["attempt"]
        after = later[line.pid, run, step, attempt]
        how = next((what for what in ENDS if what in after), "")
        died = min(
            (kill.fields["since"] for kill in kills if kill.fields["target"] == line.role and kill.fields["since"] >= line.at),
            default=last[line.pid],
        )
        until = after[how] if how else max(died, line.at)
        found.append(
            Span(
                run, line.fields["workflow"], step, attempt, line.fields["worker"], line.pid, line.at, until, after.get("lends", until), how
            )
        )
    return found


def check(ledger: Ledger, executed: list[Span], audit: Audit, names: dict[tuple[str, int], str], slots: int) -> None:
    """Enter all promises about executions.

    Args:
        names: (run, step's index) → the step's name.
        slots: of each worker.
    """
    _check_once(ledger, executed)
    _check_slots(ledger, executed, slots)
    by_run: dict[str, list[Span]] = defaultdict(list)
    for span in executed:
        if span.workflow in STICKY:
            by_run[span.run].append(span)
    places = _Places(audit, names)
    for run, its in by_run.items():
        since, until = its[0].since, max(span.until for span in its)
        if its[0].workflow in HARD:
            workers = {span.worker for span in its}
            ledger.check("hard", len(workers) == 1, f"HARD run {run} was on {sorted(workers)}", since, until)
        twice = places.two_at_once(its)
        ledger.check("one place", twice is None, f"run {run} was live on two workers: {twice}", since, until)


def _check_once(ledger: Ledger, executed: list[Span]) -> None:
    counts = Counter((span.run, span.step, span.attempt) for span in executed)
    for span in executed:
        times = counts[span.run, span.step, span.attempt]
        what = f"{span.step}#{span.attempt} of {span.workflow} run {span.run} was executed {times} times, here by {span.worker}"
        ledger.check("executed once", times == 1, what, span.since, span.until)


def _check_slots(ledger: Ledger, executed: list[Span], slots: int) -> None:
    by_process: dict[int, list[Span]] = defaultdict(list)
    for span in executed:
        by_process[span.pid].append(span)
    for its in by_process.values():
        for span in its:
            busy = sum(other.since <= span.since < other.holds_until for other in its)
            ledger.check("slots", busy <= slots, f"{span.worker} ran {busy} steps at once in {slots} slots", span.since, span.until)


class _Places:
    """What the journal says about where attempts were given, and which workers were given up."""

    def __init__(self, audit: Audit, names: dict[tuple[str, int], str]) -> None:
        self._released: dict[Attempt, int] = {}
        self._gone: dict[str, list[int]] = defaultdict(list)
        for kept in audit.frames:
            for record in kept.frame.records:
                if isinstance(record, facts.StepReleased):
                    self._released[record.run, names.get((record.run, record.step), ""), record.attempt] = kept.sequence
                elif isinstance(record, facts.WorkerGone):
                    self._gone[record.worker].append(kept.sequence)

    def two_at_once(self, its: list[Span]) -> str | None:
        """Two executions on two workers at once, neither of which had been given up for the other."""
        for one in its:
            for other in its:
                at_once = one.worker != other.worker and one.since <= other.since < one.until
                if at_once and not self._given_up(one, other) and not self._given_up(other, one):
                    return f"{one.step}#{one.attempt} on {one.worker} and {other.step}#{other.attempt} on {other.worker}"
        return None

    def _given_up(self, one: Span, other: Span) -> bool:
        """Whether the first one's worker was given up before the other one was given out. Cut off, it may have begun even after that."""
        given, later = (self._released.get((span.run, span.step, span.attempt), 0) for span in (one, other))
        return any(given <= gone <= later for gone in self._gone[one.worker])
