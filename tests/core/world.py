"""A small world around the core: workers that take what is sent to them, and answer, in any order a seed says."""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass, field

from msgspec import Raw

from mesh.core.check import check
from mesh.core.core import Core
from mesh.core.effects import Teller
from mesh.core.image import digest
from mesh.core.inputs import SELF, EventArrived, Sender, TermBegan, TimePassed, WorkerVanished
from mesh.core.records import Fact
from mesh.core.state import State
from mesh_sdk.protocol import records as wire
from mesh_sdk.protocol.definitions import StepDefinition, WorkflowDefinition

T0 = 1_700_000_000_000


def chain(name: str = "chain", steps: int = 3, **options: object) -> WorkflowDefinition:
    """a → b → c …"""
    names = "abcdefgh"[:steps]
    return WorkflowDefinition(name, [StepDefinition(n, [i - 1] if i else [], **options) for i, n in enumerate(names)])  # type: ignore[arg-type]


def diamond(name: str = "diamond", **options: object) -> WorkflowDefinition:
    """a, b → c, d → e"""
    return WorkflowDefinition(
        name,
        [
            StepDefinition("a"),
            StepDefinition("b", **options),  # type: ignore[arg-type]
            StepDefinition("c", [0, 1], **options),  # type: ignore[arg-type]
            StepDefinition("d", [1]),
            StepDefinition("e", [2, 3]),
        ],
    )


@dataclass
class Holder:
    """A worker as the world sees it."""

    id: str
    incarnation: str
    slots: int
    running: dict[str, wire.Assign] = field(default_factory=dict)
    lent: set[str] = field(default_factory=set)

    @property
    def sender(self) -> Sender:
        return Sender(self.id, self.incarnation)

    @property
    def room(self) -> int:
        return self.slots - len(self.running) + len(self.lent)


class World:
    """The core, its effects delivered, its journal kept."""

    def __init__(self, seed: int = 0, finished_max: int = 1000) -> None:
        self.random = random.Random(seed)
        self.state = State(finished_max)
        tokens = itertools.count(1)
        self.core = Core(self.state, lambda: f"t{next(tokens)}")
        self.teller = Teller(self.state)
        self.journal: list[tuple[int, Fact]] = []
        self.now = T0
        self.workers: dict[str, Holder] = {}
        self.shared: dict[str, list[wire.Assign]] = {}
        self.private: dict[tuple[str, str], list[wire.Order]] = {}
        self.notices: list[wire.Notice] = []
        self.executed: list[tuple[str, int, int, str]] = []
        self.serial = itertools.count(1)
        self.finished_max = finished_max
        self.decide(TermBegan("me"))

    def decide(self, input: object, sender: Sender = SELF) -> list[Fact]:
        """Decide one input and deliver what follows."""
        self.core.begin(self.now)
        self.core.decide(input, sender)
        facts = self.core.take()
        self.journal += [(self.state.now, fact) for fact in facts]
        effects = self.teller.tell(facts)
        for pool, orders in effects.shared.items():
            self.shared.setdefault(pool, []).extend(orders)  # type: ignore[arg-type]
        for address, orders in effects.private.items():
            self.private.setdefault(address, []).extend(orders)
        for notices in effects.notices.values():
            self.notices += notices
        check(self.state)
        return facts

    def replayed(self) -> State:
        """A cold replay of the journal."""
        state = State(self.finished_max)
        for at, fact in self.journal:
            state.now = at
            state.apply(fact)
        state.now = self.state.now
        return state

    def same_when_replayed(self) -> bool:
        return digest(self.replayed()) == digest(self.state)

    # ---- what happens outside ---------------------------------------------------------------------------------------

    def join(self, id: str, workflows: list[WorkflowDefinition], slots: int = 2) -> Holder:
        holder = Holder(id, f"{next(self.serial):012x}", slots)
        self.workers[id] = holder
        self.decide(wire.Register("w", slots, workflows, {}, f"client-{id}"), holder.sender)
        return holder

    def start(self, workflow: str, **options: object) -> str:
        run = f"{self.now:012x}{next(self.serial):020x}"
        self.decide(wire.Start(run, workflow, Raw(b"{}"), **options), Sender("client", "", self.now))  # type: ignore[arg-type]
        return run

    def event(self, name: str, sequence: int) -> None:
        self.decide(EventArrived(sequence, T0 + sequence, name, Raw(b'{"n":1}')))

    def take(self, holder: Holder) -> list[wire.Assign]:
        """The worker takes what its lanes hold, private first, as far as it has room."""
        taken = []
        lane = self.private.get((holder.id, holder.incarnation), [])
        for order in list(lane):
            if isinstance(order, wire.Withdraw):
                lane.remove(order)
                if order.token in holder.running:
                    self.answer(
                        holder,
                        order.token,
                        wire.Failed(
                            order.run, order.step, order.attempt, order.token, wire.StepError("Cancelled", order.reason), "cancelled", -1
                        ),
                    )
            elif holder.room > 0:
                lane.remove(order)
                taken.append(order)
                holder.running[order.token] = order
        worker = self.state.workers.get(holder.id)
        if worker is not None and worker.incarnation == holder.incarnation:
            shared = self.shared.get(worker.pool.id, [])
            while shared and holder.room > 0:
                order = shared.pop(0)
                taken.append(order)
                holder.running[order.token] = order
        for order in taken:
            self.executed.append((order.run, order.step, order.attempt, holder.id))
        return taken

    def answer(self, holder: Holder, token: str, report: wire.Report) -> None:
        holder.running.pop(token, None)
        holder.lent.discard(token)
        self.decide(report, holder.sender)

    def finish(self, holder: Holder, order: wire.Assign, output: bytes = b"1") -> None:
        self.answer(holder, order.token, wire.Finished(order.run, order.step, order.attempt, order.token, Raw(output)))

    def fail(self, holder: Holder, order: wire.Assign, kind: str = "error", retry: int = 0) -> None:
        error = wire.StepError("ValueError", "no")
        self.answer(holder, order.token, wire.Failed(order.run, order.step, order.attempt, order.token, error, kind, retry))

    def accept(self, holder: Holder, order: wire.Assign) -> None:
        self.decide(wire.Accepted(order.run, order.step, order.attempt, order.token), holder.sender)

    def kill(self, holder: Holder) -> None:
        self.workers.pop(holder.id, None)
        worker = self.state.workers.get(holder.id)
        pool = worker.pool.id if worker else ""
        self.decide(WorkerVanished(holder.id, holder.incarnation, "lost"))
        if pool and pool not in self.state.pools:
            self.shared.pop(pool, None)
        self.private.pop((holder.id, holder.incarnation), None)

    def pass_time(self, ms: int) -> None:
        self.now += ms
        self.decide(TimePassed())

    def run_all(self, rounds: int = 1000) -> None:
        """Let every worker take and finish until nothing is left to do."""
        for _ in range(rounds):
            busy = False
            for holder in list(self.workers.values()):
                for order in self.take(holder):
                    busy = True
                    self.finish(holder, order)
            if not busy:
                return

    def done(self, run: str) -> wire.Done | None:
        found = [n for n in self.notices if isinstance(n, wire.Done) and n.run == run]
        assert len(found) <= 1, f"told twice: {found}"
        return found[0] if found else None
