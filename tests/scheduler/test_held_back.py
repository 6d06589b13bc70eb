"""A scheduler with a server and a worker, in one process: keys in CEL, and what its metrics say of what is held back."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from prometheus_client import generate_latest

from mesh.engine import Engine
from mesh_sdk import Context, Mesh, RateLimit, RunFailed, WorkerLabel
from tests.contract.conftest import until
from tests.contract.servers import Server


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    running = Server(tmp_path).start()
    yield running
    running.kill()


@asynccontextmanager
async def serving(serve: Callable[[asyncio.Event, Callable[[str], None]], object]) -> AsyncIterator[None]:
    """A scheduler or worker that is ready, until the end of the block."""
    stop, ready = asyncio.Event(), asyncio.Event()
    task = asyncio.ensure_future(serve(stop, lambda line: ready.set()))  # type: ignore[call-overload]
    try:
        async with asyncio.timeout(20):
            await ready.wait()
        yield
    finally:
        stop.set()
        await task


async def test_what_is_held_back_is_counted(server: Server) -> None:
    engine = Engine(server.url)
    released = asyncio.Event()

    def value(metric: str) -> float:
        found = re.search(rf"^{re.escape(metric)} (\S+)$", generate_latest(engine.metrics.registry).decode(), re.MULTILINE)
        return float(found[1]) if found is not None else -1

    async with Mesh(url=server.url) as mesh:

        @mesh.task(concurrency="input.user + '-' + metadata.team")
        async def keyed(data: dict[str, str], ctx: Context) -> None:
            await released.wait()

        @mesh.task(rate_limits=[RateLimit("mails", limit=1, per="hour")])
        async def mail(data: dict[str, str], ctx: Context) -> None: ...

        @mesh.task(desired_worker_labels={"gpu": WorkerLabel("a100", required=True)})
        async def train(data: dict[str, str], ctx: Context) -> None: ...

        worker = mesh.worker("held", slots=10, workflows=[keyed, mail, train], id="held")
        async with (
            serving(lambda stop, ready: engine.run(ready, stop)),
            serving(lambda stop, ready: worker.serve(stop=stop, on_ready=ready)),
        ):
            runs = [await keyed.start({"user": "ada"}, metadata={"team": "x"}) for _ in range(3)]
            mails = [await mail.start({}) for _ in range(3)]
            training = await train.start({})
            await until(lambda: value("mesh_concurrency_runs_waiting") == 2)
            await until(lambda: value("mesh_rate_limit_steps_waiting") == 2)
            await until(lambda: value("mesh_steps_without_worker") == 1)
            assert "group ada-x has 1 of 1" in ((await mesh.runs.get(runs[1].run_id)).waiting or "")

            with pytest.raises(RunFailed, match="there is no field 'user'"):
                await keyed.run({}, metadata={"team": "x"})

            await mesh.workers.pause("held")
            assert value('mesh_workers{state="paused"}') == 1
            await mesh.workers.resume("held")
            assert value('mesh_workers{state="paused"}') == 0

            released.set()
            await worker.set_labels({"gpu": "a100"})
            await asyncio.gather(training.result(), mails[0].result(), *(run.result() for run in runs))
            assert value("mesh_concurrency_runs_waiting") == value("mesh_steps_without_worker") == 0
            for left in mails[1:]:
                await mesh.runs.cancel(left.run_id)
            await until(lambda: value("mesh_rate_limit_steps_waiting") == 0)
