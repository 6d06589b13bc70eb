"""State that is not the run's any more is never found: after a move whose `Forget` was lost, and after a sibling that failed."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

import pytest

from mesh_sdk import Context, Mesh, StickyStrategy
from mesh_sdk.protocol.records import Assign, Failed, Finished, Origin
from tests.worker.conftest import running
from tests.worker.leader import Leader


class _Gate:
    def __init__(self) -> None:
        self.begun, self.open = asyncio.Event(), asyncio.Event()
        self.rebuilt = 0


def _flow(mesh: Mesh, gate: _Gate) -> type:
    @mesh.workflow(name="Two", sticky=StickyStrategy.SOFT)
    class Two:
        @mesh.on_moved()
        def rebuild(self, context: Context) -> None:
            gate.rebuilt += 1
            context.local["left"] = "rebuilt"

        @mesh.step()
        async def left(self, context: Context) -> None:
            context.local["left"] = "loaded"
            gate.begun.set()
            await gate.open.wait()

        @mesh.step()
        async def right(self, context: Context) -> Any:
            if context.attempt == 1:
                raise ValueError("not yet")
            return context.local.get("left")

        @mesh.step(parents=["left", "right"])
        async def join(self, context: Context) -> Any:
            return context.local.get("left")

    return Two


def _step(leader: Leader, name: str, run: str | None = None, attempt: int = 1, origin: Origin | None = None) -> Assign:
    parents = {"left": None, "right": None} if name == "join" else {}
    return leader.assign(f"Two:{name}", {}, run=run, parents=parents, attempt=attempt, origin=origin)


async def _output(leader: Leader, order: Assign) -> Any:
    finished = await leader.last_of(order.token)
    assert isinstance(finished, Finished), finished
    return json.loads(bytes(finished.output))


async def _do(leader: Leader, order: Assign) -> Any:
    await leader.send("w-1", order)
    return await _output(leader, order)


async def test_state_of_an_older_binding_is_not_found(leader: Leader, mesh: Mesh):
    gate = _Gate()
    gate.open.set()
    async with running(mesh.worker("clerk", slots=2, workflows=[_flow(mesh, gate)], id="w-1")):
        first = _step(leader, "left")
        await _do(leader, first)
        back = _step(leader, "right", first.run, 2, Origin({}, moved=True, moves=2))
        assert await _do(leader, back) == "rebuilt", "it was elsewhere and has come back"
        assert gate.rebuilt == 1
        assert await _do(leader, _step(leader, "join", first.run, origin=Origin({}, moved=True, moves=2))) == "rebuilt"
        assert gate.rebuilt == 1


async def test_a_second_root_that_is_tried_again_finds_what_the_first_had_built(leader: Leader, mesh: Mesh):
    gate = _Gate()
    gate.open.set()
    async with running(mesh.worker("clerk", slots=2, workflows=[_flow(mesh, gate)], id="w-1")):
        first = _step(leader, "left")
        await _do(leader, first)
        failing = _step(leader, "right", first.run)
        await leader.send("w-1", failing)
        assert isinstance(await leader.last_of(failing.token), Failed)
        assert await _do(leader, _step(leader, "right", first.run, 2, Origin({}, begun=True))) == "rebuilt"
        assert await _do(leader, _step(leader, "join", first.run)) == "rebuilt"
        assert gate.rebuilt == 1


async def test_what_a_step_builds_while_its_sibling_fails_is_not_lost_unseen(leader: Leader, mesh: Mesh):
    gate = _Gate()
    async with running(mesh.worker("clerk", slots=2, workflows=[_flow(mesh, gate)], id="w-1")):
        first = _step(leader, "left")
        await leader.send("w-1", first)
        await asyncio.wait_for(gate.begun.wait(), 10)
        failing = _step(leader, "right", first.run)
        await leader.send("w-1", failing)
        assert isinstance(await leader.last_of(failing.token), Failed)
        assert await _do(leader, _step(leader, "right", first.run, 2)) is None, "nothing has succeeded yet: it begins anew"
        gate.open.set()
        assert await _output(leader, first) is None
        assert await _do(leader, _step(leader, "join", first.run)) == "rebuilt", "neither root's state is whole"
        assert gate.rebuilt == 1


async def test_what_on_moved_raises_is_forgiven_before_the_first_success(leader: Leader, mesh: Mesh, caplog: pytest.LogCaptureFixture):
    """The run's worker died while its first step ran: nothing was built, and the step that builds it begins again."""

    @mesh.workflow(name="Reader", sticky=StickyStrategy.SOFT)
    class Reader:
        @mesh.on_moved()
        def restore(self, context: Context) -> None:
            context.local["half"] = True
            context.local["text"] = context.step_output("read")

        @mesh.step()
        async def read(self, context: Context) -> Any:
            return [context.moved, dict(context.local)]

    caplog.set_level(logging.INFO)
    async with running(mesh.worker("clerk", slots=1, workflows=[Reader], id="w-1")):
        order = leader.assign("Reader:read", attempt=2, origin=Origin({}, moved=True, moves=1))
        assert await _do(leader, order) == [True, {}]
    assert "no step of it has succeeded yet" in caplog.text
