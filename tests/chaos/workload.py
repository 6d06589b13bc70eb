"""What clients start in a chaos run, and what each run must give: the same table for the clients and the checkers.

Rule: a result follows from the input alone, whatever is killed on the way.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Input = dict[str, Any]

EXPECTED: dict[str, Callable[[int], Any]] = {
    "one": lambda n: n + 1,
    "chain": lambda n: n + 3,
    "diamond": lambda n: 2 * n + 4,
    "flaky": lambda n: n + 1,
    "soft": lambda n: 2 * n + 4,
    "hard": lambda n: 2 * n + 4,
    "soft_parent": lambda n: 2 * n + 2,
    "hard_parent": lambda n: 2 * n + 2,
}
"""Workflow → result of a run with the number `n`."""

FAILS = "broken"
"""Fails for good after its retries."""
LONG = "long"
"""Takes long enough to be cancelled."""
ON_EVENT = {"order.paid": ("on_paid", "on_any"), "order.made": ("on_any",)}
"""Event → the workflows that it starts."""
HARD = ("hard", "hard_parent", "hard_child")
STICKY = (*HARD, "soft", "soft_parent", "soft_child")
WORKERS = ("w-0", "w-1", "w-2", "w-3")
