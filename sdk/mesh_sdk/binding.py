"""Whether a run can be bound to the worker that its starter names with `sticky_worker=`.

The leader is asked with the call `workers.binding` (see `reads` for how calls travel):

    workers.binding  {"worker": id, "workflow": name}  -> Binding, or the error UnknownWorkflow

Rule: asked before the start is written. The leader knows who is there; who was within the last day, the slots bucket knows,
and the remembered runs name those that ran them: a worker that is away is no mistake, one that nobody remembers is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import msgspec
from msgspec import Struct, field

from mesh_sdk.errors import InvalidInput, MeshError
from mesh_sdk.transport.errors import StreamMissing

if TYPE_CHECKING:
    from mesh_sdk.client import Client

SHOWN_MAX = 5
"""How many workers a refusal names."""


class Binding(Struct, frozen=True, kw_only=True):
    """What the leader knows of a worker and a workflow.

    Attributes:
        sticky: the workflow's strategy, "" when it has none.
        here: the worker is there and takes work.
        known: the worker is there, perhaps on its way out.
        lacks: actions of the workflow that the worker, which is there, does not register.
        others: some workers that could be named instead, of those that have the workflow where there are any.
        others_have_it: whether `others` have the workflow.
    """

    sticky: str
    here: bool
    known: bool
    lacks: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    others_have_it: bool = False


class _Page(Struct):
    runs: list[msgspec.Raw]


T = TypeVar("T")

_binding = msgspec.json.Decoder(Binding)
_page = msgspec.json.Decoder(_Page)


async def check_binding(client: Client, workflow: str, worker: str) -> None:
    """Make sure that runs of `workflow` can be bound to `worker`, which may be away.

    Args:
        client: asks the leader.
        workflow: registered, as `Client.prepare` has made sure.
        worker: an id that a subject can carry.

    Raises:
        InvalidInput: the workflow is not sticky, the worker does not register it, or nobody remembers such a worker.
        UnknownWorkflow: the leader does not know the workflow.
        Unavailable: no scheduler answers.
    """
    asked = f"whether runs of {workflow!r} can be bound to worker {worker!r}"
    found = _read(_binding, await client.leader.call("workers.binding", {"worker": worker, "workflow": workflow}, asked))
    what = f"sticky_worker={worker!r} of the start of {workflow!r}"
    if not found.sticky:
        raise InvalidInput(
            f"{what}: the workflow is not sticky; define it with sticky=StickyStrategy.SOFT or HARD, or leave sticky_worker out"
        )
    if found.lacks:
        raise InvalidInput(f"{what}: worker {worker!r} does not register {', '.join(found.lacks)}; {_instead(found)}")
    if not (found.known or await _ever_was(client, worker)):
        raise InvalidInput(f"{what}: no worker of this id was ever seen in the namespace {client.subjects.namespace!r}; {_instead(found)}")


async def objection(client: Client, workflow: str, worker: str) -> MeshError | None:
    """The error that `check_binding` raises, or None."""
    try:
        await check_binding(client, workflow, worker)
    except MeshError as error:
        return error
    return None


async def _ever_was(client: Client, worker: str) -> bool:
    """The slots bucket keeps the row of a worker for a day after it has gone; a lone server's restart empties it, but not the journal."""

    async def row() -> tuple[bytes, int] | None:
        bus = await client.bus()
        try:
            return await bus.bucket(client.subjects.slots_bucket).get(worker)
        except StreamMissing:
            return None

    what = f"whether worker {worker!r} was ever there"
    if await client.leader.persist(row, what) is not None:
        return True
    return bool(_read(_page, await client.leader.call("runs.list", {"worker": worker, "limit": 1}, what)).runs)


def _instead(found: Binding) -> str:
    if not found.others:
        return "no worker is there to be named: start one, or leave sticky_worker out"
    names = ", ".join(found.others[:SHOWN_MAX]) + (", …" if len(found.others) > SHOWN_MAX else "")
    return f"{'these have it' if found.others_have_it else 'there are'}: {names}"


def _read(decoder: msgspec.json.Decoder[T], answer: bytes) -> T:
    try:
        return decoder.decode(answer)
    except msgspec.MsgspecError as error:
        raise MeshError(f"the scheduler's answer about sticky_worker= can't be read: {error}: are both of one version?") from error
