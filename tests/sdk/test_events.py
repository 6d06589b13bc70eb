"""Publishing events: stored before it returns, JSON and nothing more."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from uuid import UUID

import pytest

from mesh_sdk import Event, InvalidInput, InvalidName, Mesh, PayloadTooLarge
from tests.sdk.scheduler import Scheduler


async def test_an_event_is_json_on_its_subject(mesh: Mesh, scheduler: Scheduler):
    event = await mesh.events.publish("user:create", {"at": datetime(2025, 1, 1, tzinfo=UTC), "id": UUID(int=7)})
    stored = await scheduler.bus.get(scheduler.subjects.events_stream, event.sequence)
    assert stored is not None
    assert stored.subject == f"mesh.{scheduler.subjects.namespace}.events.user:create"
    assert json.loads(stored.data) == {"at": "2025-01-01T00:00:00Z", "id": str(UUID(int=7))}
    assert (event.name, event.id) == ("user:create", "")


async def test_an_id_dedupes_and_metadata_travels(mesh: Mesh, scheduler: Scheduler):
    first = await mesh.events.publish("a.b", 1, id="once", metadata={"tenant": "ü"})
    second = await mesh.events.publish("a.b", 1, id="once")
    third = await mesh.events.publish("a.b", 1)
    fourth = await mesh.events.publish("a.b", 1)
    assert first.sequence == second.sequence
    assert third.sequence != fourth.sequence
    stored = await scheduler.bus.get(scheduler.subjects.events_stream, first.sequence)
    assert stored is not None
    assert json.loads(stored.headers["Mesh-Metadata"]) == {"tenant": "ü"}
    assert stored.headers["Nats-Msg-Id"] == "once"


async def test_many_are_stored_in_order(mesh: Mesh, scheduler: Scheduler):
    events = await mesh.events.publish_many([("n", number) for number in range(2_500)] + [Event("m", "last", id="x")])
    assert [event.sequence for event in events] == list(range(1, 2_502))
    assert events[-1].id == "x"


@pytest.mark.parametrize("name", ["", "a b", "a.*", "a.>", "a..b", ".a", "a.", "a\n"])
async def test_names_that_no_subject_carries_are_refused(mesh: Mesh, name: str):
    with pytest.raises(InvalidName) as refused:
        await mesh.events.publish(name, 1)
    assert repr(name) in str(refused.value)


async def test_payloads_that_cannot_travel_are_refused(mesh: Mesh):
    with pytest.raises(InvalidInput, match="object"):
        await mesh.events.publish("a", object())
    with pytest.raises(PayloadTooLarge):
        await mesh.events.publish("a", "x" * 600_000)
    with pytest.raises(InvalidInput, match="metadata"):
        await mesh.events.publish("a", 1, metadata={"a": 1})  # type: ignore[dict-item]


def test_the_sync_twins_publish(mesh: Mesh):
    """Outside of any loop; the mesh's fixtures run on theirs."""
    assert mesh.events.publish_sync("a", 1).sequence == 1
    assert [event.sequence for event in mesh.events.publish_many_sync([("a", 2), ("a", 3)])] == [2, 3]
    mesh.close_sync()
