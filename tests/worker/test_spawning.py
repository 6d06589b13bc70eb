"""Spawns that can't be: options that are none, children that don't fit, steps that are over. Nothing is written then."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest
from msgspec import Raw

from mesh_sdk import Context, Mesh, Spawn, SpawnError, StepCancelled, StickyChildError, StickyStrategy
from mesh_sdk.protocol import records
from mesh_sdk.protocol.records import Accepted, Done, Failed, Withdraw
from mesh_sdk.worker import host
from mesh_sdk.worker.attempt import Attempt
from tests.worker.conftest import running
from tests.worker.leader import Leader

Step = Callable[[Context], Any]


async def _error_of(leader: Leader, mesh: Mesh, step: Step, *others: Any) -> str:
    """What the step failed with, after seeing that nothing was written for it."""
    task = mesh.task(name="parent")(step)
    async with running(mesh.worker("clerk", slots=2, workflows=[task, *others], id="w-1")):
        order = leader.assign("parent")
        await leader.share("w-1", order)
        failed = await leader.last_of(order.token)
    assert isinstance(failed, Failed), failed
    assert not _spawned(leader)
    return f"{failed.error.type}: {failed.error.message}"


def _spawned(leader: Leader) -> list[records.Spawn]:
    return [each.record for each in leader.reports if isinstance(each.record, records.Spawn)]


CASES: list[tuple[str, Callable[[Context], Any], str]] = [
    ("options", lambda ctx: ctx.spawn_workflow("Child", options=["sticky"]), "options of spawn_workflow is ['sticky']"),  # type: ignore[call-overload]
    ("no options", lambda ctx: ctx.spawn_workflow("Child", options=""), "options of spawn_workflow is ''"),  # type: ignore[call-overload]
    ("unknown option", lambda ctx: ctx.spawn_workflow("Child", options={"stick": True}), "no option 'stick': use sticky, key"),
    ("option that is no text", lambda ctx: ctx.spawn_workflow("Child", options={3: True}), "no option 3"),  # type: ignore[dict-item]
    ("sticky", lambda ctx: ctx.spawn_workflow("Child", sticky="yes"), "sticky of child 'Child' is 'yes'"),  # type: ignore[call-overload]
    ("strategy", lambda ctx: ctx.spawn_workflow("Child", options={"sticky": StickyStrategy.HARD}), "use True or False"),
    ("none", lambda ctx: ctx.spawn_workflow("Child", options={"sticky": None}), "sticky of child 'Child' is None"),
    ("empty name", lambda ctx: ctx.spawn_workflow(""), "name of the child to spawn is ''"),
    ("blank name", lambda ctx: ctx.spawn_workflow("  "), "name of the child to spawn is '  '"),
    ("unprintable name", lambda ctx: ctx.spawn_workflow("a\nb"), r"name of the child to spawn is 'a\nb'"),
    ("no workflow", lambda ctx: ctx.spawn_workflow(7), "7 can't be spawned"),  # type: ignore[call-overload]
    ("key", lambda ctx: ctx.spawn_workflow("Child", key=b"k"), "key of child 'Child' is b'k'"),  # type: ignore[call-overload]
    ("long key", lambda ctx: ctx.spawn_workflow("Child", key="k" * 513), "up to 512 characters"),
    ("broken key", lambda ctx: ctx.spawn_workflow("Child", key="\ud800"), "key of child 'Child'"),
    ("priority", lambda ctx: ctx.spawn_workflow("Child", options={"priority": "high"}), "priority of child 'Child' is 'high'"),
    ("metadata", lambda ctx: ctx.spawn_workflow("Child", metadata=["a"]), "metadata of child 'Child'"),  # type: ignore[call-overload]
    ("no spawns", lambda ctx: ctx.spawn_workflows("Child"), "takes a list of Spawn"),  # type: ignore[arg-type]
    ("one spawn", lambda ctx: ctx.spawn_workflows(Spawn("Child")), "takes a list of Spawn"),  # type: ignore[arg-type]
    ("names", lambda ctx: ctx.spawn_workflows(["Child"]), "'Child' can't be spawned: use Spawn("),  # type: ignore[list-item]
    ("sticky of a Spawn", lambda ctx: ctx.spawn_workflows([Spawn("Child", sticky=1)]), "sticky of child 'Child' is 1"),  # type: ignore[arg-type]
]


@pytest.mark.parametrize(("spawn", "said"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
async def test_what_is_no_spawn_is_refused_by_name(leader: Leader, mesh: Mesh, spawn: Step, said: str):
    async def parent(ctx: Context) -> None:
        spawn(ctx)

    told = await _error_of(leader, mesh, parent)
    assert told.startswith("SpawnError: ")
    assert said in told


# ---- sticky children -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["async", "sync"])
async def test_a_sticky_child_that_is_registered_nowhere_here(leader: Leader, mesh: Mesh, kind: str):
    async def parent(ctx: Context) -> None:
        ctx.spawn_workflow("Elsewhere", {}, options={"sticky": True})

    def sync_parent(ctx: Context) -> None:
        ctx.spawn_workflow("Elsewhere", {}, options={"sticky": True})

    assert await _error_of(leader, mesh, parent if kind == "async" else sync_parent) == (
        f"{StickyChildError.__name__}: step parent:parent on worker 'w-1' can't spawn 'Elsewhere' as a sticky child: 'Elsewhere' is not "
        "registered on that worker; add it to the worker's workflows=[…], or spawn it without sticky"
    )


async def test_a_sticky_child_without_a_strategy(leader: Leader, mesh: Mesh):
    @mesh.task()
    def loose(ctx: Context) -> None: ...

    async def parent(ctx: Context) -> None:
        ctx.spawn_workflow("loose", sticky=True)

    assert await _error_of(leader, mesh, parent, loose) == (
        f"{StickyChildError.__name__}: step parent:parent on worker 'w-1' can't spawn 'loose' as a sticky child: 'loose' declares no "
        "sticky strategy; give it sticky=StickyStrategy.SOFT or HARD, or spawn it without sticky"
    )


async def test_a_sticky_child_with_neither(leader: Leader, mesh: Mesh):
    @mesh.task()
    def loose(ctx: Context) -> None: ...

    async def parent(ctx: Context) -> None:
        ctx.spawn_workflow(loose, sticky=True)

    assert await _error_of(leader, mesh, parent) == (
        f"{StickyChildError.__name__}: step parent:parent on worker 'w-1' can't spawn 'loose' as a sticky child: 'loose' is not registered "
        "on that worker, and 'loose' declares no sticky strategy; give it sticky=StickyStrategy.SOFT or HARD and add it to the worker's "
        "workflows=[…], or spawn it without sticky"
    )


# ---- too late ------------------------------------------------------------------------------------------------------


class Late:
    """A sync step that spawns when it is let go, whatever became of it meanwhile, and keeps what the spawn raised."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.go = threading.Event()
        self.ended = threading.Event()
        self.raised: Exception | None = None
        self.context: Context | None = None

    def __call__(self, ctx: Context) -> None:
        self.context = ctx
        self.begun.set()
        assert self.go.wait(20)
        try:
            ctx.spawn_workflow("Child", {})
        except Exception as error:
            self.raised = error
            raise
        finally:
            self.ended.set()

    async def finish(self) -> Exception | None:
        self.go.set()
        assert await asyncio.to_thread(self.ended.wait, 10)
        return self.raised


