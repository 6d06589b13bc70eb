"""What workers of a simulated mesh register: everything, or less of it. Rule: nothing is defined here."""

from __future__ import annotations

from tests.simulation.limited import LIMITED
from tests.simulation.workflows import PLAIN, Chain, Hard, Soft, audit, one

EVERYTHING = (*PLAIN, *LIMITED)
WITHOUT_HARD = tuple(workflow for workflow in EVERYTHING if workflow is not Hard)
_FEW_NAMES = ("turns", "latest_asked", "choosy")
FEWER = (one, audit, Chain, Soft, *(workflow for workflow in LIMITED if workflow.name in _FEW_NAMES))
