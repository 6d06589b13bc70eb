"""How facts about workers, definitions and lanes change what is remembered."""

from __future__ import annotations

from mesh.core import records as facts
from mesh.core.graph import Flow
from mesh.core.memory import Memory
from mesh.core.slots import Pool, Worker, join, withdraw
from mesh_sdk.protocol.ids import pool_id

VERSIONS_MAX = 64
"""Definitions kept of one workflow, beyond those that runs, workers or the next start use."""


class WorkersKnown(Memory):
    """Workers come, change and go; their pools and queues follow."""

    def _apply_term(self, record: facts.TermStarted) -> None:
        self.holder = record.holder

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
            worker.reserved, worker.held, worker.lent, worker.draining = old.reserved, old.held, old.lent, old.draining
            for attempt in (*worker.reserved.values(), *worker.held.values()):
                attempt.worker, attempt.pool = worker, pool
        mine = [run for run in self.runs.values() if run.worker == worker.id]
        worker.bound = len(mine)
        self.workers[worker.id] = worker
        if worker.draining:
            pool.workers[worker.id] = worker
        else:
            join(worker)
        self._reroute()
        for entry in self.away.pop(worker.id, ()):
            self._enqueue_if_waiting(entry)
        for run in mine:
            if run.loose:  # it might have gone elsewhere and has not
                run.loose = False
                self.await_worker_anew(run)
        for entry in old.queue if old is not None else ():
            self._enqueue_if_waiting(entry)
        self.changed_workers[worker.id] = worker

    def _apply_draining(self, record: facts.WorkerDraining) -> None:
        worker = self.workers[record.worker]
        withdraw(worker)
        worker.draining = True
        self.rehome(worker)
        self.changed_workers[worker.id] = worker

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
