"""One simulated mesh: builds it from a seed, lets it live through its faults, heals it, and waits until all that was promised is kept.

Rule: the first broken promise ends it; the verdict names the seed, and the seed says it all again.
"""

from __future__ import annotations

import asyncio
import contextvars
import random
import re
from collections import deque
from collections.abc import Callable
from typing import Any

from mesh_sdk.protocol.subjects import Subjects
from mesh_sdk.transport.errors import TransportError
from tests.simulation import registered, witness
from tests.simulation.auditor import Auditor
from tests.simulation.ears import Ears
from tests.simulation.faults import Faults
from tests.simulation.limits import GOOD_FOR_ALL, LABELS, SLOTS
from tests.simulation.loop import EPOCH_S, SimulatedLoop, Stuck
from tests.simulation.network import Network
from tests.simulation.operator import OperatorMachine
from tests.simulation.parts import NAMESPACE, ClientMachine, Machine, SchedulerMachine, WorkerMachine
from tests.simulation.plan import Plan, draw
from tests.simulation.process import Helpers
from tests.simulation.seams import simulated
from tests.simulation.server import Server
from tests.simulation.users import Ledger, UserMachine
from tests.simulation.verdict import Verdict, look_at_the_end, quiet

STILL_S_MAX = 40.0
"""Once there are no more faults, something must get done at least this often until everything is."""
BEGIN_S_MAX = 5.0
LOOK_S = 0.25


