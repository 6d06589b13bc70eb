"""A stream's leader that was just elected may lag: for a moment it seems to have lost what was read already."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from mesh_sdk.transport import streams
from mesh_sdk.transport.bus import Delivery, StreamState
from mesh_sdk.transport.connection import Link, connect
from mesh_sdk.transport.reader import OrderedReader
from tests.contract.conftest import stream, until
from tests.contract.servers import Server


@pytest.fixture
async def bus(tmp_path: Path) -> AsyncIterator[Link]:
    server = Server(tmp_path).start()
    link = await connect([server.url], name="test")
    await link.ensure_stream(stream("S"))
    for _ in range(5):
        await link.append("S.a", b"")
    yield link
    await link.close()
    server.kill()


def lag(monkeypatch: pytest.MonkeyPatch, times: int) -> list[int]:
    """So often the stream ends at 2, to whoever asks; the list grows with each question."""
    asked: list[int] = []
    honest = streams.stream_state

    async def state(*args: Any) -> StreamState | None:
        found = await honest(*args)
        asked.append(1)
        return msgspec.structs.replace(found, last=2) if found is not None and len(asked) <= times else found

    monkeypatch.setattr(streams, "stream_state", state)
    return asked


async def test_it_is_asked_again_before_it_is_believed(bus: Link, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture):
    got: list[int] = []
    reader = bus.reader("S", "S.>", 1, lambda delivery: got.append(delivery.sequence))
    await reader.start()
    await until(lambda: len(got) == 5)
    asked = lag(monkeypatch, 3)
    reader._restart("the test says so")
    await bus.append("S.a", b"")
    await until(lambda: len(got) == 6)
    assert got == [1, 2, 3, 4, 5, 6]
    assert len(asked) == 4
    assert "is not what it was" not in caplog.text
    await reader.close()


async def test_one_that_goes_on_to_say_so_has_lost_its_end(bus: Link, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture):
    asked = lag(monkeypatch, 1_000)
    reader = bus.reader("S", "S.>", 6, lambda delivery: None)
    began = bus.loop.time()
    await reader.start()
    assert reader.position == 2
    assert bus.loop.time() - began < 4
    assert len(asked) < 10, "no storm of questions"
    assert "is not what it was" in caplog.text
    await reader.close()


async def test_what_was_read_is_not_told_again(bus: Link):
    """A consumer that is to begin behind a lagging leader's end begins at that end."""

    class Behind(OrderedReader):
        def _configuration(self, name: str) -> dict[str, Any]:
            return super()._configuration(name) | {"opt_start_seq": 2}

    got: list[Delivery] = []
    reader = Behind(bus, "S", "S.>", got.append, start=5)
    await reader.start()
    await until(lambda: reader.caught_up)
    assert [delivery.sequence for delivery in got] == [5]
    assert reader.position == 5
    await reader.close()
