"""The DAG of a workflow, compiled once: who waits for whom, what is final."""

from __future__ import annotations

from collections import Counter

from mesh.core.flow_definition import objection
from mesh.core.labels import ANYWHERE, Wish, wishes
from mesh.core.quoting import NAME_CHARACTERS_MAX, quoted
from mesh_sdk.protocol.codec import encode
from mesh_sdk.protocol.definitions import KEY, ConcurrencyDefinition, StepDefinition, WorkflowDefinition
from mesh_sdk.protocol.subjects import PRIORITIES

NUMBER_MAX = 10 * 366 * 86_400_000
"""Ten years in milliseconds: what SDKs take at most, too."""


Limits = list[tuple[str, ConcurrencyDefinition]]
"""(the limit's name, as wide as its scope is; the limit)."""
STEPS_MAX = 1_000
"""Of one workflow."""
EVENTS_MAX = 100
"""Patterns of `on_events` of one workflow."""
METADATA_ENTRIES_MAX = 64
"""Of a workflow, or of a run beside its workflow's."""
METADATA_BYTES_MAX = 64 * 1024


class BadDefinition(Exception):
    """A definition that can't be run; the message names what is wrong with it."""


def validate_size(definition: WorkflowDefinition) -> None:
    """Refuse a definition that is larger than any that makes sense.

    Only where a worker registers it: what was taken once, by whatever limits, stands in journals and snapshots.

    Raises:
        BadDefinition: too many steps or patterns of events, names or metadata that are too long.
    """
    what = f"workflow {quoted(definition.name)}"
    if len(definition.steps) > STEPS_MAX:
        raise BadDefinition(f"{what} has {len(definition.steps):,} steps: use at most {STEPS_MAX:,}, and children for the rest")
    if len(definition.on_events) > EVENTS_MAX:
        raise BadDefinition(f"{what} is started by {len(definition.on_events):,} patterns of events: use at most {EVENTS_MAX}, with *")
    texts = (definition.name, definition.version, *(step.name for step in definition.steps), *definition.on_events)
    longest = max(texts, key=len)
    if len(longest) > NAME_CHARACTERS_MAX:
        text = f"{what} has a name, version, step or event pattern of {len(longest):,} characters, {quoted(longest)}"
        raise BadDefinition(f"{text}: use at most {NAME_CHARACTERS_MAX}")
    entries = definition.metadata
    if len(entries) > METADATA_ENTRIES_MAX or sum(len(key) + len(value) for key, value in entries.items()) > METADATA_BYTES_MAX:
        raise BadDefinition(f"{what} has more metadata than {METADATA_ENTRIES_MAX} entries of {METADATA_BYTES_MAX:,} characters together")


def validate(definition: WorkflowDefinition) -> None:
    """Refuse what no run could be made of: SDKs check the same, but nothing off the wire is trusted.

    Raises:
        BadDefinition: no steps, two of one name, a parent that doesn't stand before its child, a number that can't be.
    """
    if not definition.name or not definition.steps:
        raise BadDefinition(f"workflow {definition.name!r} has no steps")
    seen: set[str] = set()
    for index, step in enumerate(definition.steps):
        if step.name in seen:
            raise BadDefinition(f"workflow {definition.name!r} has two steps named {step.name!r}")
        seen.add(step.name)
        for parent in step.parents:
            if not 0 <= parent < index:
                raise BadDefinition(f"step {definition.name}:{step.name} has parent {parent}, which doesn't stand before it")
        _validate_numbers(f"step {definition.name}:{step.name}", step)
    if definition.sticky not in ("", "SOFT", "HARD"):
        raise BadDefinition(f"workflow {definition.name!r} has sticky strategy {definition.sticky!r}, not SOFT or HARD")
    _validate_timeouts(definition)
    if definition.priority not in PRIORITIES:
        raise BadDefinition(f"workflow {definition.name!r} has priority {definition.priority}: use 1 (lowest) to 9")
    if wrong := objection(definition):
        raise BadDefinition(wrong)


