"""Children: started once per position of a step, however often that step is tried."""

from __future__ import annotations

from mesh.core import records as facts
from mesh.core.flow_definition import about_labels
from mesh.core.graph import METADATA_ENTRIES_MAX, Flow
from mesh.core.inputs import Sender
from mesh.core.joining import Joining
from mesh.core.quoting import cut, quoted, reason
from mesh.core.run import LIVE
from mesh.core.slots import Worker
from mesh.core.starting import bounded_priority
from mesh.core.step import Attempt
from mesh_sdk.protocol.ids import derived_run_id, is_run_id, run_id_time_ms
from mesh_sdk.protocol.records import Spawn

CHILDREN_MAX = 10_000
"""Children of one run."""
POSITION_CHARACTERS_MAX = 1_024
"""Of the position of a child, which is its key or its workflow with a number, and of its input's digest: the SDK's are shorter."""


class Spawning(Joining):
    """The part of the core that decides spawns."""

    def _attempt(self, report: Spawn, sender: Sender) -> Attempt | None:
        raise NotImplementedError

    def spawn(self, input: Spawn, sender: Sender) -> None:
        """A step starts a child run. A late refusal is recorded as the child's outcome, so that whoever waits is told."""
        attempt = self._attempt(input, sender)
        if attempt is None or attempt.step.current is not attempt:
            if attempt is not None:
                self._spawned_too_late(input, attempt, self.state.workers[sender.name])
            return
        worker = self.state.workers[sender.name]
        step = attempt.step
        known = (step.children or {}).get(input.position)
        if known is not None:
            self.record(facts.StartRepeated(input.child, known[1], worker.client))
            return
        if self._is_taken(input.child) or len(input.position) > POSITION_CHARACTERS_MAX or len(input.digest) > POSITION_CHARACTERS_MAX:
            return  # the SDK derives a child's id from its parent and position: this is somebody else's run, or nobody's
        parent = (step.run.id, step.index, input.position, input.digest)
        refusal = self._spawn_refusal(input, attempt, worker)
        if refusal is not None:
            kind, message = refusal
            self.record(facts.RunRefused(input.child, cut(input.workflow), worker.client, parent, kind, reason(message)))
            return
        flow = self._registered(worker, input.workflow) if input.sticky else self.state.flows[input.workflow]
        assert flow is not None
        inherited = {**flow.definition.metadata, **(step.run.metadata or {}), **(input.metadata or {})} or None
        fact = facts.RunStarted(
            input.child, flow.name, flow.digest, input.input, bounded_priority(input.priority or flow.definition.priority),
            worker.client, inherited, "", "", 0, parent, worker.id if input.sticky else "", input.labels,
        )  # fmt: skip
        self.out.append(fact)
        self._begin(self.state.apply_start(fact))

    def _is_taken(self, child: str) -> bool:
        """Not a run id at all, or another run's."""
        return not is_run_id(child) or child in self.state.runs or self.state.finished.knows(child)

    def _spawned_too_late(self, input: Spawn, attempt: Attempt, worker: Worker) -> None:
        """The parent's run is over while the attempt still runs: whoever awaits the child is told.

        Of a live run another attempt may spawn the child yet. Only the id that follows from the position is taken.
        """
        own = derived_run_id(run_id_time_ms(input.run), input.run, attempt.step.name, input.position)
        if attempt.step.run.status is not LIVE and input.child == own and not self._is_taken(input.child):
            message = f"run {input.run} has ended: none of its steps can start child {quoted(input.workflow)} any more"
            self.record(facts.RunRefused(input.child, cut(input.workflow), worker.client, None, "SpawnError", message))

    def _registered(self, worker: Worker, workflow: str) -> Flow | None:
        """The definition that a worker registers: a sticky child runs as the version that its worker has."""
        digest = dict(worker.workflows).get(workflow)
        return self.state.versions.get((workflow, digest)) if digest is not None else None

    def _spawn_refusal(self, input: Spawn, attempt: Attempt, worker: Worker) -> tuple[str, str] | None:
        """Why the child can't be: (error type, message)."""
        if attempt.step.is_key:
            return (
                "SpawnError",
                f"key function {attempt.step.name} of run {attempt.step.run.id} can't start children: its run has not begun",
            )
        flow = self.state.flows.get(input.workflow)
        if flow is None:
            return "UnknownWorkflow", f"no worker ever registered a workflow named {quoted(input.workflow)}: check the name"
        if len(attempt.step.run.spawned or ()) >= CHILDREN_MAX:
            return "SpawnError", f"run {attempt.step.run.id} has {CHILDREN_MAX} children already, the most that one run may have"
        if input.metadata and len(input.metadata) > METADATA_ENTRIES_MAX:
            return "InvalidInput", f"metadata has {len(input.metadata)} entries, at most {METADATA_ENTRIES_MAX} are kept"
        if wrong := about_labels(f"child {flow.name!r}", input.labels):
            return "InvalidInput", wrong
        return self._sticky_refusal(input, attempt, worker) if input.sticky else None

    def _sticky_refusal(self, input: Spawn, attempt: Attempt, worker: Worker) -> tuple[str, str] | None:
        what = f"step {attempt.step.action} can't spawn {quoted(input.workflow)} as a sticky child"
        flow = self._registered(worker, input.workflow)
        if flow is None:
            return (
                "StickyChildError",
                f"{what}: it is not registered on the parent's worker {worker.id!r}; add it to that worker's workflows=[…], "
                "or spawn it without sticky",
            )
        if not flow.sticky:
            return (
                "StickyChildError",
                f"{what}: {input.workflow!r} declares no sticky strategy; give it sticky=StickyStrategy.SOFT or HARD, "
                "or spawn it without sticky",
            )
        return None
