"""A client process of a chaos run: starts work in every way there is, and writes down what it was told.

`stop` on its standard input ends the starting; it prints `quiet` once it knows the end of all that it started. `tail` then
runs one of each kind and prints `tail <seconds of the slowest>`.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import nats
import nats.errors
import nats.js.errors

from mesh_sdk import Mesh, MeshError, RunCancelled, RunFailed, RunTimedOut
from mesh_sdk.refs import RunRef
from mesh_sdk.transport.errors import TransportError
from tests.chaos import witness
from tests.chaos.history import of_this_process
from tests.chaos.workload import EXPECTED, FAILS, LONG, ON_EVENT, STICKY, WORKERS

LOOPS = 4
IN_FLIGHT_MAX = 40
KEYS = 12
TAIL_S = 60.0
SUBJECT = "mesh.default.events."


class Client:
    """One user's program.

    Args:
        seed: of its choices.
        pace_s: mean pause between two actions of one of its loops.
    """

    def __init__(self, mesh: Mesh, raw: Any, seed: str, pace_s: float) -> None:
        self.stopped = asyncio.Event()
        self._mesh = mesh
        self._raw = raw
        self._random = random.Random(seed)
        self._pace_s = pace_s
        self._number = os.getpid() * 1_000_000
        self._waiting: set[asyncio.Task[None]] = set()
        self._history = of_this_process()
        witness.watch(self._history)
        self._actions: list[tuple[float, Callable[[], Any]]] = [
            (0.62, self._start), (0.12, self._keyed), (0.10, self._event), (0.08, self._raw_event), (0.08, self._cancelled),
        ]  # fmt: skip

    async def run(self) -> None:
        """Act until told to stop, then wait for every result."""
        await asyncio.gather(*[self._loop() for _ in range(LOOPS)])
        while self._waiting:
            await asyncio.wait(self._waiting)

    async def tail(self) -> float:
        """One of each kind, new; how long the slowest took."""
        began = time.monotonic()
        async with asyncio.timeout(TAIL_S):
            results = await asyncio.gather(*[self._mesh.run(name, {"n": 1}) for name in EXPECTED])
        assert results == [expected(1) for expected in EXPECTED.values()], results
        return time.monotonic() - began

    async def _loop(self) -> None:
        kinds = [action for _, action in self._actions]
        weights = [weight for weight, _ in self._actions]
        while not self.stopped.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(self.stopped.wait(), self._random.expovariate(1 / self._pace_s))
            if self.stopped.is_set() or len(self._waiting) >= IN_FLIGHT_MAX:
                continue
            try:
                await self._random.choices(kinds, weights)[0]()
            except MeshError as error:
                self._history.say("refused", error=repr(error))
            except TransportError as error:  # nothing of the transport's own should reach a user
                self._history.say("bare", error=repr(error))
            except (nats.errors.Error, nats.js.errors.Error) as error:
                self._history.say("refused", error=f"raw: {error!r}")

    # ---- what it does -----------------------------------------------------------------------------------------------

    async def _start(self) -> None:
        name = self._random.choice([*EXPECTED, "one", "chain", FAILS])
        input = self._input(name)
        options: dict[str, Any] = {}
        if self._random.random() < 0.3:
            options["priority"] = self._random.randint(1, 9)
        if name in STICKY and self._random.random() < 0.3:
            options["sticky_worker"] = self._random.choice(WORKERS)
        ref = await self._mesh.start(name, input, **options)
        self._history.say("start", requested=ref.run_id, workflow=name, n=input["n"], key="")
        self._await(ref, name)

    async def _keyed(self) -> None:
        input, key = self._input("one"), f"key-{self._random.randrange(KEYS)}-{int(time.monotonic()) // 20}"
        ref = await self._mesh.start("one", input, key=key)
        self._history.say("start", requested=ref._requested, workflow="one", n=input["n"], key=key)
        self._history.say("keyed", requested=ref._requested, run=await ref.accepted(), key=key)
        self._await(ref, "one")

    async def _event(self) -> None:
        name, input = self._random.choice(list(ON_EVENT)), self._input("one")
        id = f"e-{input['n']}"
        event = await self._mesh.events.publish(name, input, id=id)
        self._history.say("event", name=name, sequence=event.sequence, n=input["n"])
        if self._random.random() < 0.3:
            again = await self._mesh.events.publish(name, input, id=id)
            self._history.say("event", name=name, sequence=again.sequence, n=input["n"])

    async def _raw_event(self) -> None:
        """As any NATS client does it."""
        name, input = self._random.choice(list(ON_EVENT)), self._input("one")
        stored = await self._raw.jetstream(timeout=5).publish(SUBJECT + name, json.dumps(input).encode())
        self._history.say("event", name=name, sequence=stored.seq, n=input["n"])

    async def _cancelled(self) -> None:
        name = self._random.choice([LONG, "chain", "soft", "hard"])
        input = self._input(name)
        ref = await self._mesh.start(name, input)
        self._history.say("start", requested=ref.run_id, workflow=name, n=input["n"], key="")
        self._await(ref, name)
        await asyncio.sleep(self._random.random())
        self._history.say("cancel", run=ref.run_id)
        await ref.cancel("enough")

    def _input(self, name: str) -> dict[str, Any]:
        self._number += 1
        chance = self._random.random()
        ms = 4_000 if name == LONG else 0 if chance < 0.3 else int(400 * chance) if chance < 0.97 else 2_500
        fails = {"flaky": self._random.randint(1, 3), FAILS: 9}.get(name, 0)
        return {"n": self._number, "ms": ms, "fails": fails}

    # ---- what it is told --------------------------------------------------------------------------------------------

    def _await(self, ref: RunRef[Any], name: str) -> None:
        task = asyncio.create_task(self._result(ref, name))
        self._waiting.add(task)
        task.add_done_callback(self._waiting.discard)

    async def _result(self, ref: RunRef[Any], name: str) -> None:
        status, value, error = "succeeded", None, ""
        try:
            value = await ref.result()
        except RunFailed as caught:
            status, error = "failed", str(caught)
        except RunCancelled as caught:
            status, error = "cancelled", str(caught)
        except RunTimedOut as caught:
            status, error = "timed_out", str(caught)
        except MeshError as caught:
            status, error = "unknown", repr(caught)
        self._history.say("result", run=ref.run_id, workflow=name, status=status, value=value, error=error)


async def main() -> None:
    loop, orders = asyncio.get_running_loop(), asyncio.Queue[str]()
    threading.Thread(target=lambda: [loop.call_soon_threadsafe(orders.put_nowait, line.strip()) for line in sys.stdin], daemon=True).start()
    loop.add_signal_handler(signal.SIGTERM, orders.put_nowait, "end")
    raw = await nats.connect(os.environ["MESH_URL"].split(","), max_reconnect_attempts=-1, ping_interval=5, pending_size=0, error_cb=_hush)
    async with Mesh() as mesh:
        client = Client(mesh, raw, os.environ["CHAOS_SEED"], float(os.environ["CHAOS_PACE_S"]))
        print("ready", flush=True)
        running = asyncio.create_task(client.run())
        while (order := await orders.get()) != "end":
            if order == "stop":
                client.stopped.set()
                await running
                print("quiet", flush=True)
            elif order == "tail":
                print(f"tail {await client.tail():.2f}", flush=True)
    await raw.close()


async def _hush(error: Exception) -> None:
    """The library says it on the log otherwise; faults are what this is about."""


if __name__ == "__main__":
    asyncio.run(main())
