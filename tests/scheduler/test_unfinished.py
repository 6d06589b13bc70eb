"""What is left of snapshots whose makers were killed goes, in time."""

from __future__ import annotations

from pathlib import Path

from mesh.core.state import State
from mesh.store.snapshots import Snapshots
from mesh.store.topology import Topology
from mesh_sdk.protocol.subjects import Subjects
from mesh_sdk.transport.connection import connect
from tests.contract.servers import Server

NAMES = Subjects("test")


async def test_parts_of_older_snapshots_go_with_the_next_one(tmp_path: Path) -> None:
    server = Server(tmp_path).start()
    bus = await connect([server.url], name="test")
    try:
        await Topology(NAMES).ensure(bus)
        snapshots, objects = Snapshots(bus, NAMES), bus.objects(NAMES.snapshots_bucket)
        for sequence in (5, 30):
            name = f"{sequence:016d}".encode().hex()
            await bus.append(f"$O.{NAMES.snapshots_bucket}.C.{name}.0123456789abcdef.0", b"of one whose maker was killed")
        assert await objects.unfinished() == [f"{5:016d}", f"{30:016d}"]
        for sequence in (10, 20):
            await snapshots.write(sequence, {}, State())
        assert await snapshots.drop_old() == 10
        assert await objects.unfinished() == [f"{30:016d}"], "this one may be in the making"
        assert await snapshots.sequences() == [10, 20]
        assert await snapshots.read(20, 10) is not None
    finally:
        await bus.close()
        server.kill()
