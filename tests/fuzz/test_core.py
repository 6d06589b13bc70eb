"""The core against records that are well formed and make no sense: unknown, forged, replayed, late, negative, huge.

Whatever raises in `decide` ends a term, and what a decision records must fit the smallest server's message: one stranger
could stop every scheduler in turn otherwise.
"""

from __future__ import annotations

import random
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from mesh.core.inputs import Sender, Unreadable
from mesh.scheduler.inbox import MESSAGE_BYTES_MAX
from mesh.scheduler.loop import BYTES_MAX
from mesh_sdk.protocol import records
from mesh_sdk.protocol.codec import FRAME_RECORDS_MAX, encode
from mesh_sdk.protocol.definitions import StepDefinition, WorkflowDefinition
from tests.core.workflows import chain, diamond
from tests.core.world import World
from tests.protocol.strategies import of

SERVER_BYTES_MAX = 1024 * 1024
"""What a server takes that was told nothing."""
FRAME_OVERHEAD = 2_048
HUGE = (2**63, -(2**63), 2**64, -1, 2**53, 10**18, 10**40)
KINDS = [*get_args(records.Trigger), *get_args(records.Report)]


def running() -> World:
    """A world in which something of every kind is under way."""
    world = World(7, finished_max=50)
    for workflow in (chain("one", 1, retries=1), diamond("two"), msgspec.structs.replace(chain("sticky", 2), sticky="HARD")):
        world.join(f"for-{workflow.name}", [workflow], 2)
        for _ in range(3):
            world.start(workflow.name)
    for holder in world.workers.values():
        for order in world.take(holder):
            world.accept(holder, order)
    world.finish(holder, next(iter(holder.running.values())))
    return world


def _twisted(world: World, rng: random.Random, record: Any) -> Any:
    """A record whose fields hit what there is, or are far out of range: never all of them by chance."""
    attempts = list(world.state.attempts.values())
    runs = [*world.state.runs, *world.state.finished.window]
    if hasattr(record, "token") and rng.random() < 0.8 and attempts:
        attempt = rng.choice(attempts)
        right = {"run": attempt.step.run.id, "step": attempt.step.index, "attempt": attempt.number, "token": attempt.token}
        for name in rng.sample(list(right), rng.randint(2, 4)):
            setattr(record, name, right[name])
    elif hasattr(record, "run") and rng.random() < 0.7:
        record.run = rng.choice(runs)
    if hasattr(record, "workflow") and rng.random() < 0.7:
        record.workflow = rng.choice(list(world.state.flows))
    for field in msgspec.structs.fields(record):
        if field.type is int and rng.random() < 0.25:
            setattr(record, field.name, rng.choice(HUGE))
    return record


def _sender(world: World, rng: random.Random) -> Sender:
    workers = list(world.state.workers.values())
    worker = rng.choice(workers) if workers and rng.random() < 0.8 else None
    if worker is None:
        return Sender(rng.choice(["nobody", "", "a b", "*", "w\n"]), rng.choice(["", "z", "0"]), world.now, rng.choice([0, 1, 9, 99]))
    return Sender(worker.id, worker.incarnation if rng.random() < 0.7 else rng.choice(["", "zzzz", "0"]), world.now)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@given(data=st.data(), seed=st.integers(0, 2**32))
def test_no_record_breaks_the_core(kind: type[records.Record], data: st.DataObject, seed: int) -> None:
    rng = random.Random(seed)
    world = running()
    for _ in range(4):
        record = _twisted(world, rng, data.draw(of(kind)))
        copy = msgspec.json.decode(encode(record), type=kind)
        sender = _sender(world, rng)
        world.decide(record, sender)
        world.decide(copy, sender)  # replayed: what it changed, it changed once
        world.now += rng.choice([0, 1, 5_000])
    world.check_followers()
    world.check_once()


@given(seed=st.integers(0, 2**32), records_=st.lists(of(records.Trigger) | of(records.Report), max_size=12))
def test_no_order_of_records_breaks_the_core(seed: int, records_: list[Any]) -> None:
    rng = random.Random(seed)
    world = running()
    for record in records_:
        world.decide(_twisted(world, rng, record), _sender(world, rng))
    world.check_followers()
    world.check_once()
    world.take_over(rng.choice(["standby", "replay", "image"]))


