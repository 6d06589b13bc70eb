"""The demo's sticky workflow on a worker: the file is at hand for later steps, wherever the run goes on."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mesh.demo.counting import lines_of, shape_of
from mesh.demo.stdlib import SourceFile
from mesh.demo.workflows import SLOTS, Source, index_file
from mesh_sdk import Mesh
from mesh_sdk.protocol.records import Finished, Origin
from tests.worker.conftest import leader, mesh, namespace, running, server
from tests.worker.leader import Leader

__all__ = ["leader", "mesh", "namespace", "server"]

pytestmark = pytest.mark.timeout(60)

MOVED = Origin({}, moved=True, moves=1)
FILE = SourceFile(path="ast.py", package="(top level)")
GIVEN = FILE.model_dump()


async def output(
    leader: Leader, name: str, run: str | None = None, parents: dict[str, Any] | None = None, origin: Origin | None = None
) -> Any:
    order = leader.assign(f"index-file:{name}", GIVEN, run=run, parents=parents or {}, origin=origin)
    await leader.send("w-1", order)
    finished = await leader.last_of(order.token)
    assert isinstance(finished, Finished), finished
    return order.run, json.loads(bytes(finished.output))


async def test_later_steps_use_the_file_that_was_read(leader: Leader, mesh: Mesh) -> None:
    async with running(mesh.worker("demo", slots=SLOTS, workflows=[index_file], id="w-1")):
        run, read = await output(leader, "read")
        assert Source.model_validate(read).unpack() == FILE.read()
        other = {"read": Source.of(b"x = 1\n").model_dump()}  # not what is in memory
        assert (await output(leader, "parse", run, other))[1] == shape_of(FILE.read()).model_dump()
        assert (await output(leader, "count", run, other))[1] == lines_of(FILE.read()).model_dump()


async def test_a_run_that_moved_goes_on_with_what_was_read_then(leader: Leader, mesh: Mesh) -> None:
    source = b"class A: ...\n\n\ndef f(): ...\n"
    parents = {"read": Source.of(source).model_dump()}
    async with running(mesh.worker("demo", slots=SLOTS, workflows=[index_file], id="w-1")):
        run, shape = await output(leader, "parse", None, parents, MOVED)
        assert shape == shape_of(source).model_dump()
        assert (await output(leader, "count", run, parents, MOVED))[1] == lines_of(source).model_dump()


async def test_a_run_that_moved_before_its_file_was_read_reads_it(leader: Leader, mesh: Mesh) -> None:
    async with running(mesh.worker("demo", slots=SLOTS, workflows=[index_file], id="w-1")):
        run, read = await output(leader, "read", None, None, MOVED)
        assert (await output(leader, "parse", run, {"read": read}, MOVED))[1] == shape_of(FILE.read()).model_dump()
