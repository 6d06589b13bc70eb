"""Children: what a step may spawn, under which id, and how it waits for them.

Rule: everything that can be refused is refused here, before anything is written. A child's id follows from its parent, the
step and its position, so that a retry that spawns the same finds the same child.
"""

from __future__ import annotations

from typing import Any

from msgspec import Raw

from mesh_sdk.context import Spawn
from mesh_sdk.errors import DefinitionError, InvalidInput, SpawnError, StickyChildError
from mesh_sdk.options import check_priority, metadata_of
from mesh_sdk.protocol import ids, records
from mesh_sdk.protocol.records import Assign
from mesh_sdk.serialize import UNTYPED, Parse, dumper, parser
from mesh_sdk.starting import Startable
from mesh_sdk.worker.attempt import Attempt
from mesh_sdk.worker.registry import Registry
from mesh_sdk.workflow import find_workflow

CHILDREN_MAX = 10_000


class Spawned:
    """The children of one attempt.

    Attributes:
        counts: how many were spawned without a key, by workflow.
        digests: of what was spawned, by position.
    """

    __slots__ = ("counts", "digests")

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self.digests: dict[str, str] = {}


class Order:
    """A child that may be spawned.

    Attributes:
        child: its run id.
        record: the report that starts it; None when it was started before.
        parse: reads its result.
        workflow: its name.
        hard: it can run on this worker only.
    """

    __slots__ = ("child", "hard", "parse", "record", "workflow")

    def __init__(self, child: str, record: records.Spawn | None, parse: Parse, workflow: str, hard: bool) -> None:
        self.child = child
        self.workflow = workflow
        self.record = record
        self.parse = parse
        self.hard = hard


def order_child(attempt: Attempt, spawn: Spawn[Any, Any], registry: Registry, worker: str) -> Order:
    """Check a spawn and give it its place among the attempt's children.

    Args:
        attempt: of the parent.
        spawn: what its step asks for.
        registry: of the worker.
        worker: its id, for messages.

    Raises:
        StickyChildError, SpawnError, InvalidInput, PayloadTooLarge: nothing was written.
    """
    assign = attempt.assign
    name, data, parse = _resolve(spawn)
    if spawn.sticky:
        _check_sticky(assign, name, registry, worker)
    what = f"child {name!r}"
    priority = check_priority(spawn.priority, what, SpawnError) if spawn.priority else 0
    metadata = metadata_of(spawn.metadata, f"metadata of {what}", SpawnError) or None
    definition = registry.definition(name)
    hard = bool(spawn.sticky and definition and definition.sticky == "HARD")
    digest = ids.content_digest(name.encode() + b"\0" + data)
    position, again = _place(attempt, name, _key(spawn, what), digest)
    earlier = next((known for known in _earlier(assign) if known[0] == position), None)
    if earlier is not None:
        _check_same(assign, position, digest, earlier[1])
        return Order(earlier[2], None, parse, name, hard)
    child = ids.derived_run_id(ids.run_id_time_ms(assign.run), assign.run, assign.name, position)
    if again:
        return Order(child, None, parse, name, hard)
    record = records.Spawn(
        assign.run,
        assign.step,
        assign.attempt,
        assign.token,
        position,
        digest,
        child,
        name,
        Raw(data),
        bool(spawn.sticky),
        priority,
        metadata,
    )
    return Order(child, record, parse, name, hard)


def _resolve(spawn: Spawn[Any, Any]) -> tuple[str, bytes, Parse]:
    """The child's name, its input as JSON, and what reads its result."""
    workflow: object = spawn.workflow
    if isinstance(workflow, Startable):
        return workflow.name, workflow.dump_input(spawn.input), workflow.parse_result
    if isinstance(workflow, str) and workflow:
        dump = dumper(UNTYPED, f"input of child {workflow!r}", InvalidInput)
        return workflow, dump(spawn.input), parser(UNTYPED, f"result of child {workflow!r}")
    try:
        found, _ = find_workflow(workflow)
    except DefinitionError as error:
        raise SpawnError(f"{workflow!r} can't be spawned: use a workflow's name, a task or a workflow") from error
    return found.name, found.dump_input(spawn.input), found.parse_result


def _key(spawn: Spawn[Any, Any], what: str) -> str:
    if not isinstance(spawn.key, str):
        raise SpawnError(f"key of {what} is {spawn.key!r}: use text")
    return spawn.key


def _check_sticky(assign: Assign, name: str, registry: Registry, worker: str) -> None:
    definition = registry.definition(name)
    if definition is None:
        raise StickyChildError(
            f"step {assign.workflow}:{assign.name} can't spawn {name!r} as a sticky child: it is not registered on the parent's worker "
            f"{worker!r}; add it to that worker's workflows=[…], or spawn it without sticky"
        )
    if not definition.sticky:
        raise StickyChildError(
            f"step {assign.workflow}:{assign.name} can't spawn {name!r} as a sticky child: {name!r} declares no sticky strategy; "
            "give it sticky=StickyStrategy.SOFT or HARD, or spawn it without sticky"
        )


def _place(attempt: Attempt, name: str, key: str, digest: str) -> tuple[str, bool]:
    """The child's position, and whether this very attempt has spawned it already (with the same key)."""
    spawned = attempt.spawned
    if spawned is None:
        spawned = attempt.spawned = Spawned()
    if len(spawned.digests) >= CHILDREN_MAX:
        assign = attempt.assign
        raise SpawnError(f"step {assign.workflow}:{assign.name} has spawned {CHILDREN_MAX:,} children, the most that one step may have")
    if key:
        position = f"key:{key}"
        before = spawned.digests.get(position)
        if before is not None:
            _check_same(attempt.assign, position, digest, before)
            return position, True
    else:
        count = spawned.counts.get(name, 0)
        spawned.counts[name] = count + 1
        position = f"{name}#{count}"
    spawned.digests[position] = digest
    return position, False


def _earlier(assign: Assign) -> list[tuple[str, str, str]]:
    return (assign.origin.children if assign.origin else None) or []


def _check_same(assign: Assign, position: str, digest: str, before: str) -> None:
    if digest != before:
        raise SpawnError(
            f"step {assign.workflow}:{assign.name} has spawned another child at {position!r} before, with another workflow or input: "
            "a retry must spawn the same again; give each child a key= of its own if their order or number may change"
        )