def test_a_forged_token_changes_nothing() -> None:
    """Only whoever was given the attempt may speak for it."""
    world = running()
    before = [(attempt.token, attempt.held) for attempt in world.state.attempts.values()]
    holder = world.workers["for-two"]
    for attempt in list(world.state.attempts.values()):
        ids = (attempt.step.run.id, attempt.step.index, attempt.number)
        for token in ("", "t0", attempt.token + "x", attempt.token.upper()):
            world.decide(records.Finished(*ids, token, Raw(b"1")), holder.sender)
            world.decide(records.Returned(*ids, token, records.RETURNED_REDELIVERED), holder.sender)
        if attempt.worker is not None and attempt.worker.id != holder.id:  # the right token, shown by another worker
            world.decide(records.Finished(*ids, attempt.token, Raw(b"1")), holder.sender)
    assert [(attempt.token, attempt.held) for attempt in world.state.attempts.values()] == before
    world.check_followers()


# ---- what is written down about it ----------------------------------------------------------------------------------------------

LONG = "\ue000" * (MESSAGE_BYTES_MAX // 3 - 100)
"""As long as a message may be; each character of it takes twice as much where an error quotes it."""
RUN = "0" * 32

LARGE: dict[str, tuple[Any, Sender]] = {
    "workflow of a start": (records.Start(RUN, LONG, Raw(b"1")), Sender("c", "", 1)),
    "run of a start": (records.Start(LONG, "one", Raw(b"1")), Sender("c", "", 1)),
    "worker of a start": (records.Start(RUN, "one", Raw(b"1"), worker=LONG), Sender("c", "", 1)),
    "client of a start": (records.Start(RUN, "nothing", Raw(b"1")), Sender(LONG, "", 1)),
    "key of a start": (records.Start(RUN, "one", Raw(b"1"), key=LONG), Sender("c", "", 1)),
    "run of a cancel": (records.Cancel(LONG, "no"), Sender("c", "", 1)),
    "reason of a cancel": (records.Cancel(RUN, LONG), Sender("c", "", 1)),
    "run of a report": (records.Accepted(LONG, 0, 1, "t"), Sender("for-one", "x", 1)),
    "id of a worker": (records.Register("w", 1, [chain()], {}, "c"), Sender(LONG, "i", 1)),
    "incarnation of a worker": (records.Register("w", 1, [chain()], {}, "c"), Sender("for-one", LONG, 1)),
    "client of a worker": (records.Register("w", 1, [chain()], {}, LONG), Sender("w", "i", 1)),
    "step of a definition": (
        records.Register("w", 1, [WorkflowDefinition("w", [StepDefinition(LONG, [7])])], {}, "c"), Sender("w", "i", 1)
    ),
    "reason of a dead letter": (Unreadable("start1", 1, -1, f"Invalid value {LONG!r}"), Sender("", "", 1)),
}  # fmt: skip


@pytest.mark.parametrize("name", LARGE)
def test_what_a_refusal_quotes_still_fits_a_message(name: str) -> None:
    world = running()
    input, sender = LARGE[name]
    told = world.decide(input, sender)
    size = len(encode(told))
    assert size + BYTES_MAX + FRAME_OVERHEAD <= SERVER_BYTES_MAX, f"{size:,} bytes of journal"
    for client, notice in world.notices:
        assert len(client) <= 64
        assert len(encode(notice)) + FRAME_OVERHEAD <= SERVER_BYTES_MAX
    world.check_followers()


def test_many_small_refusals_are_cut_into_frames() -> None:
    """A message of nothing but unknown workflows: each record is refused with a text, none is larger than it may be."""
    world = running()
    for count in range(FRAME_RECORDS_MAX):
        (refused,) = world.decide(records.Start(f"{count:032x}", "nothing", Raw(b"1")), Sender("c", "", 1))
        assert len(encode(refused)) < 400
    assert len(world.state.finished) == 50, "what is remembered of them is bounded like everything else"
