"""What is taken from the wire can be read wherever it goes on to: in the journal and in images, on whatever stack."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import msgspec
import pytest
from msgspec import Raw

from mesh.core.image import encode_image, image
from mesh.core.inputs import Unreadable
from mesh.core.loading import load
from mesh.core.records import JOURNAL_VERSION, JournalFrame
from mesh.scheduler.inbox import Inbox
from mesh.scheduler.journal import decode_frame, encode_frame
from mesh_sdk.protocol import records as wire
from mesh_sdk.protocol.codec import BadFrame, encode, report_frames, trigger_frames
from mesh_sdk.protocol.subjects import Subjects
from mesh_sdk.transport.bus import Delivery
from tests.core.workflows import chain
from tests.core.world import World

HIGHER = 60
"""Frames that somebody else's stack has more."""


def as_start(world: World, data: Raw) -> Iterator[tuple[Any, Any]]:
    holder = world.join("w1", [chain("c", 2)], 2)
    frame, bad = trigger_frames.decode(encode(wire.TriggerFrame(wire.VERSION, "c", [wire.Start(world.run_id(), "c", data)])))
    assert len(bad) + len(frame.records) == 1
    yield from ((record, holder.sender) for record in frame.records)


def as_output(world: World, data: Raw) -> Iterator[tuple[Any, Any]]:
    holder = world.join("w1", [chain("c", 2)], 2)
    world.start("c")
    (order,) = world.take(holder)
    report = wire.Finished(order.run, order.step, order.attempt, order.token, data)
    frame, bad = report_frames.decode(encode(wire.ReportFrame(wire.VERSION, "w1", "1", [report])))
    assert len(bad) + len(frame.records) == 1
    yield from ((record, holder.sender) for record in frame.records)


def as_event(world: World, data: Raw) -> Iterator[tuple[Any, Any]]:
    world.join("w1", [msgspec.structs.replace(chain("c", 2), on_events=["e"])], 2)
    source = next(source for source in Inbox(Subjects("test"), lambda source: None).starts if source.name == "events")
    for input, sender in source.decode(Delivery(1, 1, Subjects("test").event("e"), bytes(data), 0, None)):
        if not isinstance(input, Unreadable):
            yield input, sender


def on_a_higher_stack(call: Callable[[], object], frames: int = HIGHER) -> None:
    if frames:
        on_a_higher_stack(call, frames - 1)
    else:
        call()


@pytest.mark.parametrize("arrival", [as_start, as_output, as_event])
def test_whatever_is_taken_can_be_read_again(arrival: Callable[[World, Raw], Iterator[tuple[Any, Any]]]) -> None:
    taken = []
    for depth in range(700, 1_000, 6):
        world = World()
        try:
            arrived = list(arrival(world, Raw(b"[" * depth + b"]" * depth)))
        except BadFrame:
            continue
        for input, sender in arrived:
            taken.append(depth)
            journal = encode_frame(JournalFrame(JOURNAL_VERSION, 1, 1, {}, world.decide(input, sender)))  # type: ignore[arg-type]
            on_a_higher_stack(partial(decode_frame, journal))
            on_a_higher_stack(partial(load, encode_image(image(world.state)), 10))
    assert 500 < max(taken) < 950
