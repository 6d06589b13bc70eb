"""Names of the simulated workflows by what they promise. Rule: no imports, so that checkers need not load the workflows."""

from __future__ import annotations

RESULTS: dict[str, object] = {
    "one": "one", "chain": "third", "diamond": "bottom", "soft": "bottom", "hard": "bottom", "parent": 2, "family": 1
}  # fmt: skip
"""What comes of a run that succeeds."""
NAMES = tuple(RESULTS)
HARD_NAMES = frozenset({"hard"})
STICKY_NAMES = frozenset({"soft", "hard", "family"})
LISTENERS = (("one", ""), ("audit", ".paid"))
"""(workflow, end of the names of the events that start it)."""
