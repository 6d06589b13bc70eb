"""What steps raise, return and do that they shouldn't: each attempt fails as it must, and the worker lives."""

from __future__ import annotations

import asyncio
import sys
import threading
from typing import Any

import pytest
from pydantic import BaseModel

from mesh_sdk import Context, Mesh, NonRetryable, RetryAfter
from mesh_sdk.protocol import records
from mesh_sdk.protocol.codec import PAYLOAD_BYTES_MAX
from mesh_sdk.protocol.records import Failed, Finished, Refresh
from tests.worker.conftest import running
from tests.worker.leader import Leader


class Order(BaseModel):
    id: int


def _raises(error: BaseException) -> Any:
    async def step(ctx: Context) -> None:
        raise error

    def sync_step(ctx: Context) -> None:
        raise error

    return step, sync_step


@pytest.mark.parametrize(
    ("error", "retry"),
    [
        (ValueError("no such thing"), records.RETRY_ALLOWED),
        (SystemExit(3), records.RETRY_ALLOWED),
        (KeyboardInterrupt(), records.RETRY_ALLOWED),
        (asyncio.CancelledError("mine"), records.RETRY_ALLOWED),
        (GeneratorExit(), records.RETRY_ALLOWED),
        (NonRetryable("never"), records.RETRY_NEVER),
        (RetryAfter("1500ms"), 1500),
        (RetryAfter("soon"), records.RETRY_NEVER),
        (ValueError("\ud800 a lone surrogate"), records.RETRY_ALLOWED),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else str(value),
)
async def test_whatever_a_step_raises_is_its_failure(leader: Leader, mesh: Mesh, error: BaseException, retry: int):
    step, sync_step = _raises(error)
    first, second = mesh.task(name="async_step")(step), mesh.task(name="sync_step")(sync_step)

    @mesh.task()
    async def fine(ctx: Context) -> int:
        return 1

    async with running(mesh.worker("clerk", slots=4, workflows=[first, second, fine], id="w-1")):
        for name in ("async_step", "sync_step"):
            order = leader.assign(name)
            await leader.share("w-1", order)
            failed = await leader.last_of(order.token)
            assert isinstance(failed, Failed)
            assert (failed.kind, failed.retry) == (records.FAILED_ERROR, retry)
            if retry == records.RETRY_ALLOWED:
                assert failed.error.type == type(error).__name__
        after = leader.assign("fine")
        await leader.share("w-1", after)
        assert isinstance(await leader.last_of(after.token), Finished)


async def test_a_traceback_is_the_users_part_and_bounded(leader: Leader, mesh: Mesh):
    @mesh.task()
    async def deep(ctx: Context) -> None:
        def fall(level: int) -> None:
            if not level:
                raise ValueError("x" * 100_000)
            fall(level - 1)

        fall(200)

    async with running(mesh.worker("clerk", workflows=[deep], id="w-1")):
        order = leader.assign("deep")
        await leader.share("w-1", order)
        failed = await leader.last_of(order.token)
        assert len(failed.error.traceback.encode()) <= 8 * 1024
        assert len(failed.error.message) <= 4 * 1024
        assert "mesh_sdk/worker" not in failed.error.traceback


async def test_input_that_does_not_pass_is_never_tried_again(leader: Leader, mesh: Mesh):
    @mesh.task()
    async def charge(order: Order, ctx: Context) -> int:
        return order.id

    async with running(mesh.worker("clerk", workflows=[charge], id="w-1")):
        order = leader.assign("charge", {"id": "seven"})
        await leader.share("w-1", order)
        failed = await leader.last_of(order.token)
        assert (failed.kind, failed.retry) == (records.FAILED_INVALID, records.RETRY_NEVER)
        assert "valid integer" in failed.error.message
        assert "seven" in failed.error.message


@pytest.mark.parametrize("value", [object(), "x" * PAYLOAD_BYTES_MAX], ids=["not JSON", "too large"])
async def test_output_that_can_not_travel_fails_for_good(leader: Leader, mesh: Mesh, value: object):
    @mesh.task()
    async def odd(ctx: Context) -> Any:
        return value

    async with running(mesh.worker("clerk", workflows=[odd], id="w-1")):
        order = leader.assign("odd")
        await leader.share("w-1", order)
        failed = await leader.last_of(order.token)
        assert failed.retry == records.RETRY_NEVER
        assert "odd" in failed.error.message


async def test_an_async_step_that_runs_out_of_time_is_cancelled(leader: Leader, mesh: Mesh):
    @mesh.task(timeout="100ms")
    async def endless(ctx: Context) -> None:
        await asyncio.Event().wait()

    async with running(mesh.worker("clerk", slots=1, workflows=[endless], id="w-1")):
        for _ in range(2):
            order = leader.assign("endless")
            await leader.share("w-1", order)
            failed = await leader.last_of(order.token)
            assert failed.kind == records.FAILED_TIMEOUT
            assert "0.1 s" in failed.error.message


async def test_a_sync_step_that_runs_out_of_time_keeps_its_slot_until_it_returns(leader: Leader, mesh: Mesh):
    go_on = threading.Event()
    seen = []

    @mesh.task(timeout="100ms")
    def stubborn(ctx: Context) -> None:
        go_on.wait(10)
        seen.append(ctx.cancelled)

    @mesh.task()
    def quick(ctx: Context) -> int:
        return 1

    async with running(mesh.worker("clerk", slots=1, workflows=[stubborn, quick], id="w-1")):
        order = leader.assign("stubborn")
        await leader.share("w-1", order)
        assert (await leader.last_of(order.token)).kind == records.FAILED_TIMEOUT
        after = leader.assign("quick")
        await leader.send("w-1", after)
        assert b'"running": 1' in await leader.bus.request(leader.subjects.control("w-1"), b"", 5)
        assert not leader.of(after.token)
        go_on.set()
        assert isinstance(await leader.last_of(after.token), Finished)
        assert seen == [True]
        assert len(leader.of(order.token)) == 2, "accepted and failed, nothing after the thread's end"


async def test_a_step_may_ask_for_more_time(leader: Leader, mesh: Mesh):
    @mesh.task(timeout="200ms")
    async def long(ctx: Context) -> str:
        ctx.refresh_timeout("10s")
        await asyncio.wait([asyncio.ensure_future(asyncio.Event().wait())], timeout=0.5)
        return "done"

    async with running(mesh.worker("clerk", slots=1, workflows=[long], id="w-1")):
        order = leader.assign("long")
        await leader.share("w-1", order)
        assert (await leader.report(Refresh)).extend_ms == 10_000
        assert isinstance(await leader.last_of(order.token), Finished)


async def test_a_step_that_swallows_its_cancellation_has_timed_out_all_the_same(leader: Leader, mesh: Mesh):
    @mesh.task(timeout="100ms")
    async def deaf(ctx: Context) -> str:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return "I was not cancelled"
        return ""

    async with running(mesh.worker("clerk", slots=1, workflows=[deaf], id="w-1")):
        order = leader.assign("deaf")
        await leader.share("w-1", order)
        assert (await leader.last_of(order.token)).kind == records.FAILED_TIMEOUT


async def test_sys_exit_in_a_thread_does_not_end_the_worker(leader: Leader, mesh: Mesh):
    @mesh.task()
    def leave(ctx: Context) -> None:
        sys.exit(2)

    async with running(mesh.worker("clerk", slots=1, workflows=[leave], id="w-1")):
        order = leader.assign("leave")
        await leader.share("w-1", order)
        assert (await leader.last_of(order.token)).error.type == "SystemExit"


async def test_a_failed_attempt_is_logged_with_its_traceback(leader: Leader, mesh: Mesh, caplog: pytest.LogCaptureFixture):
    @mesh.task()
    async def fragile(broken: bool, ctx: Context) -> None:
        if broken:
            raise ValueError("it broke")

    async with running(mesh.worker("clerk", workflows=[fragile], id="w-1")):
        for order in (well := leader.assign("fragile", False), bad := leader.assign("fragile", True), leader.assign("fragile", "?")):
            await leader.share("w-1", order)
            await leader.last_of(order.token)
    broken, invalid = [record for record in caplog.records if record.name == "mesh_sdk.worker"]
    first, *below = broken.getMessage().splitlines()
    assert first == f"fragile:fragile of run {bad.run}, attempt 1: ValueError: it broke"
    assert below[0].startswith("Traceback")
    assert ": InvalidInput: input of step" in invalid.getMessage()
    assert "Traceback" not in invalid.getMessage()
    assert {record.levelname for record in (broken, invalid)} == {"WARNING"}
    assert well.run not in caplog.text
