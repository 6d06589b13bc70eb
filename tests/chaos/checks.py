"""The promises, held against the whole history of a chaos run and its whole journal.

Rule: the same checkers for every run, whatever was done to it; they know nothing of the faults.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from typing import Any

from mesh.core import records as facts
from mesh.core.effects import done
from mesh.core.state import State
from tests.chaos import executions
from tests.chaos.audit import Audit
from tests.chaos.history import Line
from tests.chaos.ledger import Ledger
from tests.chaos.workload import EXPECTED, FAILS, LONG, ON_EVENT

ENDED = (facts.StepFinished, facts.StepFailed, facts.StepReturned, facts.AttemptEnded)


class Checks:
    """One pass over a finished run.

    Args:
        lines: its history.
        audit: its journal.
        slots: of each worker.
    """

    def __init__(self, lines: list[Line], audit: Audit, slots: int) -> None:
        self.lines = lines
        self.ledger = Ledger([line for line in lines if line.what == "fault"])
        self.executed = executions.spans(lines)
        self._audit = audit
        self._slots = slots
        self._state, self._digests = audit.replay()
        self._seen = {kept.sequence: kept.at for kept in audit.frames}
        self._names = {(run.id, step.index): step.name for run in self._state.finished.all() for step in run.steps}
        self._by: dict[str, list[Line]] = defaultdict(list)
        for line in lines:
            self._by[line.what].append(line)

    def all(self) -> Ledger:
        """Enter everything but what only the run itself can know (`tail`)."""
        self._check_stored()
        self._check_ends()
        self._check_recorded()
        self._check_recorded_once()
        executions.check(self.ledger, self.executed, self._audit, self._names, self._slots)
        self._check_events()
        self._check_keys()
        self._check_results()
        self._check_states()
        return self.ledger

    # ---- what was acknowledged --------------------------------------------------------------------------------------

    def _check_stored(self) -> None:
        journal = {kept.sequence: kept.digest for kept in self._audit.frames}
        known = {*self._audit.started, *self._audit.refused, *self._audit.repeated}
        events = {
            record.sequence for kept in self._audit.frames for record in kept.frame.records if isinstance(record, facts.EventReceived)
        }
        given: dict[tuple[str, int], str] = {}
        for line in self._by["ack"]:
            stream, sequence, digest = line.fields["stream"], line.fields["sequence"], line.fields["digest"]
            first = given.setdefault((stream, sequence), digest)
            found = journal.get(sequence, "nothing") if stream == "journal" else first
            missing = [run for run in line.fields.get("runs", ()) if run not in known]
            if stream == "events" and sequence not in events:
                missing.append(f"event {sequence}")
            self.ledger.check(
                "stored", digest == first == found and not missing,
                f"{stream} {sequence}: acknowledged {digest}, the same sequence before {first}, stored is {found}, not decided: {missing}",
                line.at, line.at,
            )  # fmt: skip
        for text in self._audit.complaints:
            self.ledger.check("stored", False, text)

    def _check_ends(self) -> None:
        unended = set(self._audit.unended([]))
        seen = {
            record.run: kept.at for kept in self._audit.frames for record in kept.frame.records if isinstance(record, facts.RunFinished)
        }
        for line in self._by["start"]:
            requested = line.fields["requested"]
            run = self._audit.repeated.get(requested, requested)
            self.ledger.check(
                "ends",
                run in self._audit.ended,
                f"{line.fields['workflow']} run {run} has not ended",
                line.at,
                seen.get(run, self.lines[-1].at),
            )
        for run in unended - {line.fields["requested"] for line in self._by["start"]}:
            self.ledger.check("ends", False, f"{self._audit.started[run].workflow} run {run}, of an event or a parent, has not ended")

    # ---- completions ------------------------------------------------------------------------------------------------

    def _check_recorded(self) -> None:
        released: dict[str, tuple[str, int]] = {}
        ended: set[str] = set()
        completed: set[tuple[str, int]] = set()
        for kept in self._audit.frames:
            for record in kept.frame.records:
                if isinstance(record, facts.StepReleased):
                    released[record.token] = (record.run, record.step)
                elif isinstance(record, ENDED):
                    ended.add(record.token)
                    if isinstance(record, facts.StepFinished):
                        completed.add((record.run, record.step))
        for line in self._by["ack"]:
            for token in line.fields.get("finished", ()):
                place = released.get(token)
                over = place is not None and (end := self._audit.ended.get(place[0])) is not None and end.status != "succeeded"
                self.ledger.check(
                    "recorded",
                    token in ended or place in completed or over,
                    f"attempt {token} of {place} finished and is not recorded",
                    line.at,
                    line.at,
                )

    def _check_recorded_once(self) -> None:
        ends = {(span.run, span.step, span.attempt, span.worker): span for span in self.executed if span.how == "end"}
        counts: Counter[tuple[object, ...]] = Counter()
        for kept in self._audit.frames:
            for record in kept.frame.records:
                if isinstance(record, facts.StepFinished):
                    step = self._names.get((record.run, record.step), "?")
                    span = ends.get((record.run, step, record.attempt, record.worker))
                    self._count(counts, ("step", record.run, step), kept.at if span is None else span.until, kept.at)
                    if span is None:
                        self.ledger.check(
                            "recorded once",
                            False,
                            f"{step}#{record.attempt} of {record.run} is recorded of {record.worker}, which did not run it to its end",
                            kept.at,
                        )
                elif isinstance(record, facts.RunFinished):
                    self._count(counts, ("end of run", record.run), kept.at, kept.at)
                elif isinstance(record, facts.RunStarted):
                    self._count(counts, ("start of run", record.run), kept.at, kept.at)
                elif isinstance(record, facts.StepReleased):
                    self._count(counts, ("release", record.run, record.step, record.attempt), kept.at, kept.at)

    def _count(self, counts: Counter[tuple[object, ...]], what: tuple[object, ...], since: float, until: float) -> None:
        counts[what] += 1
        self.ledger.check("recorded once", counts[what] == 1, f"{what} is recorded {counts[what]} times", since, until)

    # ---- starting ---------------------------------------------------------------------------------------------------

    def _check_events(self) -> None:
        runs: Counter[tuple[int, str]] = Counter()
        numbers: dict[int, int] = {}
        sequence, at = 0, {}
        for kept in self._audit.frames:
            for record in kept.frame.records:
                if isinstance(record, facts.EventReceived):
                    sequence = record.sequence
                    numbers[sequence] = json.loads(bytes(record.input))["n"]
                    at[sequence] = kept.at
                elif isinstance(record, facts.RunStarted) and record.event:
                    runs[sequence, record.workflow] += 1
        for line in self._by["event"]:
            sequence = line.fields["sequence"]
            for workflow in ON_EVENT[line.fields["name"]]:
                times, number = runs[sequence, workflow], numbers.get(sequence)
                self.ledger.check(
                    "event", times == 1 and number == line.fields["n"],
                    f"event {sequence} started {workflow} {times} times (with {number})", line.at, at.get(sequence, line.at),
                )  # fmt: skip

    def _check_keys(self) -> None:
        told: dict[str, set[str]] = defaultdict(set)
        recorded: dict[str, set[str]] = defaultdict(set)
        for run, record in self._audit.started.items():
            recorded[record.key].add(run)
        for line in self._by["keyed"]:
            told[line.fields["key"]].add(line.fields["run"])
        for line in self._by["keyed"]:
            key = line.fields["key"]
            self.ledger.check(
                "key", len(told[key] | recorded[key]) == 1, f"key {key} has runs {sorted(told[key] | recorded[key])}", line.at, line.at
            )

    # ---- results ----------------------------------------------------------------------------------------------------

    def _check_results(self) -> None:
        starts = {line.fields["requested"]: line for line in self._by["start"]}
        cancelled = {line.fields["run"] for line in self._by["cancel"]}
        for line in self._by["result"]:
            run, workflow, status, value = (line.fields[name] for name in ("run", "workflow", "status", "value"))
            start = starts.get(run)
            wrong = _differs(self._state, run, status, value)
            if start is not None and not start.fields["key"] and status == "succeeded" and workflow in EXPECTED:
                expected = EXPECTED[workflow](start.fields["n"])
                wrong += f"; {value} is not {expected}" if value != expected else ""
            wish = (
                ("failed",) if workflow == FAILS else ("succeeded", "cancelled") if run in cancelled or workflow == LONG else ("succeeded",)
            )
            if status not in wish:
                wrong += f"; it {status}: {line.fields['error']}"
            self.ledger.check("result", not wrong, f"{workflow} run {run}: {wrong}", start.at if start else line.at, line.at)

    def _check_states(self) -> None:
        self.ledger.check("state", not self._audit.unreplayable, self._audit.unreplayable)
        for at, sequence, said in self._audit.samples:
            if sequence in self._digests:  # else it was of a leader whose frame did not stand
                self.ledger.check(
                    "state",
                    self._digests[sequence] == said,
                    f"at frame {sequence} a scheduler has {said}, a replay {self._digests[sequence]}",
                    at,
                )

    def figures(self) -> dict[str, Any]:
        """What was done."""
        kinds = Counter(line.fields["kind"] for line in self._by["fault"])
        ends = Counter((span.run, span.step) for span in self.executed if span.how == "end")
        return {
            "starts": len(self._by["start"]),
            "events": len(self._by["event"]),
            "runs": len(self._audit.started),
            "steps": len(self.executed),
            "acknowledgements": len(self._by["ack"]),
            "frames": len(self._audit.frames),
            "frames read again": self._audit.repeats,
            "terms": sum(isinstance(record, facts.TermStarted) for kept in self._audit.frames for record in kept.frame.records),
            "refused": len(self._by["refused"]),
            "kills": sum(times for kind, times in kinds.items() if "killed" in kind),
            "pauses": sum(times for kind, times in kinds.items() if "paused" in kind),
            "stops": sum(times for kind, times in kinds.items() if "SIGTERM" in kind),
            "cuts": sum(times for kind, times in kinds.items() if kind.startswith("network")),
            "partitions": sum(times for kind, times in kinds.items() if "partitioned" in kind),
            "clock jumps": sum(times for kind, times in kinds.items() if kind.startswith("clock")),
            "executed to the end more than once": sum(times - 1 for times in ends.values()),
            "given up executions": sum(span.how != "end" for span in self.executed),
            "completions lost": self.ledger.broken["recorded"],
            "recorded twice": self.ledger.broken["recorded once"],
            "attempts executed twice": self.ledger.broken["executed once"],
        }


def _differs(state: State, run: str, status: str, value: Any) -> str:
    """How what a client was told differs from what is recorded, "" for not at all."""
    known = state.finished.get(run)
    if known is None:
        return f"told {status}, not recorded at all"
    recorded = done(known)
    if recorded.status != status:
        return f"told {status}, recorded {recorded.status}"
    if status == "succeeded" and json.loads(bytes(recorded.output)) != value:
        return f"told {value}, recorded {bytes(recorded.output)!r}"
    return ""
