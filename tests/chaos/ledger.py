"""What was checked: one item for each thing that a promise is about, with the time in which it could have been broken."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from tests.chaos.history import Line

PROMISES = {
    "stored": "what was acknowledged is stored",
    "ends": "an acknowledged start ends",
    "recorded": "a completion is recorded",
    "recorded once": "…and once",
    "executed once": "one attempt, one execution",
    "slots": "no worker holds more than its slots",
    "hard": "HARD stays on one worker",
    "one place": "a sticky run is live in one place",
    "event": "an event starts each workflow once",
    "key": "a key starts one run",
    "result": "what is told is what is recorded",
    "state": "leader, standby and replay have one state",
    "tail": "new work runs at once afterwards",
}
FINDINGS_MAX = 20
"""Of each promise; the count is exact."""


@dataclass
class Ledger:
    """Items checked and items broken, for each promise, as a whole and while each kind of fault was in force."""

    faults: list[Line]
    checked: Counter[str] = field(default_factory=Counter)
    broken: Counter[str] = field(default_factory=Counter)
    in_force: Counter[tuple[str, str]] = field(default_factory=Counter)
    broken_in_force: Counter[tuple[str, str]] = field(default_factory=Counter)
    findings: list[str] = field(default_factory=list)

    def check(self, promise: str, holds: bool, finding: str, since: float | None = None, until: float | None = None) -> None:
        """Enter an item.

        Args:
            promise: of `PROMISES`.
            holds: whether it is kept.
            finding: what is wrong, if not.
            since, until: when; None: it can't be said.
        """
        kinds = () if since is None else self._kinds(since, until or since)
        self.checked[promise] += 1
        self.in_force.update((kind, promise) for kind in kinds)
        if not holds:
            self.broken[promise] += 1
            self.broken_in_force.update((kind, promise) for kind in kinds)
            if self.broken[promise] <= FINDINGS_MAX:
                self.findings.append(f"{PROMISES[promise]}: {finding}")

    def _kinds(self, since: float, until: float) -> set[str]:
        return {line.fields["kind"] for line in self.faults if line.fields["since"] <= until and line.fields["until"] >= since}

    def summary(self) -> dict[str, Any]:
        """As a report has it."""
        kinds = Counter(line.fields["kind"] for line in self.faults)
        return {
            "promises": {promise: {"checked": self.checked[promise], "broken": self.broken[promise]} for promise in PROMISES},
            "faults": {
                kind: {
                    "times": times,
                    "promises": {
                        promise: {"checked": self.in_force[kind, promise], "broken": self.broken_in_force[kind, promise]}
                        for promise in PROMISES
                    },
                }
                for kind, times in sorted(kinds.items())
            },
            "findings": self.findings,
        }
