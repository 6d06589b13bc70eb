"""Becoming known: ids that are held, refusals, leaders that come late, labels that change."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from typing import Any

import pytest

from mesh_sdk import Context, DefinitionError, Mesh, MeshError, RegistrationRefused, Unavailable
from mesh_sdk.protocol.beats import LeaderBeat
from mesh_sdk.protocol.codec import encode
from mesh_sdk.protocol.records import VERSION, Register, Registered
from mesh_sdk.protocol.subjects import Subjects
from mesh_sdk.transport.errors import Busy, TimedOut
from mesh_sdk.transport.kv import Bucket
from mesh_sdk.worker import runtime
from mesh_sdk.worker.clock import Clock
from mesh_sdk.worker.holder import Record
from mesh_sdk.worker.registration import REPEAT_S, Registration
from mesh_sdk.worker.session import Session
from tests.worker.conftest import running
from tests.worker.leader import Leader


def _clerk(mesh: Mesh, **more: object):
    @mesh.task(name="work")
    async def work(ctx: Context) -> None: ...

    return mesh.worker("clerk", workflows=[work], **more)


async def test_each_start_has_an_id_of_its_own_unless_one_is_named(leader: Leader, mesh: Mesh, monkeypatch: pytest.MonkeyPatch):
    async with running(_clerk(mesh)), running(_clerk(mesh)):
        ids = {each.worker for each in leader.reports if isinstance(each.record, Register)}
        assert len(ids) == 2
        assert all(worker.startswith("clerk-") for worker in ids)
    monkeypatch.setenv("MESH_WORKER_ID", "w-9")
    async with running(_clerk(mesh)):
        assert leader.reports[-1].worker == "w-9"


async def test_an_id_is_taken_over_when_its_holder_is_gone(leader: Leader, mesh: Mesh):
    async with running(_clerk(mesh, id="w-1")):
        pass
    async with running(_clerk(mesh, id="w-1")):
        pass
    incarnations = [each.incarnation for each in leader.reports if isinstance(each.record, Register)]
    assert len(incarnations) == 2
    assert incarnations == sorted(set(incarnations))


async def test_an_id_is_taken_over_with_the_clock_set_back(leader: Leader, mesh: Mesh, monkeypatch: pytest.MonkeyPatch):
    async with running(_clerk(mesh, id="w-1")):
        pass
    wall_ms = Clock.wall_ms
    monkeypatch.setattr(Clock, "wall_ms", staticmethod(lambda: wall_ms() - 3_600_000))
    for _ in range(2):
        async with running(_clerk(mesh, id="w-1")):
            pass
    incarnations = [each.incarnation for each in leader.reports if isinstance(each.record, Register)]
    assert len(incarnations) == 3
    assert incarnations == sorted(set(incarnations)), "the leader refuses an older one than it knows"


@pytest.mark.parametrize("odd", ["f" * 18, "z" * 18, "-" + "0" * 17, "0", "f" * 400, ""])
async def test_a_record_that_no_worker_wrote_is_nothing_to_go_by(leader: Leader, mesh: Mesh, odd: str):
    await leader.bus.bucket(leader.subjects.workers_bucket).put("w-1.holder", encode(Record("somebody", odd)))
    async with running(_clerk(mesh, id="w-1")):
        assert leader.workers["w-1"].incarnation < "1" + "0" * 17


async def test_an_id_that_somebody_holds_is_refused_with_the_holders_name(leader: Leader, mesh: Mesh, monkeypatch: pytest.MonkeyPatch):
    async with running(_clerk(mesh, id="w-1")):
        monkeypatch.setattr(runtime, "PRESENCE_TTL_S", 1.2)
        with pytest.raises(RegistrationRefused, match="'w-1' is held by worker 'clerk'"):
            await _clerk(mesh, id="w-1").serve(stop=asyncio.Event())


async def test_the_leaders_refusal_reaches_the_user(leader: Leader, mesh: Mesh):
    leader.refuse = "workflow 'work' has a cycle"
    with pytest.raises(RegistrationRefused, match="has a cycle"):
        await _clerk(mesh).serve(stop=asyncio.Event())


async def test_a_registration_is_repeated_for_a_new_leader(leader: Leader, mesh: Mesh):
    leader.answer = False
    stop, ready = asyncio.Event(), asyncio.Event()
    serving = asyncio.ensure_future(_clerk(mesh).serve(stop=stop, on_ready=lambda _: ready.set()))
    await leader.report(Register)
    leader.bus.publish(leader.subjects.leader_beat, encode(LeaderBeat(VERSION, "a", 1, 1)))
    leader.bus.publish(leader.subjects.leader_beat, encode(LeaderBeat(VERSION, "b", 2, 2)))
    leader.answer = True
    async with asyncio.timeout(5):
        await ready.wait()
    stop.set()
    await serving


async def test_a_worker_that_is_not_registered_yet_can_be_stopped(leader: Leader, mesh: Mesh):
    leader.answer = False
    stop = asyncio.Event()
    serving = asyncio.ensure_future(_clerk(mesh).serve(stop=stop))
    await leader.report(Register)
    stop.set()
    async with asyncio.timeout(10):
        await serving


async def test_labels_of_a_live_worker_change(leader: Leader, mesh: Mesh):
    worker = _clerk(mesh)
    async with running(worker):
        await worker.set_labels({"gpu": "none"})
        assert leader.reports[-1].record.labels == {"gpu": "none"}


async def test_labels_change_from_a_sync_step(leader: Leader, mesh: Mesh):
    @mesh.task()
    def relabel(ctx: Context) -> dict[str, Any]:
        worker.set_labels_sync({"gpu": "none"})
        return ctx.worker.labels()

    worker = mesh.worker("clerk", workflows=[relabel], id="w-1", labels={"gpu": "a100"})
    async with running(worker):
        await leader.share("w-1", order := leader.assign("relabel"))
        finished = await leader.last_of(order.token)
        assert bytes(finished.output) == b'{"gpu":"none"}'
        [*_, last] = (each.record for each in leader.reports if isinstance(each.record, Register))
        assert last.labels == {"gpu": "none"}
    idle = mesh.worker("idle", workflows=[relabel])
    await asyncio.to_thread(idle.set_labels_sync, {"zone": 1})
    assert idle.labels == {"zone": 1}


async def test_labels_of_a_live_worker_change_whatever_the_presence_bucket_says(
    leader: Leader, mesh: Mesh, monkeypatch: pytest.MonkeyPatch
):
    async def busy(*arguments: object) -> None:
        raise Busy("an election is under way", 10008)

    worker = _clerk(mesh, id="w-1")
    async with running(worker):
        monkeypatch.setattr(Bucket, "get", busy)
        await worker.set_labels({"gpu": "none"})
        assert leader.reports[-1].record.labels == {"gpu": "none"}


async def test_labels_set_at_once_are_told_one_after_the_other_and_steps_see_the_last(leader: Leader, mesh: Mesh):
    @mesh.task()
    async def seen(ctx: Context) -> dict[str, Any]:
        return ctx.worker.labels()

    worker = mesh.worker("clerk", workflows=[seen], id="w-1", labels={"gpu": "a100", "zone": 1})
    async with running(worker):
        async with asyncio.timeout(REPEAT_S):  # an answer that went to another question would be waited for until then
            await asyncio.gather(*(worker.set_labels({"gpu": "a100", "jobs": number}) for number in range(5)))
        incarnations = {each.incarnation for each in leader.reports}
        assert len(incarnations) == 1
        assert leader.reports[-1].record.labels == worker.labels == {"gpu": "a100", "jobs": 4}
        await leader.send("w-1", order := leader.assign("seen"))
        finished = await leader.last_of(order.token)
        assert json.loads(bytes(finished.output)) == {"gpu": "a100", "jobs": 4}


async def test_labels_set_before_the_leader_knows_the_worker_reach_it(leader: Leader, mesh: Mesh):
    leader.answer = False
    worker, stop = _clerk(mesh, id="w-1"), asyncio.Event()
    serving = asyncio.ensure_future(worker.serve(stop=stop))
    await leader.report(Register)
    setting = asyncio.ensure_future(worker.set_labels({"gpu": "none"}))
    leader.answer = True
    async with asyncio.timeout(10):
        await setting
    assert leader.workers["w-1"].record.labels == {"gpu": "none"}
    stop.set()
    await serving


async def test_an_answer_to_an_older_question_does_not_stand_for_a_newer_one():
    """What is repeated is answered twice: the second answer may come when other labels are about to be told."""
    told: list[Register] = []
    late = Registered("w-1", "i-1")

    class Bus:
        async def subscribe(self, *_: object) -> Bus:
            registration.on_registered(late)
            return self

        async def close(self) -> None: ...

    class Reports:
        def put(self, register: Register, _size: int) -> asyncio.Future[int]:
            told.append(register)
            asyncio.get_running_loop().call_soon(stored.set)
            return asyncio.ensure_future(asyncio.sleep(0, len(told)))

    stored = asyncio.Event()
    registration = Registration(Bus(), Subjects("n"), Reports(), "i-1")  # type: ignore[arg-type]
    for labels in ({"gpu": "a100"}, {"gpu": "none"}):
        stored.clear()
        registering = asyncio.ensure_future(registration.register(Register("clerk", 1, [], labels, "c")))
        await stored.wait()
        while not registering.done():
            await asyncio.sleep(0)
            registration.on_registered(late)
    assert [register.labels for register in told] == [{"gpu": "a100"}, {"gpu": "none"}]


async def test_labels_set_as_an_incarnation_ends_are_told_by_the_next(leader: Leader, mesh: Mesh):
    worker = _clerk(mesh, id="w-1")
    async with running(worker):
        first = leader.workers["w-1"]
        leader.answer = False
        setting = asyncio.ensure_future(worker.set_labels({"gpu": "none"}))
        await leader.report(Register, count=2)
        leader.bus.publish(leader.subjects.control("w-1"), encode({"ask": "register", "incarnation": first.incarnation}))
        leader.answer = True
        async with asyncio.timeout(10):
            await setting
        assert leader.workers["w-1"].incarnation > first.incarnation
        assert leader.workers["w-1"].record.labels == {"gpu": "none"}


async def test_an_incarnation_that_is_fenced_as_it_opens_is_never_ready(leader: Leader, mesh: Mesh, monkeypatch: pytest.MonkeyPatch):
    """Else whoever has labels to tell would ask it again and again, without a pause, until there is another one."""
    register, tell = Registration.register, Session.register_again
    asked: list[str] = []

    async def fenced(self: Registration, *more: Any) -> None:
        await register(self, *more)
        if not setting:
            setting.append(asyncio.ensure_future(worker.set_labels({"gpu": "none"})))
            assert worker._runtime is not None
            assert worker._runtime._session is not None
            worker._runtime._session.fence()

    async def counted(self: Session, *more: Any) -> bool:
        asked.append(self.incarnation)
        return await tell(self, *more)

    monkeypatch.setattr(Registration, "register", fenced)
    monkeypatch.setattr(Session, "register_again", counted)
    worker, setting = _clerk(mesh, id="w-1"), list[asyncio.Task[None]]()
    async with running(worker):
        async with asyncio.timeout(10):
            await setting[0]
        assert leader.workers["w-1"].record.labels == {"gpu": "none"}
        assert asked == [leader.workers["w-1"].incarnation]


async def test_labels_that_nobody_hears_of_any_more_keep_nobody_waiting(leader: Leader, mesh: Mesh):
    leader.answer = False
    worker, stop = _clerk(mesh, id="w-1"), asyncio.Event()
    serving = asyncio.ensure_future(worker.serve(stop=stop))
    await leader.report(Register)
    setting = asyncio.ensure_future(worker.set_labels({"gpu": "none"}))
    stop.set()
    async with asyncio.timeout(10):
        await asyncio.gather(serving, setting)


async def test_labels_that_can_not_be_change_nothing(leader: Leader, mesh: Mesh):
    worker = _clerk(mesh, labels={"gpu": "a100"}, id="w-1")
    async with running(worker):
        for labels in ({"gpu": True}, {"gpu": float("nan")}, {"": 1}, ["gpu"]):
            with pytest.raises(DefinitionError, match="worker 'clerk'"):
                await worker.set_labels(labels)  # type: ignore[arg-type]
        with pytest.raises(MeshError, match=r"use that which it runs on; on a thread without one, .* worker\.set_labels_sync"):
            await asyncio.to_thread(asyncio.run, worker.set_labels({"gpu": "none"}))
        with pytest.raises(MeshError, match=r"use `await worker\.set_labels\(\.\.\.\)`"):
            worker.set_labels_sync({"gpu": "none"})
        assert worker.labels == {"gpu": "a100"}
        assert sum(isinstance(each.record, Register) for each in leader.reports) == 1


async def test_labels_that_the_leader_cannot_be_told_are_a_matter_for_the_user(leader: Leader, mesh: Mesh, monkeypatch: pytest.MonkeyPatch):
    async def away(*arguments: object) -> None:
        raise TimedOut("no connection")

    worker = _clerk(mesh, id="w-1")
    async with running(worker):
        monkeypatch.setattr(Registration, "register", away)
        with pytest.raises(Unavailable, match="what has changed of worker 'w-1': no connection"):
            await worker.set_labels({"gpu": "none"})


async def test_what_can_not_be_a_worker_is_refused_at_once(mesh: Mesh):
    with pytest.raises(DefinitionError, match="nothing registered"):
        await mesh.worker("idle").serve()
    with pytest.raises(DefinitionError, match="-3"):
        mesh.worker("idle", slots=-3)

    @mesh.task()
    async def twice(ctx: Context) -> None: ...

    with pytest.raises(DefinitionError, match="registered on this worker already"):
        mesh.worker("clerk", workflows=[twice, twice])


async def test_presence_is_there_while_the_worker_is(leader: Leader, mesh: Mesh):
    bucket = leader.bus.bucket(leader.subjects.workers_bucket)
    async with running(_clerk(mesh, id="w-1")):
        assert "w-1" in await bucket.entries()
    assert "w-1" not in await bucket.entries()


def test_start_tells_in_one_line_what_keeps_it_from_running():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    worker = _clerk(Mesh(f"nats://127.0.0.1:{port}"))
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        with pytest.raises(SystemExit, match=rf"^mesh: .*{port}"):
            worker.start()
    finally:  # it may have set the log up, on a stream that is this test's own
        root.handlers[:] = handlers
        root.setLevel(level)