def _validate_timeouts(definition: WorkflowDefinition) -> None:
    for what, timeout in (("sticky", definition.sticky_timeout_ms), ("admission", definition.admission_timeout_ms)):
        if not 0 <= timeout <= NUMBER_MAX:
            raise BadDefinition(f"workflow {definition.name!r} has {what} timeout {timeout} ms: use 0 to {NUMBER_MAX:,}")


def _validate_numbers(what: str, step: StepDefinition) -> None:
    numbers = (step.timeout_ms, step.schedule_timeout_ms, step.retries, step.backoff_factor, step.backoff_max_ms)
    if min(numbers) < 0:
        raise BadDefinition(f"{what} has a negative timeout, number of retries or backoff")
    if max(numbers) > NUMBER_MAX:
        raise BadDefinition(f"{what} has a timeout, number of retries or backoff of {max(numbers)}, more than {NUMBER_MAX:,}")
    if step.priority and step.priority not in PRIORITIES:
        raise BadDefinition(f"{what} has priority {step.priority}: use 1 (lowest) to 9, or 0 for its run's")


def _named(where: str, limits: list[ConcurrencyDefinition]) -> Limits:
    """Each limit with its name: what it counts by, wherever it stands. A definition that adds another one before it goes on counting."""
    found: Limits = []
    alike: Counter[tuple[str, str]] = Counter()
    for limit in limits:
        what = limit.language, limit.key
        found.append((limit.scope or f"{where}/{alike[what]}/{limit.language}/{limit.key}", limit))
        alike[what] += not limit.scope
    return found


class Flow:
    """A validated definition with its edges both ways."""

    def __init__(self, definition: WorkflowDefinition) -> None:
        validate(definition)
        steps = definition.steps
        self.definition = definition
        self.name = definition.name
        self.digest = definition.digest
        self.bytes = len(encode(definition))
        self.sticky = definition.sticky
        self.size = len(steps)
        self.steps: list[StepDefinition] = steps
        self.step_names = [step.name for step in steps]
        self.actions = definition.actions()
        self.parents = [step.parents for step in steps]
        self.needs = [len(step.parents) for step in steps]
        self.children: list[list[int]] = [[] for _ in steps]
        for index, step in enumerate(steps):
            for parent in step.parents:
                self.children[parent].append(index)
        self.keys = [index for index, step in enumerate(steps) if step.kind == KEY]
        """Key functions: they run before the run is admitted."""
        self.roots = [index for index, step in enumerate(steps) if not step.parents and step.kind != KEY]
        self.finals = [index for index in range(len(steps)) if not self.children[index] and steps[index].kind != KEY]
        self.limits: Limits = _named(self.name, definition.concurrency)
        self.step_limits: list[Limits] = [_named(f"{self.name}:{step.name}", step.concurrency) for step in steps]
        self.wishes = wishes(definition)
        self.plain = not self.keys and not self.sticky and all(wish is ANYWHERE for wish in self.wishes)
        """Its steps do with any free slot."""
        self.keyed = bool(self.limits) or any(step.concurrency or step.rate_limits for step in steps)
        """A run of it has keys, which must be known before anything of it is placed."""

    @classmethod
    def nothing(cls, name: str) -> Flow:
        """A flow without steps, for a run that was refused."""
        flow = cls.__new__(cls)
        flow.definition = WorkflowDefinition(name, [])
        flow.name, flow.digest, flow.sticky, flow.size, flow.bytes = name, "", "", 0, 0
        flow.steps, flow.step_names, flow.actions = [], [], []
        flow.parents, flow.needs, flow.children, flow.roots, flow.finals = [], [], [], [], []
        flow.keys, flow.limits, flow.step_limits, flow.keyed = [], [], [], False
        flow.wishes, flow.plain = list[Wish](), True
        return flow

    def descendants(self, step: int) -> list[int]:
        """Every step that can't run when this one failed, in order."""
        found: set[int] = set()
        for index in range(step + 1, self.size):
            if any(parent == step or parent in found for parent in self.parents[index]):
                found.add(index)
        return sorted(found)