async def test_a_thread_whose_run_was_cancelled_spawns_nothing(leader: Leader, mesh: Mesh):
    late = Late()
    async with running(mesh.worker("clerk", slots=1, workflows=[mesh.task(name="parent")(late)], id="w-1")):
        order = leader.assign("parent")
        await leader.send("w-1", order)
        await leader.report(Accepted)
        await leader.send("w-1", Withdraw(order.run, order.step, order.attempt, order.token, "the run was cancelled: enough"))
        await leader.bus.request(leader.subjects.control("w-1"), b"", 5)
        raised = await late.finish()
        assert isinstance(raised, StepCancelled)
        assert str(raised) == (
            f"step parent:parent of run {order.run} was told to stop: the run was cancelled: enough; it can't spawn 'Child' any more"
        )
        assert (await leader.last_of(order.token)).kind == records.FAILED_CANCELLED
        assert not _spawned(leader)


async def test_a_thread_whose_time_is_over_spawns_nothing(leader: Leader, mesh: Mesh):
    late = Late()
    async with running(mesh.worker("clerk", slots=1, workflows=[mesh.task(name="parent", timeout="100ms")(late)], id="w-1")):
        order = leader.assign("parent")
        await leader.send("w-1", order)
        assert (await leader.last_of(order.token)).kind == records.FAILED_TIMEOUT
        raised = await late.finish()
        assert isinstance(raised, StepCancelled)
        assert f"of run {order.run} was told to stop: " in str(raised)
        assert "its timeout is 0.1 s" in str(raised)
        assert not _spawned(leader)


async def test_a_context_that_outlives_its_step_spawns_nothing(leader: Leader, mesh: Mesh):
    kept: list[Context] = []

    @mesh.task()
    async def parent(ctx: Context) -> None:
        kept.append(ctx)

    async with running(mesh.worker("clerk", slots=1, workflows=[parent], id="w-1")):
        order = leader.assign("parent")
        await leader.send("w-1", order)
        await leader.last_of(order.token)
        with pytest.raises(SpawnError, match=rf"step parent:parent of run {order.run} has ended, it can't spawn 'Child' any more"):
            kept[0].spawn_workflow("Child", {})
        assert not _spawned(leader)


