"""What a worker registers of a workflow, made of what its user wrote. Pure.

Rule: the key function stands first and apart, as it runs before all steps; among the steps every parent stands before its children.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from mesh_sdk.errors import DefinitionError
from mesh_sdk.graph import topological_order
from mesh_sdk.key_function import KeySpec
from mesh_sdk.options import WorkflowSettings
from mesh_sdk.protocol.bounds import LIMITS_MAX
from mesh_sdk.protocol.codec import encode
from mesh_sdk.protocol.definitions import StepDefinition, WorkflowDefinition
from mesh_sdk.protocol.ids import content_digest
from mesh_sdk.protocol.scopes import disagreement
from mesh_sdk.step import StepSpec, step_name


def make_definition(name: str, settings: WorkflowSettings, specs: Mapping[str, StepSpec], key: KeySpec | None) -> WorkflowDefinition:
    """Put together what travels, with its digest.

    Args:
        name: the workflow's.
        settings: its options.
        specs: its steps by name, as they were defined.
        key: its key function.

    Raises:
        DefinitionError: no steps, an unknown parent, a cycle, too many limits, or limits of one scope that disagree.
    """
    if not specs:
        raise DefinitionError(f"workflow {name!r} has no steps: mark its methods with @mesh.step(), or add functions with .step()")
    before = [] if key is None else [key.definition(settings.schedule_timeout_ms)]
    limits = [*([] if key is None else [key.concurrency()]), *settings.concurrency]
    if len(limits) > LIMITS_MAX:
        raise DefinitionError(f"workflow {name!r} has {len(limits)} concurrency limits, {LIMITS_MAX} are the most")
    parents = {spec.name: [step_name(parent) for parent in spec.settings.parents] for spec in specs.values()}
    order = topological_order(name, parents)
    place = {step: index for index, step in enumerate(order, len(before))}
    bare = WorkflowDefinition(
        name=name,
        steps=before + [_step(specs[step], settings, sorted(place[parent] for parent in parents[step])) for step in order],
        version=settings.version,
        on_events=list(settings.on_events),
        priority=settings.priority,
        sticky="" if settings.sticky is None else settings.sticky.value,
        sticky_timeout_ms=settings.sticky_timeout_ms,
        metadata=settings.metadata,
        concurrency=limits,
        admission_timeout_ms=settings.admission_timeout_ms,
    )
    if wrong := disagreement([bare]):
        raise DefinitionError(wrong)
    return msgspec.structs.replace(bare, digest=content_digest(encode(bare)))


def _step(spec: StepSpec, workflow: WorkflowSettings, parents: list[int]) -> StepDefinition:
    own = spec.settings
    return StepDefinition(
        name=spec.name,
        parents=parents,
        timeout_ms=workflow.timeout_ms if own.timeout_ms is None else own.timeout_ms,
        schedule_timeout_ms=workflow.schedule_timeout_ms if own.schedule_timeout_ms is None else own.schedule_timeout_ms,
        retries=own.retries,
        backoff_factor=own.backoff_factor,
        backoff_max_ms=own.backoff_max_ms,
        priority=own.priority,
        slots=own.slots,
        concurrency=list(own.concurrency),
        rate_limits=list(own.rate_limits),
        labels=list(own.labels),
    )
