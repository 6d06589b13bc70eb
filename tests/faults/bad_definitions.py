"""Modules whose workflows can't be, and what is said of each."""

from __future__ import annotations

MODULE = """
from mesh_sdk import Concurrency, Context, Mesh, RateLimit, WorkerLabel
mesh = Mesh()
{definition}
worker = mesh.worker("bad", workflows=[Flow])
"""

CYCLE = """
@mesh.workflow()
class Flow:
    @mesh.step(parents=["second"])
    def first(self, ctx: Context): ...
    @mesh.step(parents=["first"])
    def second(self, ctx: Context): ...
"""
UNKNOWN_PARENT = """
@mesh.workflow()
class Flow:
    @mesh.step(parents=["nowhere"])
    def first(self, ctx: Context): ...
"""
DUPLICATE = """
@mesh.workflow()
class Flow:
    @mesh.step(name="same")
    def first(self, ctx: Context): ...
    @mesh.step(name="same")
    def second(self, ctx: Context): ...
"""


LIMITED = """
@mesh.workflow(concurrency={concurrency})
class Flow:
    @mesh.step({step})
    def first(self, ctx: Context): ...
"""
KEY_AND_STEP = """
@mesh.workflow()
class Flow:
    @mesh.step()
    @mesh.concurrency(max_runs=1)
    def first(self, ctx: Context): ...
"""
DEFINITIONS = {
    "cycle": (CYCLE, "second"),
    "unknown_parent": (UNKNOWN_PARENT, "nowhere"),
    "duplicate_step": (DUPLICATE, "same"),
    "max_runs": (LIMITED.format(concurrency="Concurrency('input.a', max_runs=0)", step=""), "max_runs of the concurrency of .* is 0: use"),
    "strategy": (LIMITED.format(concurrency="Concurrency('input.a', limit_strategy='FIFO')", step=""), "is 'FIFO': use one of"),
    "expression": (LIMITED.format(concurrency="'input.a +'", step=""), "is 'input.a \\+', which is not complete: use a dotted path"),
    "unit": (LIMITED.format(concurrency="[]", step="rate_limits=[RateLimit('a', 1, 'fortnight')]"), "is 'fortnight': use second, minute"),
    "units": (LIMITED.format(concurrency="[]", step="rate_limits=[RateLimit('a', 1, units=2)]"), "is 2, more than its limit of 1"),
    "label": (LIMITED.format(concurrency="[]", step="desired_worker_labels={'gpu': True}"), "label 'gpu' of .* is True: use text"),
    "comparator": (
        LIMITED.format(concurrency="[]", step="desired_worker_labels={'gpu': WorkerLabel([1], comparator='<')}"),
        "is \\[1\\], which '<' can't compare with",
    ),
    "slots": (LIMITED.format(concurrency="[]", step="slots=0"), "slots of step 'first' is 0: use a whole number from 1"),
    "key_and_step": (KEY_AND_STEP, "'first' is marked with @mesh.concurrency\\(\\): it can't be a step too"),
}
"""Name → (definition, a pattern of the message)."""