async def test_an_async_step_that_was_told_to_stop_spawns_nothing(leader: Leader, mesh: Mesh):
    raised: list[Exception] = []

    @mesh.task()
    async def parent(ctx: Context) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            try:
                ctx.spawn_workflow("Child", {})
            except StepCancelled as error:
                raised.append(error)

    async with running(mesh.worker("clerk", slots=1, workflows=[parent], id="w-1")):
        order = leader.assign("parent")
        await leader.send("w-1", order)
        await leader.report(Accepted)
        await leader.send("w-1", Withdraw(order.run, order.step, order.attempt, order.token, "enough"))
        await leader.last_of(order.token)
        assert len(raised) == 1
        assert not _spawned(leader)


async def test_a_spawn_in_the_moment_of_its_attempts_end_is_told_so(leader: Leader, mesh: Mesh, monkeypatch: pytest.MonkeyPatch):
    """The thread has seen that it may, and before the event loop comes to the spawn the attempt's time is over."""
    ordered, go = threading.Event(), threading.Event()
    order_child = host.order_child

    def held(attempt: Attempt, *arguments: Any) -> Any:
        found = order_child(attempt, *arguments)
        ordered.set()
        assert go.wait(20)
        return found

    monkeypatch.setattr(host, "order_child", held)
    raised: list[BaseException] = []
    ended = threading.Event()

    @mesh.task(timeout="100ms")
    def parent(ctx: Context) -> None:
        try:
            ctx.spawn_workflow("Child", {}).result_sync()
        except BaseException as error:
            raised.append(error)
            raise
        finally:
            ended.set()

    async with running(mesh.worker("clerk", slots=1, workflows=[parent], id="w-1")):
        order = leader.assign("parent")
        await leader.send("w-1", order)
        assert await asyncio.to_thread(ordered.wait, 10)
        assert (await leader.last_of(order.token)).kind == records.FAILED_TIMEOUT
        go.set()
        assert await asyncio.to_thread(ended.wait, 10), "a wait for what was never written would have no end"
        assert isinstance(raised[0], StepCancelled)
        assert not _spawned(leader)


async def test_a_thread_that_was_told_to_stop_waits_for_nothing(leader: Leader, mesh: Mesh):
    spawned, go, ended = threading.Event(), threading.Event(), threading.Event()
    raised: list[BaseException] = []

    @mesh.task()
    def parent(ctx: Context) -> None:
        child = ctx.spawn_workflow("Child", {})
        spawned.set()
        assert go.wait(20)
        try:
            child.result_sync()
        except BaseException as error:
            raised.append(error)
            raise
        finally:
            ended.set()

    async with running(mesh.worker("clerk", slots=1, workflows=[parent], id="w-1")):
        order = leader.assign("parent")
        await leader.send("w-1", order)
        await leader.report(records.Spawn)
        await leader.send("w-1", Withdraw(order.run, order.step, order.attempt, order.token, "enough"))
        await leader.bus.request(leader.subjects.control("w-1"), b"", 5)
        go.set()
        assert await asyncio.to_thread(ended.wait, 10)
        assert isinstance(raised[0], StepCancelled)
        assert "enough" in str(raised[0])


async def test_all_threads_of_a_step_that_wait_are_woken(leader: Leader, mesh: Mesh):
    ended = threading.Semaphore(0)
    raised: list[BaseException] = []

    @mesh.task()
    def parent(ctx: Context) -> None:
        def wait(number: int) -> None:
            try:
                ctx.spawn_workflow("Child", number, key=str(number)).result_sync()
            except BaseException as error:
                raised.append(error)
            finally:
                ended.release()

        threads = [threading.Thread(target=wait, args=(number,)) for number in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    async with running(mesh.worker("clerk", slots=1, workflows=[parent], id="w-1")):
        order = leader.assign("parent")
        await leader.send("w-1", order)
        await leader.report(records.Spawn, count=3)
        await leader.send("w-1", Withdraw(order.run, order.step, order.attempt, order.token, "enough"))
        assert (await leader.last_of(order.token)).kind == records.FAILED_CANCELLED
        assert [type(error) for error in raised] == [StepCancelled] * 3


async def test_a_child_of_before_the_stop_is_still_waited_for_elsewhere(leader: Leader, mesh: Mesh):
    """A reference that outlives its step asks on, as any reference does."""
    kept: list[Any] = []

    @mesh.task()
    async def parent(ctx: Context) -> None:
        kept.append(ctx.spawn_workflow("Child", {}))

    async with running(mesh.worker("clerk", slots=1, workflows=[parent], id="w-1")):
        order = leader.assign("parent")
        await leader.send("w-1", order)
        spawn = await leader.report(records.Spawn)
        await leader.last_of(order.token)
        waiting = asyncio.ensure_future(kept[0].result())
        await leader.bus.request(leader.subjects.control("w-1"), b"", 5)
        leader.end("w-1", Done(spawn.child, records.SUCCEEDED, Raw(b"7")))
        async with asyncio.timeout(10):
            assert await waiting == 7
