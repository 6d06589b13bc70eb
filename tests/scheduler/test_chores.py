"""Chores that can't be done at once."""

from __future__ import annotations

import asyncio
import logging

import pytest

from mesh.scheduler.chores import Chores
from mesh_sdk.transport.errors import TransportError

TRIES = 3


@pytest.mark.timeout(20)
async def test_a_chore_that_fails_is_tried_again_and_said_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="mesh.scheduler.chores")
    done = asyncio.Event()
    tried = 0

    async def do() -> None:
        nonlocal tried
        tried += 1
        if tried < TRIES:
            raise TransportError("no server is there")

    async def after() -> None:
        done.set()

    chores = Chores()
    chores.add("the first", do)
    chores.add("the second", after)
    running = asyncio.create_task(chores.run())
    async with asyncio.timeout(10):
        await done.wait()
    running.cancel()
    assert tried == TRIES
    assert [record.getMessage() for record in caplog.records] == [
        "the first failed, and is tried again until it succeeds: no server is there",
        "the first: done at last",
    ]
