"""Children: what a step may spawn, under which id, and how it waits for them.

Rule: everything that can be refused is refused here, before anything is written. A child's id follows from its parent, the
step and its position, so that a retry that spawns the same finds the same child.
"""

from __future__ import annotations

from typing import Any

from msgspec import Raw

from mesh_sdk.context import Spawn
from mesh_sdk.errors import DefinitionError, InvalidInput, SpawnError, StepCancelled, StickyChildError
from mesh_sdk.expressions import shortened
from mesh_sdk.labels import read_wishes
from mesh_sdk.options import check_name, check_priority, metadata_of
from mesh_sdk.protocol import ids, records
from mesh_sdk.protocol.bounds import KEY_CHARACTERS_MAX
from mesh_sdk.protocol.records import Assign
from mesh_sdk.serialize import UNTYPED, Parse, dumper, parser
from mesh_sdk.starting import Startable
from mesh_sdk.worker.attempt import Attempt, told_to_stop
from mesh_sdk.worker.registry import Registry
from mesh_sdk.workflow import Workflow, find_workflow

CHILDREN_MAX = 10_000


class Spawned:
    """The children of one attempt.

    Attributes:
        counts: how many were spawned without a key, by workflow.
        digests: of what was spawned, by position.
        earlier: what earlier attempts have spawned: position → (digest of the input, run id).
    """

    __slots__ = ("counts", "digests", "earlier")

    def __init__(self, assign: Assign) -> None:
        self.counts: dict[str, int] = {}
        self.digests: dict[str, str] = {}
        children = (assign.origin.children if assign.origin else None) or []
        self.earlier = {position: (digest, child) for position, digest, child in children}


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
        StickyChildError, SpawnError, StepCancelled, InvalidInput, PayloadTooLarge: nothing was written.
    """
    assign = attempt.assign
    if not isinstance(spawn, Spawn):
        raise SpawnError(f"{spawn!r} can't be spawned: use Spawn(workflow, input, …)")
    name, data, parse = _resolve(spawn)
    check_live(attempt, name)
    what = f"child {name!r}"
    if not isinstance(spawn.sticky, bool):
        raise SpawnError(f"sticky of {what} is {spawn.sticky!r}: use True or False; its strategy is the child's own to declare")
    key = _key(spawn, what)
    spawned = attempt.spawned
    if spawned is None:
        spawned = attempt.spawned = Spawned(assign)
    earlier = spawned.earlier.get(_next_position(spawned, name, key))
    if spawn.sticky and earlier is None:  # one that runs already is what it is, whatever this worker has registered
        _check_sticky(assign, spawn.workflow, name, registry, worker)
    priority = check_priority(spawn.priority, what, SpawnError) if spawn.priority else 0
    metadata = metadata_of(spawn.metadata, f"metadata of {what}", SpawnError) or None
    wishes = list(read_wishes(spawn.desired_worker_labels, f"desired_worker_labels of {what}", SpawnError))
    definition = registry.definition(name)
    hard = bool(spawn.sticky and definition and definition.sticky == "HARD")
    digest = ids.content_digest(name.encode() + b"\0" + data)
    position, again = _place(assign, spawned, name, key, digest)
    if earlier is not None:
        _check_same(assign, position, digest, earlier[0])
        return Order(earlier[1], None, parse, name, hard)
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
        wishes,
    )
    return Order(child, record, parse, name, hard)


def _resolve(spawn: Spawn[Any, Any]) -> tuple[str, bytes, Parse]:
    """The child's name, its input as JSON, and what reads its result."""
    workflow: object = spawn.workflow
    if isinstance(workflow, Startable):
        return workflow.name, workflow.dump_input(spawn.input), workflow.parse_result
    if isinstance(workflow, str):
        _check_name(workflow)
        dump = dumper(UNTYPED, f"input of child {workflow!r}", InvalidInput)
        return workflow, dump(spawn.input), parser(UNTYPED, f"result of child {workflow!r}")
    try:
        found, _ = find_workflow(workflow)
    except DefinitionError as error:
        raise SpawnError(f"{workflow!r} can't be spawned: use a workflow's name, a task or a workflow") from error
    return found.name, found.dump_input(spawn.input), found.parse_result


