"""Children: started once per position of a step, however often that step is tried."""

from __future__ import annotations

from mesh.core import records as facts
from mesh.core.inputs import Sender
from mesh.core.joining import Joining
from mesh.core.slots import Worker
from mesh.core.starting import METADATA_ENTRIES_MAX, bounded_priority, is_run_id
from mesh.core.step import Attempt
from mesh_sdk.protocol.records import Spawn

CHILDREN_MAX = 10_000
"""Children of one run."""


class Spawning(Joining):
    """The part of the core that decides spawns."""

    def _attempt(self, report: Spawn, sender: Sender) -> Attempt | None:
        raise NotImplementedError

    def spawn(self, input: Spawn, sender: Sender) -> None:
        """A step starts a child run. A late refusal is recorded as the child's outcome, so that whoever waits is told."""
        attempt = self._attempt(input, sender)
        if attempt is None or attempt.step.current is not attempt:
            return
        worker = self.state.workers[sender.name]
        step = attempt.step
        known = (step.children or {}).get(input.position)
        if known is not None:
            self.record(facts.StartRepeated(input.child, known[1], worker.client))
            return
        if not is_run_id(input.child) or input.child in self.state.runs or self.state.finished.knows(input.child):
            return  # the SDK derives a child's id from its parent and position: this is somebody else's run, or nobody's
        parent = (step.run.id, step.index, input.position, input.digest)
        refusal = self._spawn_refusal(input, attempt, worker)
        if refusal is not None:
            kind, message = refusal
            self.record(facts.RunRefused(input.child, input.workflow, worker.client, parent, kind, message))
            return
        flow = self.state.flows[input.workflow]
        inherited = {**flow.definition.metadata, **(step.run.metadata or {}), **(input.metadata or {})} or None
        fact = facts.RunStarted(
            input.child, flow.name, flow.digest, input.input, bounded_priority(input.priority or flow.definition.priority),
            worker.client, inherited, "", "", 0, parent, worker.id if input.sticky else "",
        )  # fmt: skip
        self.out.append(fact)
        self._begin(self.state.apply_start(fact))

    def _spawn_refusal(self, input: Spawn, attempt: Attempt, worker: Worker) -> tuple[str, str] | None:
        """Why the child can't be: (error type, message)."""
        flow = self.state.flows.get(input.workflow)
        if flow is None:
            return "UnknownWorkflow", f"no worker ever registered a workflow named {input.workflow!r}: check the name"
        if len(attempt.step.run.spawned or ()) >= CHILDREN_MAX:
            return "SpawnError", f"run {attempt.step.run.id} has {CHILDREN_MAX} children already, the most that one run may have"
        if input.metadata and len(input.metadata) > METADATA_ENTRIES_MAX:
            return "InvalidInput", f"metadata has {len(input.metadata)} entries, at most {METADATA_ENTRIES_MAX} are kept"
        if input.sticky and not flow.sticky:
            return (
                "StickyChildError",
                f"child {flow.name!r} can't be sticky: it declares no sticky strategy; add sticky=StickyStrategy.SOFT or HARD to it",
            )
        if input.sticky and all(name != flow.name for name, _ in worker.workflows):
            return (
                "StickyChildError",
                f"child {flow.name!r} can't be sticky: worker {worker.id!r}, where its parent runs, does not register it",
            )
        return None
