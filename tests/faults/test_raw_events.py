"""Events from any NATS client: plain JSON on a subject, no header."""

from __future__ import annotations

import asyncio

import nats

from mesh.core import records as facts
from mesh_sdk import Mesh
from mesh_sdk.transport.connection import Link
from tests.faults import journal
from tests.faults.fleet import Fleet

SUBJECT = "mesh.default.events.user:create"
WITHIN_S = 10.0


async def test_plain_json_starts_the_runs_and_a_repeat_is_another_event(fleet: Fleet, bus: Link) -> None:
    leader, standby = fleet.scheduler(), fleet.scheduler()
    fleet.worker()
    client = await nats.connect(fleet.server.url)
    try:
        await client.publish(SUBJECT, b'{"n":1}')
        await client.flush()
        first = await _ended(bus, 2)
        assert sorted(run.workflow for run in first) == ["on_any", "on_user"]
        await client.jetstream().publish(SUBJECT, b'{"n":1}')
        second = await _ended(bus, 4)
        assert len({run.run for run in second}) == 4, "the same content twice makes two events"
        async with Mesh(url=fleet.server.url) as mesh:
            run = await mesh.runs.get(next(run.run for run in second if run.workflow == "on_user"))
            assert run.steps["on_user"].output == {"n": 1, "event": True}

        leader.kill()
        await client.publish(SUBJECT, b'{"n":2}')  # while nobody leads
        await client.flush()
        assert len(await _ended(bus, 6)) == 6
        # A new leader that has forgotten its positions reads every stored event again: still one run of each.
        await _forget_positions(bus)
        standby.kill()
        fleet.scheduler()
        await client.publish(SUBJECT, b'{"n":3}')
        await client.flush()
        assert len(await _ended(bus, 8)) == 8
        found = await journal.records(bus)
        journal.check_once(found)
        journal.check_executions(fleet.executions())
    finally:
        await client.close()


async def _ended(bus: Link, runs: int) -> list[facts.RunStarted]:
    """Every run, once this many have ended and nothing more is under way."""
    async with asyncio.timeout(WITHIN_S):
        while True:
            found = await journal.records(bus)
            started = [record for record in found if isinstance(record, facts.RunStarted)]
            ended = [record for record in found if isinstance(record, facts.RunFinished)]
            if len(ended) == len(started) >= runs:
                return started
            await asyncio.sleep(0.02)


async def _forget_positions(bus: Link) -> None:
    """Append a frame, as the leader would, that says no event was decided yet."""
    last = (await journal.frames(bus))[-1]
    frame = last[1]
    positions = {**frame.positions, "events": [0, 0]}
    data = journal.encode_frame(journal.JournalFrame(frame.version, frame.term, frame.at, positions, []))
    await bus.append(journal.NAMES.journal, data, expect=last[0])
