"""How facts about workers, definitions and lanes change what is remembered."""

from __future__ import annotations

from mesh.core import records as facts
from mesh.core.graph import Flow
from mesh.core.memory import Memory
from mesh.core.run import Run
from mesh.core.slots import Pool, Worker, join, withdraw
from mesh_sdk.protocol.ids import pool_id
from mesh_sdk.protocol.records import RESUME

VERSIONS_MAX = 64
"""Definitions kept of one workflow, beyond those that runs, workers or the next start use."""


class WorkersKnown(Memory):
    """Workers come, change and go; their pools and queues follow."""

    def _apply_term(self, record: facts.TermStarted) -> None:
        self.holder = record.holder
        self.limits.rates.led_until = self.now

    def _apply_rates_held(self, record: facts.RatesHeld) -> None:
        self.limits.rates.hold(self.limits.wanted_rates(self.runs.values()), record.ms, self.now)

    def _apply_workflow(self, record: facts.WorkflowDefined) -> None:
        flow = Flow(record.definition)
        self.flows[flow.name] = flow
        self.versions[(flow.name, flow.digest)] = flow
        self._drop_versions(flow.name)
        self.matcher.rebuild(self.flows.values())

    def _drop_versions(self, name: str) -> None:
        mine = [key for key in self.versions if key[0] == name]
        if len(mine) > VERSIONS_MAX:
            used = {run.flow.digest for run in self.runs.values() if run.flow.name == name}
            used.update(run.flow.digest for run in self.finished.all() if run.flow.name == name)
            owners = (attempt.step.run for attempt in self.attempts.values())  # some have outlived the memory of their runs
            used.update(run.flow.digest for run in owners if run.flow.name == name)
            used.update(digest for worker in self.workers.values() for workflow, digest in worker.workflows if workflow == name)
            used.add(self.flows[name].digest)
            for key in mine[:-VERSIONS_MAX]:
                if key[1] not in used:
                    del self.versions[key]

    def _apply_worker(self, record: facts.WorkerRegistered) -> None:
        actions = frozenset(action for key in record.workflows for action in self.versions[key].actions)
        pool = self.pools.setdefault(pool_id(actions), Pool(actions))
        for name, digest in record.workflows:
            self.flows[name] = self.versions[(name, digest)]
        worker = Worker(
            record.worker, record.incarnation, record.name, record.slots, record.labels, record.workflows, record.client,
            record.host, record.pid, pool,
        )  # fmt: skip
        old = self.workers.get(record.worker)
        if old is not None:  # the same incarnation, changed: what it holds goes with it
            self._leave(old)
            self.pools[pool.id] = pool
            worker.reserved, worker.held, worker.used, worker.promised = old.reserved, old.held, old.used, old.promised
            worker.draining, worker.steered, worker.keys_out = old.draining, old.steered, old.keys_out
            for attempt in (*worker.reserved.values(), *worker.held.values()):
                attempt.worker, attempt.pool = worker, pool
        worker.bound = len(self.bound.get(worker.id, ()))
        self.workers[worker.id] = worker
        if worker.takes_work:
            join(worker)
        else:
            pool.workers[worker.id] = worker
        self._reroute()
        self.enqueue_bound_to(worker.id, self.away.pop(worker.id, None), old.line if old is not None else None)
        self._take_back(worker)
        self.changed_workers[worker.id] = worker

    def _apply_draining(self, record: facts.WorkerDraining) -> None:
        worker = self.workers[record.worker]
        withdraw(worker)
        worker.draining = True
        self.rehome(worker)
        self.changed_workers[worker.id] = worker

    def _apply_steered(self, record: facts.WorkerSteered) -> None:
        worker = self.workers[record.worker]
        was_paused = worker.paused
        if record.what != RESUME:
            withdraw(worker)
        worker.steered = record.what
        if worker.paused and not was_paused:
            self.rehome(worker)
        elif was_paused and not worker.paused:
            self._resume(worker)
        self.changed_workers[worker.id] = worker

    def _resume(self, worker: Worker) -> None:
        """What waits for the worker waits where it is served, or (it drains by now) as one that takes no more."""
        if worker.takes_work:
            join(worker)
        self.enqueue_bound_to(worker.id, self.away.pop(worker.id, None))
        self._take_back(worker)

    def _take_back(self, worker: Worker) -> None:
        """Its sticky runs that might have gone elsewhere and have not stay with it."""
        for run in sorted((run for run in self.bound.get(worker.id, ()) if run.loose), key=_number_of):
            run.loose = False
            self.await_worker_anew(run)

    def _apply_gone(self, record: facts.WorkerGone) -> None:
        worker = self.workers.pop(record.worker)
        self._leave(worker)
        self._reroute()
        self.rehome(worker)
        self.changed_workers[worker.id] = worker

    def _leave(self, worker: Worker) -> None:
        withdraw(worker)
        worker.gone = True
        pool = worker.pool
        del pool.workers[worker.id]
        pool.waiting.pop(worker.id, None)
        if not pool.workers and not pool.out:
            del self.pools[pool.id]

    def _reroute(self) -> None:
        self.routes.rebuild(self.pools.values())
        self.matcher.rebuild(self.flows.values())

    def _apply_lanes(self, record: facts.LanesReset) -> None:
        self.lanes_until = record.until
        self.unclaimed = {token: None for token, attempt in self.attempts.items() if not attempt.held}

    def _apply_claimed(self, record: facts.StepClaimed) -> None:
        self.unclaimed.pop(record.token, None)

    def _apply_settled(self, record: facts.LanesSettled) -> None:
        self.lanes_until = 0
        self.unclaimed = {}


def _number_of(run: Run) -> int:
    return run.number