class World:
    """See the module.

    Args:
        seed: decides everything.
        tell: gets each line of the trace as it is made; None keeps the last ones only.
        known: what is broken is only traced if its text matches this.
    """

    def __init__(self, seed: int, tell: Callable[[str], None] | None = None, known: str = "") -> None:
        self.seed = seed
        self._known = re.compile(known) if known else None
        self.plan: Plan = draw(seed)
        self.tail: deque[str] = deque(maxlen=60)
        self.failures: list[str] = []
        self.loop = SimulatedLoop()
        self._tell = tell
        plan = self.plan
        self.network = Network(self.loop, self._rng("network"))
        self.network.latency_s, self.network.core_loss, self.network.ack_loss = plan.latency_s, plan.core_loss, plan.ack_loss
        self.server = Server(self.network, lone=plan.lone, lanes_bytes_max=plan.lanes_bytes_max)
        self.subjects = Subjects(NAMESPACE)
        self.auditor = Auditor(self.subjects, plan.finished_runs_max, self.fail, self.trace if tell is not None else None)
        self.witness = witness.Witness(self.subjects, self.auditor, self.fail, self.trace)
        self.server.on_stored += [self.auditor.stored, self.witness.stored]
        self.server.on_published.append(self.witness.published)
        if tell is not None:
            self.server.trace = self.trace
        self.ledger = Ledger()
        self.helpers = Helpers()
        self.schedulers = [SchedulerMachine(f"s{n}", self._rng(f"s{n}"), self) for n in range(plan.schedulers)]
        self.workers = [self._worker(n) for n in range(plan.workers)]
        fixed = [worker.name for worker in self.workers if worker.registered is registered.EVERYTHING]
        too_wide = frozenset(name for (name, _), slots in SLOTS.items() if slots > plan.slots[0])
        self.users: list[ClientMachine] = [
            UserMachine(f"u{n}", self._rng(f"u{n}"), self, self.ledger, fixed, too_wide) for n in range(plan.users)
        ]
        self._operators = [OperatorMachine("operator", self._rng("operator"), self, plan.steers_s)] if plan.steers_s else []
        self.users += self._operators

    def _rng(self, what: str) -> random.Random:
        return random.Random(f"{what} {self.seed}")

    def _worker(self, n: int) -> WorkerMachine:
        rng = self._rng(f"w{n}")
        worker = WorkerMachine(f"w{n}", rng, self)
        worker.slots = self.plan.slots[n]
        worker.labels = rng.choice(LABELS)
        worker.fixed = n == 0 or rng.random() < 0.7
        most = registered.EVERYTHING if worker.fixed else registered.WITHOUT_HARD  # a HARD run waits for its worker, for ever
        worker.registered = most if n == 0 or rng.random() < 0.8 else registered.FEWER
        return worker

    @property
    def machines(self) -> list[Machine]:
        """All of them."""
        return [*self.schedulers, *self.workers, *self.users]

    # ---- what it tells

    def trace(self, text: str) -> None:
        """Something has happened."""
        line = f"{self.loop.time() - EPOCH_S:10.5f}  {text}"
        self.tail.append(line)
        if self._tell is not None:
            self._tell(line)

    def fail(self, text: str) -> None:
        """A promise is broken."""
        self.trace(f"BROKEN: {text}")
        if self._known is not None and self._known.search(text):
            return
        self.failures.append(f"at {self.loop.time() - EPOCH_S:.5f}: {text}")

    # ---- its life

    def run(self) -> Verdict:
        """Live it; what came of it."""
        witness.appoint(self.witness)
        with Ears(self.fail), simulated(self.server, self._rng("ids"), snapshot_frames=self.plan.snapshot_frames, helpers=self.helpers):
            asyncio.set_event_loop(self.loop)
            try:
                self.loop.run_until_complete(contextvars.copy_context().run(self.loop.create_task, self._live()))
            except Stuck as error:
                self.fail(f"the simulation is stuck: {error}")
            finally:
                self._end()
        return Verdict(self)

    def _end(self) -> None:
        for machine in self.machines:
            machine.wanted = False
            if machine.process is not None:
                machine.process.dead = True
                machine.process.kill()
        for helper in tuple(self.helpers.running):
            helper.kill()
        self.server.up = False
        self.loop.end()
        asyncio.set_event_loop(None)

    async def _live(self) -> None:
        for scheduler in self.schedulers:
            scheduler.limits = (self.plan.live_runs_max, self.plan.finished_runs_max)
            scheduler.start_later(scheduler.rng.random() * 0.1)
        await self._until(lambda: self.subjects.lanes_stream in self.server.streams, BEGIN_S_MAX)
        for worker in self.workers:
            worker.start_later(worker.rng.random() * 0.1)
        await self._until(lambda: len(self.auditor.state.flows) == len(registered.EVERYTHING), BEGIN_S_MAX)
        for user in self.users:
            user.start_later(user.rng.random() * 0.1)
        await self._until(lambda: False, self.plan.trouble_s, Faults(self).cause)
        if not self.failures:
            self._heal()
            await self._until_quiet()
        if not self.failures:
            look_at_the_end(self)

    async def _until_quiet(self) -> None:
        done = -1
        while not self.failures and not quiet(self) and done < (now := self.auditor.done):
            done = now
            await self._until(lambda: quiet(self) or self.auditor.done > done, STILL_S_MAX)  # noqa: B023

    async def _until(self, over: Callable[[], bool], seconds: float, beside: Callable[[], Any] | None = None) -> None:
        """Let time pass, looking at everything now and then."""
        task = asyncio.get_running_loop().create_task(beside()) if beside is not None else None
        deadline = self.loop.time() + seconds
        while self.loop.time() < deadline and not self.failures and not over():
            await asyncio.sleep(LOOK_S)
            self._look()
            if task is not None and task.done():
                task.result()
        if task is not None:
            task.cancel()

    def _look(self) -> None:
        """Ask every scheduler for the digest of its state."""
        for problem in self.loop.problems:
            if isinstance(problem.get("exception"), TransportError):
                continue  # of a future that nobody asked any more: its process was killed, or has given it up
            self.fail(f"a callback has failed: {problem.get('message')} {problem.get('exception')!r}")
        self.loop.problems.clear()
        self.witness.look_at_pauses()
        for machine in self.schedulers:
            term = machine.engine._term if machine.up and hasattr(machine, "engine") else None
            if term is not None and machine.process is not None and not machine.process.frozen:
                term.loop.ask(self._compare(term.state))

    def _compare(self, state: Any) -> Callable[[int], Callable[[], None]]:
        from mesh.core.image import digest

        def question(sequence: int) -> Callable[[], None]:
            said = digest(state)
            return lambda: self.auditor.hear(sequence, said)

        return question

    def _heal(self) -> None:
        """No more faults: everything comes back and stays."""
        self.trace("healed: no more faults")
        self.network.core_loss = self.network.ack_loss = 0.0
        self.server.stalled_until = 0.0
        if not self.server.up:
            self.server.start()
        for stream in tuple(self.server.streams.values()):
            self.server.come_back(stream)
        for machine in self.machines:
            if machine.process is not None:
                for process in (machine.process, *machine.process.threads):
                    process.after(0, lambda: None)
                    process.thaw()
            machine.start()
        for operator in self._operators:
            operator.has_to_end = True
        self.workers[0].relabel(GOOD_FOR_ALL)
