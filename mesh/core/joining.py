"""Workers that come, change, drain and go."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from mesh.core import records as facts
from mesh.core.graph import BadDefinition, Flow, validate_size
from mesh.core.inputs import Sender
from mesh.core.quoting import cut, quoted, reason
from mesh.core.slots import Worker
from mesh.core.starting import Starting, client_name
from mesh.core.step import Attempt
from mesh_sdk.errors import InvalidName
from mesh_sdk.protocol.bounds import LABEL_CHARACTERS_MAX, LABEL_NAME_CHARACTERS_MAX, LABELS_MAX, SLOTS_MAX
from mesh_sdk.protocol.codec import encode
from mesh_sdk.protocol.definitions import WorkflowDefinition
from mesh_sdk.protocol.ids import content_digest, pool_id
from mesh_sdk.protocol.records import DRAIN, PAUSE, RESUME, STEERINGS, Draining, Left, Register, Steer
from mesh_sdk.protocol.scopes import disagreement, scoped
from mesh_sdk.protocol.subjects import check_token

WORKERS_MAX = 10_000
"""That are there at the same time; each gives memory and time of the leader to heartbeats, probes and rows."""
WORKFLOWS_MAX = 10_000
"""That were ever registered: none is forgotten, since a start of one waits for a worker that has it."""
DEFINITIONS_BYTES_MAX = 28 * 1024 * 1024
"""Of all workflows together: their bucket has room for that, and for the names."""

LEFT = "left"
"""Why a worker is gone that took its leave: everything it had taken is answered."""


class Joining(Starting):
    """The part of the core that decides about workers."""

    def _lose(self, attempt: Attempt, worker: str, why: str) -> None:
        raise NotImplementedError

    def register(self, input: Register, sender: Sender) -> None:
        """An incarnation wants to work: definitions are recorded, older incarnations are given up."""
        refusal = self._objection(input, sender)
        if refusal:
            self.record(facts.WorkerRefused(cut(sender.name), cut(sender.incarnation), client_name(input.client), reason(refusal)))
            return
        current = self.state.workers.get(sender.name)
        moves = current is not None and pool_id(_actions(input)) != current.pool.id
        if current is not None and current.incarnation != sender.incarnation:
            self.replacing = True
            self.remove(current, "replaced by a newer incarnation", pool_stays=not moves)
        elif current is not None and moves:
            self._close_pool(current)
        workflows = []
        for definition in input.workflows:
            digested = _digested(definition)
            if (digested.name, digested.digest) not in self.state.versions:
                self.record(facts.WorkflowDefined(digested))
            workflows.append((digested.name, digested.digest))
        self.record(
            facts.WorkerRegistered(
                sender.name,
                sender.incarnation,
                cut(input.name),
                input.slots,
                input.labels,
                workflows,
                input.client,
                cut(input.host),
                input.pid,
            )
        )
        self.replacing = False
        if input.paused and (current is None or current.incarnation != sender.incarnation):
            resumed = current is not None and current.steered == RESUME  # it was given up before it could hear that
            self.record(facts.WorkerSteered(sender.name, RESUME if resumed else PAUSE))
        for pool in list(self.state.pools.values()):
            self.pump(pool)

    def _objection(self, input: Register, sender: Sender) -> str:
        """Why this incarnation can't work; "" when it can."""
        current = self.state.workers.get(sender.name)
        worker = f"worker {quoted(sender.name)}"
        if current is not None and current.incarnation > sender.incarnation:
            return f"{worker} has a newer incarnation, {current.incarnation}, than {quoted(sender.incarnation)}"
        if current is None and len(self.state.workers) >= WORKERS_MAX:
            return f"{worker} is one more than the {WORKERS_MAX:,} workers that there may be: use fewer, with more slots each"
        if not 0 <= input.slots <= SLOTS_MAX:
            return f"{worker} offers {input.slots} slots: use 0 to {SLOTS_MAX}"
        if not input.workflows:
            return f"{worker} registers no workflow: give it at least one"
        if len({definition.name for definition in input.workflows}) < len(input.workflows):
            return f"{worker} registers two workflows of one name: rename one of them"
        return (
            self._malformed(input, sender)
            or _label_objection(input.labels, worker)
            or disagreement(input.workflows, self._beside(input, sender))
            or self._too_many(input, worker)
        )

    def _malformed(self, input: Register, sender: Sender) -> str:
        try:
            check_token("worker id", cut(sender.name))
            check_token("incarnation", cut(sender.incarnation))
            check_token("client", cut(input.client))
            for definition in input.workflows:
                validate_size(definition)
                Flow(definition)
        except (BadDefinition, InvalidName) as error:
            return str(error)
        return ""

    def _beside(self, input: Register, sender: Sender) -> Iterator[WorkflowDefinition]:
        """Workflows that other workers serve, but for those of which this one brings the newest definition."""
        if not any(scoped(input.workflows)):
            return
        names = dict.fromkeys(name for worker in self.state.workers.values() if worker.id != sender.name for name, _ in worker.workflows)
        for definition in input.workflows:
            names.pop(definition.name, None)
        yield from (self.state.flows[name].definition for name in names)

    def _too_many(self, input: Register, worker: str) -> str:
        """What comes new would be more than the mesh remembers."""
        flows = self.state.flows
        new = [definition for definition in input.workflows if definition.name not in flows]
        if len(flows) + len(new) > WORKFLOWS_MAX:
            return (
                f"{worker} registers {len(new):,} new workflows, the first {quoted(new[0].name)}, beside {len(flows):,} that are known: at "
                f"most {WORKFLOWS_MAX:,} are remembered. Don't make up names as you go (use inputs), or go to another namespace"
            )
        if all((definition.name, _digested(definition).digest) in self.state.versions for definition in input.workflows):
            return ""
        mine = {definition.name for definition in input.workflows}
        size = sum(flow.bytes for flow in flows.values() if flow.name not in mine) + sum(len(encode(each)) for each in input.workflows)
        if size > DEFINITIONS_BYTES_MAX:
            return (
                f"{worker} registers definitions with which all workflows have {size:,} bytes together, at most {DEFINITIONS_BYTES_MAX:,} "
                "are remembered: make them smaller, or go to another namespace"
            )
        return ""

    def draining(self, input: Draining, sender: Sender) -> None:
        """The worker takes no more work."""
        worker = self._current(sender)
        if worker is not None and not worker.draining:
            self.record(facts.WorkerDraining(worker.id))
            for pool in list(self.state.pools.values()):
                self.pump(pool)

    def steer(self, input: Steer, sender: Sender) -> None:
        """An operator has a worker pause, go on or drain."""
        worker = self.state.workers.get(input.worker)
        if worker is None or input.what not in STEERINGS:
            return
        if input.what != DRAIN and (worker.steered == DRAIN or (worker.paused and input.what == PAUSE)):
            return  # one that is not paused may think so: it was given up while it was, and has come back
        self.record(facts.WorkerSteered(worker.id, input.what))
        for pool in list(self.state.pools.values()):
            self.pump(pool)

    def left(self, input: Left, sender: Sender) -> None:
        """The worker has gone of its own accord."""
        worker = self._current(sender)
        if worker is not None:
            self.remove(worker, LEFT)

    def _current(self, sender: Sender) -> Worker | None:
        worker = self.state.workers.get(sender.name)
        return worker if worker is not None and worker.incarnation == sender.incarnation else None

    def remove(self, worker: Worker, reason: str, *, pool_stays: bool = False) -> None:
        """The incarnation is gone: what it held, and what its pool had out if it was the last there, goes elsewhere.

        With `pool_stays` its successor pulls on: what it had pulled and not answered is delivered again.
        """
        why = f"worker {worker.id} is gone: {reason}"
        self.leaving = worker.id
        attempts = [*worker.held.values(), *worker.reserved.values()]
        if worker.takes_work:
            self.record(facts.WorkerDraining(worker.id))  # first, so that nothing below is released to it again
        if reason == LEFT:
            self._close_pool(worker)
            attempts = list(worker.held.values())
            for attempt in sorted(worker.reserved.values(), key=_by_age):  # crossed its goodbye: nobody has begun it
                self.hand_back(attempt, "its worker has left")
        elif len(worker.pool.workers) == 1 and not pool_stays:
            attempts += worker.pool.out.values()
        for attempt in sorted(attempts, key=_by_age):
            self._lose(attempt, worker.id, why)
        self.record(facts.WorkerGone(worker.id, worker.incarnation, reason))
        self.leaving = ""
        for other in list(self.state.pools.values()):
            self.pump(other)

    def _close_pool(self, worker: Worker) -> None:
        """If its pool goes with the worker, what the pool has out was not taken: it waits for a place again."""
        if len(worker.pool.workers) == 1:
            for attempt in list(worker.pool.out.values()):
                self.hand_back(attempt, "nobody is left in its pool")

    def hand_back(self, attempt: Attempt, why: str) -> None:
        """The attempt was not run; its step, if it still counts, waits for a place again."""
        if attempt.step.current is attempt:
            self.record(facts.StepReturned(attempt.token, "", why))
        else:
            self.record(facts.AttemptEnded(attempt.token))


def _by_age(attempt: Attempt) -> tuple[int, int, int]:
    return attempt.step.run.number, attempt.step.index, attempt.number


def _actions(input: Register) -> set[str]:
    return {action for definition in input.workflows for action in definition.actions()}


def _label_objection(labels: dict[str, str | int | float], worker: str) -> str:
    if len(labels) > LABELS_MAX:
        return f"{worker} has {len(labels):,} labels: use at most {LABELS_MAX}"
    for key, value in labels.items():
        if len(key) > LABEL_NAME_CHARACTERS_MAX:
            return f"{worker} has a label {quoted(key)}, a name of {len(key):,} characters: use at most {LABEL_NAME_CHARACTERS_MAX}"
        if isinstance(value, str) and len(value) > LABEL_CHARACTERS_MAX:
            return f"{worker} has label {quoted(key)} of {len(value):,} characters: use at most {LABEL_CHARACTERS_MAX}"
    return ""


def _digested(definition: WorkflowDefinition) -> WorkflowDefinition:
    """The definition with the digest of what it really says."""
    bare = msgspec.structs.replace(definition, digest="")
    return msgspec.structs.replace(bare, digest=content_digest(encode(bare)))
