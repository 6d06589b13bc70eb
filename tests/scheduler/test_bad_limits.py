"""Limits that can't be kept, met by a scheduler and a worker: the run that has one says what was wrong, and nothing else happens."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from prometheus_client import generate_latest

from mesh.engine import Engine
from mesh_sdk import Concurrency, Context, Mesh, RateLimit, RunFailed, WorkerLabel, expressions, key_function
from mesh_sdk.protocol.subjects import Subjects
from mesh_sdk.transport.connection import connect
from mesh_sdk.workflow import Workflow
from tests.contract.conftest import until
from tests.contract.servers import Server
from tests.scheduler.test_held_back import server, serving

__all__ = ["server"]
NAMES = Subjects()
WITHIN_S = 20


async def _hang(ctx: Context) -> Any:
    await asyncio.Event().wait()


def _raise(ctx: Context) -> Any:
    raise KeyError("user")


def _key(function: Callable[[Context], Any]) -> Callable[[Mesh, str], Workflow[Any]]:
    """A workflow whose key comes from this function."""

    def define(mesh: Mesh, name: str) -> Workflow[Any]:
        flow = mesh.workflow(name=name)
        flow.concurrency()(function)
        return flow

    return define


def _limit(key: str) -> Callable[[Mesh, str], Workflow[Any]]:
    return lambda mesh, name: mesh.workflow(name=name, concurrency=Concurrency(key))


def _step(**options: Any) -> Callable[[Mesh, str], Workflow[Any]]:
    """A workflow whose second step has these options; the first is to wait, or to fail, with it."""

    def define(mesh: Mesh, name: str) -> Workflow[Any]:
        flow = mesh.workflow(name=name)

        @flow.step(name="limited", **options)
        async def limited(ctx: Context) -> None: ...

        return flow

    return define


def _rate(**changes: Any) -> Callable[[Mesh, str], Workflow[Any]]:
    return _step(rate_limits=[RateLimit(**{"key": "mails", "limit": 10, "per": "hour", **changes})])


def returns(value: Any) -> Callable[[Context], Any]:
    def key(ctx: Context) -> Any:
        return value

    return key


NOT_A_KEY = "return a text of 1 to 512 characters"
FAILS: dict[str, tuple[Callable[[Mesh, str], Workflow[Any]], list[str]]] = {
    "raises": (_key(_raise), ["concurrency key function '_raise' failed, so the run could not begin", "KeyError: 'user'"]),
    "hangs": (_key(_hang), ["'_hang' failed, so the run could not begin", "TimeoutError: key function '_hang' ran for 0.5"]),
    "none": (_key(returns(None)), ["key function 'key' of workflow 'none' returned None", NOT_A_KEY]),
    "number": (_key(returns(7)), ["returned int (7)", NOT_A_KEY]),
    "empty": (_key(returns("")), ["returned an empty text", NOT_A_KEY]),
    "huge": (_key(returns("x" * 2_000_000)), ["returned a text of 2,000,000 characters ('xxx", NOT_A_KEY]),
    "no_field": (_limit("input.user_id"), ["'input.user_id' finds nothing: input has no 'user_id', it is {\"n\":12}"]),
    "no_text": (_limit("input"), ['it is an object ({"n":12}): it must be a text, a number or a truth value']),
    "unreadable": (_limit("input.n ? 'b'"), ["concurrency key \"input.n ? 'b'\" has no value: it can't be read at character 1"]),
    "no_field_in_cel": (_limit("input.user + 'x'"), ["concurrency key \"input.user + 'x'\" has no value: there is no field 'user'"]),
    "units_above": (_rate(units="input.n"), ["rate 'mails' lets 10 units pass in 3600 s, and the step wants 12 at once: it never could"]),
    "units_text": (_rate(units="input.units"), ["'input.units' finds nothing: input has no 'units'"]),
    "limit_bad": (_rate(limit="input.n", units="input.n", key="input.who"), ["'input.who' finds nothing"]),
}
HUNDRED = {"memory": WorkerLabel(64, required=True, comparator=">=")}
WAITS: dict[str, tuple[Callable[[Mesh, str], Workflow[Any]], str]] = {
    "text_and_number": (_step(desired_worker_labels=HUNDRED), "no worker that registers text_and_number:limited has label memory >= 64"),
    "many_slots": (_step(slots=99), "no worker that registers many_slots:limited has 99 slots: at most 10"),
}


async def test_bad_input_fails_its_run_with_the_reason_and_nothing_else(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_function, "TIMEOUT_MS", 500)
    monkeypatch.setattr(expressions, "_parser_objection", lambda key: "")  # as where workflows are defined without natsmesh[cel]
    engine = Engine(server.url)
    async with Mesh(url=server.url) as mesh:
        flows = {name: define(mesh, name) for name, (define, _) in {**FAILS, **WAITS}.items()}
        for flow in flows.values():

            @flow.step()
            async def work(ctx: Context) -> int:
                return 1

        @mesh.task(concurrency=[Concurrency("input.n", 3), Concurrency("'all'", 3)])
        async def good(data: dict[str, int], ctx: Context) -> int:
            return data["n"]

        labels = {"memory": "big"}  # a text, where a number is wanted
        worker = mesh.worker("w", slots=10, workflows=[good, *flows.values()], id="w", labels=labels)
        async with (
            serving(lambda stop, ready: engine.run(ready, stop)),
            serving(lambda stop, ready: worker.serve(stop=stop, on_ready=ready)),
            asyncio.timeout(WITHIN_S),
        ):
            before = [await good.start({"n": number % 3}) for number in range(20)]
            refs = {name: await mesh.start(name, {"n": 12}) for name in flows}
            after = [await good.start({"n": number % 3}) for number in range(20)]
            for name, (_, words) in FAILS.items():
                with pytest.raises(RunFailed) as failed:
                    await refs[name].result()
                run = await mesh.runs.get(refs[name].run_id)
                assert run.status == "failed"
                assert str(failed.value).startswith(f"run {run.run_id} failed: {run.error}")
                for said in words:
                    assert said in str(failed.value), (name, str(failed.value))
                    assert said in (run.error or ""), (name, run.error)
                assert len(run.error or "") <= 1_000
            for name, (_, said) in WAITS.items():
                await _waits_for(mesh, refs[name].run_id, said)
            assert [await ref.result() for ref in before + after] == [number % 3 for number in range(20)] * 2
            await until(lambda: f"mesh_steps_without_worker {len(WAITS)}.0" in generate_latest(engine.metrics.registry).decode())
            for name in WAITS:
                await mesh.runs.cancel(refs[name].run_id, "nobody will come")
            assert await good.run({"n": 5}) == 5


async def _waits_for(mesh: Mesh, run: str, said: str) -> None:
    while (told := await mesh.runs.get(run)).waiting is None or said not in told.waiting:
        await asyncio.sleep(0.02)
    assert told.wait is not None
    assert told.wait.kind == "labels"


async def test_nothing_of_it_lands_among_the_dead_letters(server: Server) -> None:
    """A scope that workflows disagree about: the second worker is refused, the first serves on."""
    from mesh_sdk import DefinitionError, RegistrationRefused

    engine = Engine(server.url)
    async with Mesh(url=server.url) as mesh:

        @mesh.task(concurrency=Concurrency("input.n", scope="host"))
        async def one(data: dict[str, int], ctx: Context) -> int:
            return data["n"]

        @mesh.task(concurrency=Concurrency("input.n", scope="host", limit_strategy="CANCEL_NEWEST"))
        async def other(data: dict[str, int], ctx: Context) -> int:
            return data["n"]

        with pytest.raises(DefinitionError, match=r"scope 'host' disagree: workflow 'one' has GROUP_ROUND_ROBIN, workflow 'other'"):
            mesh.worker("both", workflows=[one, other])
        first, second = mesh.worker("a", workflows=[one], id="a"), mesh.worker("b", workflows=[other], id="b")
        async with (
            serving(lambda stop, ready: engine.run(ready, stop)),
            serving(lambda stop, ready: first.serve(stop=stop, on_ready=ready)),
            asyncio.timeout(WITHIN_S),
        ):
            with pytest.raises(RegistrationRefused, match=r"scope 'host' disagree.*use one strategy, or another scope"):
                await second.serve()
            assert await one.run({"n": 3}) == 3
            bus = await connect([server.url], name="test")
            letters = await bus.read(NAMES.dead_stream, NAMES.dead("reports"))
            await bus.close()
            assert letters == []
