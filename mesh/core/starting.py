"""What starts runs: clients' starts and events."""

from __future__ import annotations

import re

from mesh.core import records as facts
from mesh.core.admitting import Admitting
from mesh.core.flow_definition import about_labels
from mesh.core.graph import METADATA_ENTRIES_MAX, NUMBER_MAX, Flow
from mesh.core.inputs import EventArrived, Sender
from mesh.core.quoting import cut, quoted, reason
from mesh.core.run import Run
from mesh.core.triggers import event_run_id
from mesh_sdk.protocol.bounds import KEY_CHARACTERS_MAX
from mesh_sdk.protocol.ids import RUN_ID_CHARACTERS, is_run_id
from mesh_sdk.protocol.records import CANCELLED, NULL, Start
from mesh_sdk.protocol.subjects import PRIORITIES

_is_token = re.compile(r"[A-Za-z0-9_-]{1,64}").fullmatch


def client_name(name: str) -> str:
    """The name if a subject can carry it, "" if not: then there is nobody to tell."""
    return name if _is_token(name) else ""


def bounded_priority(wish: int) -> int:
    """A priority that is one."""
    return max(PRIORITIES[0], min(wish, PRIORITIES[-1]))


class Starting(Admitting):
    """The part of the core that decides starts and events."""

    def start(self, input: Start, sender: Sender) -> None:
        """A client starts a run, once, however often the start arrives."""
        state = self.state
        if not is_run_id(input.run):
            self._refuse_stray(input, client_name(sender.name))
            return
        if input.run in state.runs or state.finished.knows(input.run):
            return
        client = client_name(sender.name)
        flow = state.flows.get(input.workflow)
        if input.key and flow is not None:
            known = state.keys.get((input.workflow, input.key))
            if known is not None:
                if state.repeats.get(input.run) != known:
                    self.record(facts.StartRepeated(input.run, known, client))
                return
        refusal = self._refusal(input, sender, flow)
        if refusal is not None or flow is None:
            kind, message = refusal or ("UnknownWorkflow", "")
            self.record(facts.RunRefused(input.run, cut(input.workflow), client, None, kind, reason(message)))
            return
        priority = bounded_priority(input.priority or sender.priority or flow.definition.priority)
        start_at = state.now + input.delay_ms if input.delay_ms > 0 else 0
        metadata = {**flow.definition.metadata, **(input.metadata or {})} or None
        fact = facts.RunStarted(
            input.run,
            flow.name,
            flow.digest,
            input.input,
            priority,
            client,
            metadata,
            input.key,
            "",
            start_at,
            None,
            input.worker,
            input.labels,
        )
        self.out.append(fact)
        self._begin(state.apply_start(fact))

    def _refuse_stray(self, input: Start, client: str) -> None:
        """A start under an id that is none. What is remembered of it is no longer than an id may be."""
        run = cut(input.run)
        if not self.state.finished.knows(run):
            message = f"run id {run!r} is not {RUN_ID_CHARACTERS} hex digits"
            self.record(facts.RunRefused(run, cut(input.workflow), client, None, "InvalidInput", message))

    def _refusal(self, input: Start, sender: Sender, flow: Flow | None) -> tuple[str, str] | None:
        """Why a start can't be: (error type, message)."""
        if flow is None:
            return (
                "UnknownWorkflow",
                f"no worker ever registered a workflow named {quoted(input.workflow)}: check the name, or start a worker that has it",
            )
        if sender.resent and input.run <= self.state.finished.horizon:
            return "InvalidInput", f"start {input.run} was sent again so late that nobody remembers whether it ran: start a new run"
        if input.worker and not flow.sticky:
            text = f"sticky_worker={quoted(input.worker)} needs a sticky workflow, and {flow.name!r} declares no sticky strategy"
            return "InvalidInput", text
        if input.worker and not _is_token(input.worker):
            return "InvalidInput", f"sticky_worker={quoted(input.worker)} is no worker id: use 1 to 64 of the characters A-Z a-z 0-9 _ -"
        if len(input.key) > KEY_CHARACTERS_MAX:
            return "InvalidInput", f"key {quoted(input.key)} has {len(input.key):,} characters, at most {KEY_CHARACTERS_MAX} are kept"
        if input.delay_ms > NUMBER_MAX:
            return "InvalidInput", f"a delay of {input.delay_ms} ms is more than {NUMBER_MAX:,}, the most that a run is kept waiting"
        if input.metadata and len(input.metadata) > METADATA_ENTRIES_MAX:
            return "InvalidInput", f"metadata has {len(input.metadata)} entries, at most {METADATA_ENTRIES_MAX} are kept"
        wrong = about_labels(f"start of {flow.name!r}", input.labels)
        return ("InvalidInput", wrong) if wrong else None

    def _begin(self, run: Run) -> None:
        """A run has just been recorded: cancel it if that was asked for before, or place its first steps."""
        awaited = self.state.awaited.get(run.id)
        if awaited is not None:
            self.finish(run, CANCELLED, awaited[0])
            return
        if not run.start_at:
            self.begin_run(run)

    def event(self, input: EventArrived, sender: Sender) -> None:
        """An event starts one run of every workflow that it matches."""
        state = self.state
        told = False
        for name in state.matcher.workflows(input.name):
            flow = state.flows[name]
            run = event_run_id(input.time_ms, input.sequence, name)
            if run in state.runs or state.finished.knows(run):
                continue
            if not told:
                told = True
                self.record(facts.EventReceived(input.sequence, input.name, input.data))
            metadata = {**flow.definition.metadata, **(input.metadata or {})} or None
            fact = facts.RunStarted(run, name, flow.digest, NULL, flow.definition.priority, "", metadata, "", input.name, 0, None)
            self.out.append(fact)
            self._begin(state.apply_start(fact))
