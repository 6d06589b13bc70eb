"""How long a flood of urgent steps holds up the others, in core time, with keys that are ever new."""

from __future__ import annotations

import itertools
from heapq import heappop, heappush

import pytest
from msgspec import Raw

from mesh.core.core import Core
from mesh.core.inputs import SELF, Sender, TermBegan
from mesh.core.line import AGED_MS
from mesh.core.records import StepReleased
from mesh.core.state import State
from mesh_sdk.protocol import records as wire
from mesh_sdk.protocol.definitions import ConcurrencyDefinition, LabelDefinition, StepDefinition, WorkflowDefinition
from tests.core.world import T0

SLOTS, STEP_MS = 4, 500
PERIOD_MS = 2_000
"""How often one of each priority comes."""
OLD = 5
"""Steps of the one key that has been there from the beginning."""
GIVEN_UP_MS = 600_000
LIMIT = [ConcurrencyDefinition(1_000, key="input.k", scope="s")]
PLAIN = WorkflowDefinition("plain", [StepDefinition("a")], concurrency=LIMIT)
CHOOSY = WorkflowDefinition("choosy", [StepDefinition("a", labels=[LabelDefinition("gpu", 1, required=True)])], concurrency=LIMIT)


class Mesh:
    """A leader and one worker; every step takes as long."""

    def __init__(self, workflows: list[WorkflowDefinition]) -> None:
        self.now = T0
        self.numbers = itertools.count()
        self.core = Core(State(10), lambda: f"{next(self.numbers):016x}")
        self.names = itertools.cycle(workflow.name for workflow in workflows)
        self.worker = Sender("w1", "0001")
        self.running: list[tuple[int, str, StepReleased]] = []
        self.waiting: dict[str, int] = {}
        """Run → its priority."""
        self.served: dict[str, int] = {}
        """Run → when its step went out."""
        self.tell(TermBegan("me"), SELF)
        self.tell(wire.Register("w1", SLOTS, workflows, {"gpu": 1}, "c"), self.worker)

    def tell(self, input: object, sender: Sender) -> None:
        self.core.begin(self.now)
        self.core.decide(input, sender)
        for fact in self.core.take():
            if isinstance(fact, StepReleased):
                heappush(self.running, (self.now + STEP_MS, fact.token, fact))
                self.waiting.pop(fact.run, None)
                self.served[fact.run] = self.now - T0

    def start(self, priority: int, key: str = "") -> str:
        run = f"{self.now:012x}{next(self.numbers):020x}"
        self.waiting[run] = priority
        key = key or run
        self.tell(wire.Start(run, next(self.names), Raw(b'{"k":"%s"}' % key.encode()), priority=priority), Sender("c", "", self.now))
        return run

    def finish(self) -> None:
        _, _, fact = heappop(self.running)
        self.tell(wire.Finished(fact.run, fact.step, fact.attempt, fact.token, Raw(b"null")), self.worker)


def longest_wait(workflows: list[WorkflowDefinition], *, flooded: bool) -> int:
    """Milliseconds until the last of the old steps of priority 1 goes out."""
    mesh = Mesh(workflows)

    def flood() -> None:
        while flooded and list(mesh.waiting.values()).count(9) < 2 * SLOTS:
            mesh.start(9)

    for _ in range(SLOTS):
        mesh.start(9)
    flood()
    old = [mesh.start(1, "old") for _ in range(OLD)]
    others_at = T0
    while any(run not in mesh.served for run in old) and mesh.now < T0 + GIVEN_UP_MS:
        mesh.now = min(mesh.running[0][0] if mesh.running else others_at, others_at)
        if mesh.now == others_at:
            others_at += PERIOD_MS
            for priority in range(1, 9):
                mesh.start(priority)
        else:
            mesh.finish()
        flood()
    return max(mesh.served.get(run, GIVEN_UP_MS) for run in old)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("workflows", [[PLAIN], [PLAIN, CHOOSY]], ids=["one line", "several lines"])
def test_keys_that_are_ever_new_do_not_hold_an_old_one_up_for_longer(workflows: list[WorkflowDefinition]) -> None:
    """They come after it, and have earlier turns than its second step: they go along with it, and don't wait for 80 s each."""
    calm, flooded = longest_wait(workflows, flooded=False), longest_wait(workflows, flooded=True)
    came_meanwhile = 8 * AGED_MS // PERIOD_MS * STEP_MS // SLOTS  # of its own priority; in the calm they went out as they came
    assert flooded <= calm + 8 * AGED_MS + came_meanwhile + 2 * STEP_MS
