"""A client that waits where nobody leads says so, once per silence."""

from __future__ import annotations

import asyncio
import logging

import pytest

from mesh_sdk import Mesh, silence
from tests.sdk.conftest import until
from tests.sdk.scheduler import Scheduler


def _warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if "no scheduler leads" in record.getMessage()]


async def test_each_silence_is_told_once(
    mesh: Mesh, scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(silence, "SILENCE_S", 0.05)
    caplog.set_level(logging.WARNING, "mesh.client")
    waiting = asyncio.ensure_future(mesh.run("held", 1))
    await until(lambda: len(_warnings(caplog)) == 1)
    assert scheduler.url in _warnings(caplog)[0]
    scheduler.beat(7)
    await until(lambda: len(_warnings(caplog)) == 2)
    scheduler.release()
    assert await waiting == 1


async def test_a_timer_ends_with_the_waiting(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(silence, "SILENCE_S", 0.01)
    asked: list[int] = []

    def pending() -> bool:
        asked.append(1)
        return len(asked) < 3

    watched = silence.Silence(asyncio.get_running_loop(), pending, lambda: True, lambda: "here")
    watched.watch()
    watched.heard()
    await until(lambda: len(asked) == 3)
    assert len(_warnings(caplog)) == 1
    watched.close()
    watched.watch()
    assert len(asked) == 3