def check_live(attempt: Attempt, name: str) -> None:
    """See that an attempt may still spawn.

    Args:
        attempt: of the parent.
        name: of the child.

    Raises:
        StepCancelled: it was told to stop.
        SpawnError: it has ended, or only rebuilds what is kept for its run.
    """
    assign, entry = attempt.assign, attempt.entry
    if attempt.stop is not None:
        raise StepCancelled(f"{told_to_stop(attempt)}; it can't spawn {name!r} any more")
    if attempt.answered:
        raise SpawnError(
            f"step {attempt.action.name} of run {assign.run} has ended, it can't spawn {name!r} any more: spawn before the step returns"
        )
    if entry is not None and entry.arrival is not None and entry.arrival.owner is attempt:
        raise SpawnError(
            f"on_moved of workflow {assign.workflow!r} can't spawn {name!r}: it is called only where the run's state is missing, "
            "and children must be the same at every attempt; spawn in a step"
        )


def _check_name(name: str) -> None:
    try:
        check_name(name, "the child to spawn")
    except DefinitionError as error:
        raise SpawnError(str(error)) from None


def _key(spawn: Spawn[Any, Any], what: str) -> str:
    key: object = spawn.key
    if not isinstance(key, str) or len(key) > KEY_CHARACTERS_MAX or not _encodable(key):
        raise SpawnError(f"key of {what} is {shortened(key)}: use up to {KEY_CHARACTERS_MAX} characters of text, or leave it out")
    return key


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _check_sticky(assign: Assign, workflow: object, name: str, registry: Registry, worker: str) -> None:
    definition = registry.definition(name)
    if definition is not None and definition.sticky:
        return
    parent = f"step {assign.workflow}:{assign.name} on worker {worker!r}"
    absent, loose = f"{name!r} is not registered on that worker", f"{name!r} declares no sticky strategy"
    register, declare = "add it to the worker's workflows=[…]", "give it sticky=StickyStrategy.SOFT or HARD"
    if definition is not None:
        why, what = loose, declare
    elif _is_loose(workflow):
        why, what = f"{absent}, and {loose}", f"{declare} and {register}"
    else:
        why, what = absent, register
    raise StickyChildError(f"{parent} can't spawn {name!r} as a sticky child: {why}; {what}, or spawn it without sticky")


def _is_loose(workflow: object) -> bool:
    """Whether a child that is known here as more than its name is known to have no sticky strategy."""
    if isinstance(workflow, str):
        return False
    found: Workflow[Any] = find_workflow(workflow)[0]
    return found.settings.sticky is None


def _place(assign: Assign, spawned: Spawned, name: str, key: str, digest: str) -> tuple[str, bool]:
    """The child's position, and whether this very attempt has spawned it already (with the same key)."""
    if len(spawned.digests) >= CHILDREN_MAX:
        raise SpawnError(f"step {assign.workflow}:{assign.name} has spawned {CHILDREN_MAX:,} children, the most that one step may have")
    position = _next_position(spawned, name, key)
    if key:
        before = spawned.digests.get(position)
        if before is not None:
            _check_same(assign, position, digest, before)
            return position, True
    else:
        spawned.counts[name] = spawned.counts.get(name, 0) + 1
    spawned.digests[position] = digest
    return position, False


def _next_position(spawned: Spawned, name: str, key: str) -> str:
    """Where the attempt's next child of this name, or its child of this key, stands."""
    return f"key:{key}" if key else f"{name}#{spawned.counts.get(name, 0)}"


def _check_same(assign: Assign, position: str, digest: str, before: str) -> None:
    if digest != before:
        raise SpawnError(
            f"step {assign.workflow}:{assign.name} has spawned another child at {position!r} before, with another workflow or input: "
            "a retry must spawn the same again; give each child a key= of its own if their order or number may change"
        )
