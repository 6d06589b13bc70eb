"""`python -m bench.flow`: what a decision of the pure core costs with 100, 10,000 and 100,000 runs waiting, without IO.

A decision is a report that frees a slot, and the run that gets it: of the key whose turn it is, of up to 10,000 keys. Of several
repeats the fastest counts. Ends with 1 if one among the most takes more than twice as long as one among the fewest.
"""

from __future__ import annotations

import gc
import itertools
import statistics
import sys
import time

from msgspec import Raw

from mesh.core.core import Core
from mesh.core.inputs import SELF, Sender, TermBegan
from mesh.core.records import StepReleased
from mesh.core.state import State
from mesh_sdk.protocol import records as wire
from mesh_sdk.protocol.definitions import ConcurrencyDefinition, RateDefinition, StepDefinition, WorkflowDefinition

SLOTS = 50
KEYS_MAX = 10_000
DECISIONS = 2_000
REPEATS = 3
RATIO_MOST = 2.0
NOW = 1_700_000_000_000
NULL = Raw(b"null")

TURNS = [ConcurrencyDefinition(1_000, key="input.k")]
PLACES = [ConcurrencyDefinition(1, key="input.k")]
WORKFLOWS = {
    "no limits": WorkflowDefinition("w", [StepDefinition("a")]),
    "turns": WorkflowDefinition("w", [StepDefinition("a")], concurrency=TURNS),
    "groups of one": WorkflowDefinition("w", [StepDefinition("a")], concurrency=PLACES),
    "groups and a rate": WorkflowDefinition(
        "w", [StepDefinition("a", rate_limits=[RateDefinition("r", 10**9, 1_000)])], concurrency=PLACES
    ),
}


def decisions(workflow: WorkflowDefinition, waiting: int) -> float:
    """Microseconds of a decision, the median."""
    state = State(1_000)
    tokens = itertools.count()
    core = Core(state, lambda: f"{next(tokens):016x}")
    core.begin(NOW)
    core.decide(TermBegan("me"), SELF)
    worker, client = Sender("w1", "0001"), Sender("client", "", 0, 1)
    core.decide(wire.Register("w1", SLOTS, [workflow], {}, "c"), worker)
    keys = min(KEYS_MAX, max(10, waiting // 10))
    for number in range(waiting + SLOTS):
        core.decide(wire.Start(f"{NOW:012x}{number:020x}", "w", Raw(b'{"k":"%d"}' % (number % keys))), client)
    out = [fact for fact in core.take() if type(fact) is StepReleased]
    spent: list[float] = []
    gc.freeze()
    while len(spent) < min(DECISIONS, waiting - SLOTS):
        fact = out.pop(0)
        report = wire.Finished(fact.run, 0, fact.attempt, fact.token, NULL)
        began = time.perf_counter()
        core.decide(report, worker)
        records = core.take()
        spent.append(time.perf_counter() - began)
        out += [record for record in records if type(record) is StepReleased]
    return statistics.median(spent) * 1e6


def main() -> int:
    gc.set_threshold(50_000, 20, 100)
    sizes = (100, 10_000, 100_000)
    print(f"{'waiting':>18}" + "".join(f"{size:>24,}" for size in sizes) + "      ratio")
    most = 0.0
    for name, workflow in WORKFLOWS.items():
        took = [min(decisions(workflow, size) for _ in range(REPEATS)) for size in sizes]
        most = max(most, took[-1] / took[0])
        row = "".join(f"{each:9.2f} µs {1e6 / each:>9,.0f}/s" for each in took)
        print(f"{name:>18}{row}{took[-1] / took[0]:11.2f}", flush=True)
    return 0 if most <= RATIO_MOST else 1


if __name__ == "__main__":
    sys.exit(main())
