"""A small world around the core: workers that take what is sent to them and answer, in any order that a seed says.

The world is as unreliable as the real one may be: workers die and report after their death, messages are delivered
again, and the leader dies between any two records of a frame (`leader_dies`), whoever takes over reading the same
inputs again.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from contextlib import contextmanager

from msgspec import Raw

from mesh.core.check import check
from mesh.core.core import Core
from mesh.core.effects import Effects, Teller, assign, withdrawals
from mesh.core.image import digest, encode_image, image
from mesh.core.inputs import SELF, EventArrived, Sender, TermBegan, TimePassed, WorkerVanished
from mesh.core.loading import load
from mesh.core.records import Fact, StepReleased
from mesh.core.state import State
from mesh.core.step import READY, Step
from mesh_sdk.protocol import records as wire
from mesh_sdk.protocol.definitions import WorkflowDefinition
from mesh_sdk.protocol.ids import derived_run_id, run_id_time_ms
from tests.core.comparing import encoded, may_go_before, waited
from tests.core.holder import Holder
from tests.core.lost_lanes import lanes_lost
from tests.core.seen import Seen

T0 = 1_700_000_000_000


class World(Seen):
    """The core, its effects delivered, its journal kept."""

    def __init__(self, seed: int = 0, finished_max: int = 1000) -> None:
        self.random = random.Random(seed)
        self.finished_max = finished_max
        self.state = State(finished_max)
        self.tokens = (f"t{number}" for number in itertools.count(1))
        self.core = Core(self.state, self._token)
        self.teller = Teller(self.state)
        self.standby = State(finished_max)
        self.twins: list[tuple[Core, list[str]]] = []
        """Cores that must decide the same from now on, and the tokens that they are to give."""
        self.journal: list[tuple[int, Fact]] = []
        self.pending: list[tuple[object, Sender]] | None = None
        self.effects = Effects()
        self.now = T0
        self.workers: dict[str, Holder] = {}
        self.dead: list[Holder] = []
        self.shared: dict[str, list[wire.Assign]] = {}
        self.redelivered: dict[str, list[wire.Assign]] = {}
        self.private: dict[tuple[str, str], list[wire.Order]] = {}
        self.notices: list[tuple[str, wire.Notice]] = []
        self.executed: list[tuple[str, int, int, str]] = []
        self.serial = itertools.count(1)
        self.takeovers = 0
        self.decide(TermBegan("me"))
        self.core.settle()  # as in every other term, that is decided before its leader begins

    def _token(self) -> str:
        token = next(self.tokens)
        for _, tokens in self.twins:
            tokens.append(token)
        return token

    # ---- the leader -------------------------------------------------------------------------------------------------

    def decide(self, input: object, sender: Sender = SELF) -> list[Fact]:
        """Decide one input and deliver what follows; within `leader_dies` it waits for the others."""
        if self.pending is not None:
            self.pending.append((input, sender))
            return []
        self.core.begin(self.now)
        waiting = self._waiting()
        self.core.decide(input, sender)
        facts = self.core.take()
        self._check_order(waiting, facts)
        self._follow(facts)
        for twin, _ in self.twins:
            twin.begin(self.now)
            twin.decide(input, sender)
            assert encoded(twin.take()) == encoded(facts)
        self._deliver(facts)
        check(self.state)
        return facts

    @contextmanager
    def leader_dies(self, cut: float, taker: str) -> Iterator[None]:
        """What is told meanwhile is decided, but only a part of the records reaches the journal before the leader dies.

        Args:
            cut: how much of the records is journaled, 0 to 1.
            taker: who takes over: a warm "standby", a cold "replay" or one that loads an "image".
        """
        self.pending = []
        yield
        inputs, self.pending = self.pending, None
        self.core.begin(self.now)
        for input, sender in inputs:
            self.core.decide(input, sender)
        facts = self.core.take()
        self._follow(facts[: round(cut * len(facts))])
        self.take_over(taker)
        for input, sender in inputs:
            self.decide(input, sender)
        self.resend()

    def take_over(self, taker: str = "replay") -> None:
        """Another leader goes on from the journal."""
        self.twins.clear()
        self.takeovers += 1
        if taker == "standby":
            self.state, self.standby = self.standby, self.replayed()
        elif taker == "replay":
            self.state = self.replayed()
        else:
            self.state = load(encode_image(image(self.replayed())), self.finished_max)
        core = Core(self.state, lambda: "")
        core.decide(TermBegan(taker), SELF)
        self._follow(core.take())
        self.core = Core(self.state, self._token)
        self.teller = Teller(self.state)
        self.core.begin(self.now)
        facts = self.core.take()
        self._follow(facts)
        self._deliver(facts)
        check(self.state)
        if self.state.lanes_until:
            lanes_lost(self)  # once more: nobody knows how far the leader before had come

    def resend(self) -> None:
        """After a takeover: what is recorded, unanswered and in no lane is sent again, as is what must stop."""
        there = {order.token for lane in (*self.shared.values(), *self.redelivered.values()) for order in lane}
        there |= {order.token for lane in self.private.values() for order in lane if isinstance(order, wire.Assign)}
        there |= {token for holder in (*self.workers.values(), *self.dead) for token in holder.running}
        for token, attempt in self.state.attempts.items():
            if not attempt.held and token not in there:
                if attempt.worker is not None:
                    self.private.setdefault((attempt.worker.id, attempt.worker.incarnation), []).append(assign(attempt))
                else:
                    assert attempt.pool is not None
                    self.shared.setdefault(attempt.pool.id, []).append(assign(attempt))
        for address, orders in withdrawals(self.state).private.items():
            self.private.setdefault(address, []).extend(orders)

    def _follow(self, facts: list[Fact]) -> None:
        self.journal += [(self.state.now, fact) for fact in facts]
        if facts:
            self.standby.now = self.state.now
        for fact in facts:
            self.standby.apply(fact)
            self._journaled(fact)

    def _journaled(self, fact: Fact) -> None:
        """The standby has just applied it."""

    def _deliver(self, facts: list[Fact]) -> None:
        self.effects = effects = self.teller.tell(facts)
        for pool, orders in effects.shared.items():
            self.shared.setdefault(pool, []).extend(orders)  # type: ignore[arg-type]
        for address, orders in effects.private.items():
            self.private.setdefault(address, []).extend(orders)
        for client, notices in effects.notices.items():
            self.notices += [(client, notice) for notice in notices]

    def _waiting(self) -> list[tuple[Step, int]]:
        """Steps that wait for any slot, where age alone decides: nobody takes turns, and they want nothing of their worker."""
        if any(flow.keyed for flow in self.state.flows.values()):
            return []
        runs = (run for run in self.state.runs.values() if run.flow.plain and run.labels is None)
        return [(step, step.mark) for run in runs for step in run.steps if step.state is READY]

    def _check_order(self, waiting: list[tuple[Step, int]], facts: list[Fact]) -> None:
        """Only free slots are filled, and no step is left that should have gone out in another's place: by priority, then age."""
        left = [step for step, mark in waiting if step.state is READY and step.mark == mark]
        for fact in facts:
            if type(fact) is not StepReleased or (fact.token in self.state.attempts and not self.state.attempts[fact.token].slots):
                continue
            worker, pool = self.state.workers.get(fact.worker), self.state.pools.get(fact.pool)
            assert pool is None or pool.free >= self._least_free() or (worker is not None and worker.draining), "no room in its pool"
            if not fact.worker and left:
                attempt = self.state.attempts.get(fact.token)
                if attempt is None:
                    continue
                beside = waited(self.state, facts)
                for step in left:
                    served = step.action in attempt.pool.actions  # type: ignore[union-attr]
                    assert not served or may_go_before(attempt.step, step, beside, self.state.now), (
                        f"{step.action} waits, {attempt.step.action} went out"
                    )

    def _least_free(self) -> int:
        """A step that takes several slots is given to a worker as soon as it has one."""
        return 1 - max((step.slots for flow in self.state.flows.values() for step in flow.steps), default=1)

    def replayed(self) -> State:
        """A cold replay of the journal."""
        state = State(self.finished_max)
        for at, fact in self.journal:
            state.now = at
            state.apply(fact)
        return state

    def check_followers(self) -> None:
        """Leader, standby, cold replay and a loaded image are equal."""
        self.state.now = self.standby.now  # a decision without records leaves no trace
        mine = digest(self.state)
        assert digest(self.standby) == mine
        assert digest(self.replayed()) == mine
        assert digest(load(encode_image(image(self.state)), self.finished_max)) == mine

    def add_twin(self) -> None:
        """A state that is loaded from an image of this one must decide the same from here on."""
        tokens: list[str] = []
        twin = Core(load(encode_image(image(self.state)), self.finished_max), lambda: tokens.pop(0))
        twin.begin(self.now)
        assert twin.take() == []
        self.twins.append((twin, tokens))

    # ---- what happens outside ---------------------------------------------------------------------------------------

    def join(self, id: str, workflows: list[WorkflowDefinition], slots: int = 2, **labels: str | float) -> Holder:
        old = self.workers.get(id)
        if old is not None:
            self._bury(old)
        holder = Holder(id, f"{next(self.serial):018x}", slots)
        self.workers[id] = holder
        self.decide(wire.Register("w", slots, workflows, labels, f"client-{id}"), holder.sender)
        self._drop_lanes()
        return holder

    def run_id(self) -> str:
        return f"{self.now:012x}{next(self.serial):020x}"

    def start(self, workflow: str, *, client: str = "client", input: bytes = b"{}", **options: object) -> str:
        run = self.run_id()
        self.decide(wire.Start(run, workflow, Raw(input), **options), Sender(client, "", self.now))  # type: ignore[arg-type]
        return run

    def cancel(self, run: str, reason: str = "why not") -> None:
        self.decide(wire.Cancel(run, reason), Sender("client", "", self.now))

    def event(self, name: str, sequence: int) -> None:
        self.decide(EventArrived(sequence, T0 + sequence, name, Raw(b'{"n":1}')))

    def take(self, holder: Holder) -> list[wire.Assign]:
        """The worker takes what its lanes hold, private first, as far as it has room."""
        taken = self._take_private(holder)
        worker = self.state.workers.get(holder.id)
        if worker is not None and worker.incarnation == holder.incarnation and not worker.draining:
            for order in self.redelivered.pop(worker.pool.id, []):
                self.give_back(holder, order, wire.RETURNED_REDELIVERED)
            shared = self.shared.get(worker.pool.id, [])
            lane = self.private.get((holder.id, holder.incarnation), [])
            reserved = sum(self.size(order) for order in lane if isinstance(order, wire.Assign))
            while shared and holder.room > reserved and not worker.paused:
                order = shared.pop(0)
                taken.append(order)
                holder.running[order.token] = order
        for order in taken:
            self.executed.append((order.run, order.step, order.attempt, holder.id))
        return taken

    def _take_private(self, holder: Holder) -> list[wire.Assign]:
        taken = []
        lane = self.private.get((holder.id, holder.incarnation), [])
        for order in list(lane):
            if order not in lane:  # a withdrawal took it away
                continue
            if isinstance(order, wire.Steered):
                lane.remove(order)
            elif isinstance(order, wire.Withdraw):
                lane.remove(order)
                self._withdrawn(holder, lane, order)
            elif isinstance(order, wire.Forget):
                lane.remove(order)
                holder.kept.discard(order.run)
            elif order.workflow in holder.forgotten:
                lane.remove(order)
                self.give_back(holder, order, wire.RETURNED_UNKNOWN_ACTION)
            elif holder.room >= self.size(order):
                lane.remove(order)
                taken.append(order)
                holder.sizes[order.token] = self.size(order)
                holder.running[order.token] = order
                if self.state.flows[order.workflow].sticky:
                    holder.kept.add(order.run)
        return taken

    def size(self, order: wire.Assign) -> int:
        """Slots that an assignment takes."""
        flow = self.state.flows[order.workflow]
        return flow.steps[flow.step_names.index(order.name)].slots if order.name in flow.step_names else 1

    def _withdrawn(self, holder: Holder, lane: list[wire.Order], order: wire.Withdraw) -> None:
        if order.token in holder.running and order.unless_started:
            self.accept(holder, holder.running[order.token])
        elif order.token in holder.running:
            error = wire.StepError("StepCancelled", order.reason)
            report = wire.Failed(order.run, order.step, order.attempt, order.token, error, wire.FAILED_CANCELLED, wire.RETRY_NEVER)
            self.answer(holder, order.token, report)
        else:
            lane[:] = [other for other in lane if isinstance(other, wire.Forget | wire.Steered) or other.token != order.token]
            self.decide(wire.Returned(order.run, order.step, order.attempt, order.token, "withdrawn"), holder.sender)

    def answer(self, holder: Holder, token: str, report: wire.Report) -> None:
        holder.running.pop(token, None)
        holder.lent.discard(token)
        holder.sizes.pop(token, None)
        self.decide(report, holder.sender)

    def finish(self, holder: Holder, order: wire.Assign, output: bytes = b"1") -> None:
        run = self.state.runs.get(order.run)
        if run is not None and len(run.flow.finals) == 1 and run.flow.finals[0] == order.step:
            holder.kept.discard(order.run)
        self.answer(holder, order.token, wire.Finished(order.run, order.step, order.attempt, order.token, Raw(output)))

    def fail(self, holder: Holder, order: wire.Assign, kind: str = "error", retry: int = 0) -> None:
        holder.kept.discard(order.run)
        error = wire.StepError("ValueError", "no")
        self.answer(holder, order.token, wire.Failed(order.run, order.step, order.attempt, order.token, error, kind, retry))

    def accept(self, holder: Holder, order: wire.Assign) -> None:
        self.decide(wire.Accepted(order.run, order.step, order.attempt, order.token), holder.sender)

    def give_back(self, holder: Holder, order: wire.Assign, reason: str) -> None:
        self.answer(holder, order.token, wire.Returned(order.run, order.step, order.attempt, order.token, reason))

    def lend(self, holder: Holder, order: wire.Assign) -> None:
        holder.lent.add(order.token)
        self.decide(wire.Lent(order.run, order.step, order.attempt, order.token), holder.sender)

    def resume(self, holder: Holder, order: wire.Assign) -> None:
        assert holder.room >= holder.sizes.get(order.token, 1)
        holder.lent.discard(order.token)
        self.decide(wire.Resumed(order.run, order.step, order.attempt, order.token), holder.sender)

    def spawn(self, holder: Holder, order: wire.Assign, workflow: str, position: str, *, input: bytes = b"{}", **options: object) -> str:
        child = derived_run_id(run_id_time_ms(order.run), order.run, order.name, position)
        parent = (order.run, order.step, order.attempt, order.token)
        self.decide(wire.Spawn(*parent, position, "digest", child, workflow, Raw(input), **options), holder.sender)  # type: ignore[arg-type]
        return child

    def kill(self, holder: Holder) -> None:
        """The worker dies. What it pulled and nobody knew that it ran is delivered again, to the others of its pool."""
        self._bury(holder)
        del self.workers[holder.id]
        self.decide(WorkerVanished(holder.id, holder.incarnation, "lost"))
        self._drop_lanes()

    def leave(self, holder: Holder) -> None:
        """The worker drains, hands back what has not started, finishes the rest, and goes."""
        self.decide(wire.Draining(), holder.sender)
        for order in list(self.private.pop((holder.id, holder.incarnation), [])):
            if isinstance(order, wire.Assign):
                self.give_back(holder, order, wire.RETURNED_DRAINING)
        for order in list(holder.running.values()):
            self.finish(holder, order)
        del self.workers[holder.id]
        self.decide(wire.Left(), holder.sender)
        self._drop_lanes()

    def _bury(self, holder: Holder) -> None:
        self.dead.append(holder)
        self.private.pop((holder.id, holder.incarnation), None)
        for token, order in holder.running.items():
            attempt = self.state.attempts.get(token)
            if attempt is not None and attempt.worker is None and attempt.pool is not None:
                self.redelivered.setdefault(attempt.pool.id, []).append(order)

    def _drop_lanes(self) -> None:
        """A pool's lane goes with its last worker."""
        if self.pending is None:
            for lanes in (self.shared, self.redelivered):
                for pool in [pool for pool in lanes if pool not in self.state.pools]:
                    del lanes[pool]

    def pass_time(self, ms: int) -> None:
        self.now += ms
        self.decide(TimePassed())

    def run_all(self, rounds: int = 1000) -> None:
        """Let every worker take and finish until nothing is left to do."""
        for _ in range(rounds):
            busy = False
            for holder in list(self.workers.values()):
                self.take(holder)
                for order in list(holder.running.values()):
                    busy = True
                    self.finish(holder, order)
            if not busy:
                return
