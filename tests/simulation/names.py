"""Names of the simulated workflows by what they promise. Rule: no imports, so that checkers need not load the workflows."""

from __future__ import annotations

NAMES = ("one", "chain", "diamond", "soft", "hard", "parent", "family")
HARD_NAMES = frozenset({"hard"})
STICKY_NAMES = frozenset({"soft", "hard", "family"})
LISTENERS = (("one", ""), ("audit", ".paid"))
"""(workflow, end of the names of the events that start it)."""
