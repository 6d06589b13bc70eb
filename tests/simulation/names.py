"""Names of the simulated workflows by what they promise. Rule: no imports, so that checkers need not load the workflows."""

from __future__ import annotations

RESULTS: dict[str, object] = {
    "one": "one", "chain": "third", "diamond": "bottom", "soft": "bottom", "hard": "bottom", "parent": 2, "family": 1,
    "turns": "turns", "first": "first", "queued": "queued", "paced": "paced", "wide": 1, "latest": "after", "asked": "after",
    "latest_asked": "after", "first_asked": "after", "queued_asked": "after", "both": "after", "staged": "after", "choosy": "after",
    "settled": "after",
}  # fmt: skip
"""What comes of a run that succeeds."""
PLAIN_NAMES = tuple(RESULTS)[:7]
LIMITED_NAMES = tuple(RESULTS)[7:]
"""Those of `limits`."""
HARD_NAMES = frozenset({"hard"})
STICKY_NAMES = frozenset({"soft", "hard", "family", "settled"})
LISTENERS = (("one", ""), ("audit", ".paid"))
"""(workflow, end of the names of the events that start it)."""
