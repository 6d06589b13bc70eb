"""The yardstick: the same call by hand over nats-py. A stored message there, a stored message back, nothing else kept.

The worker pulls as many as it has of 100 slots free, stores the answer, acknowledges; the client hears the answer by a
plain subscription on the subject that it is stored under, the fastest way there is.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import Any

import nats
import uvloop
from nats.errors import TimeoutError as NatsTimeoutError
from nats.js.api import ConsumerConfig, RetentionPolicy, StreamConfig

SLOTS = 100


async def prepare(url: str) -> None:
    """Make the streams and the worker's consumer."""
    connection = await nats.connect(url)
    jetstream = connection.jetstream()
    await jetstream.add_stream(StreamConfig(name="RAW_STEPS", subjects=["raw.step"], retention=RetentionPolicy.WORK_QUEUE))
    await jetstream.add_stream(StreamConfig(name="RAW_RESULTS", subjects=["raw.result.>"]))
    await jetstream.add_consumer("RAW_STEPS", ConsumerConfig(durable_name="worker", max_ack_pending=1000))
    await connection.close()


async def work(url: str) -> None:
    """Run steps for ever."""
    connection = await nats.connect(url)
    jetstream = connection.jetstream()
    subscription = await jetstream.pull_subscribe_bind("worker", "RAW_STEPS")
    slots = asyncio.Semaphore(SLOTS)
    tasks: set[asyncio.Task[None]] = set()

    async def run(message: Any) -> None:
        try:
            step = json.loads(message.data)
            await jetstream.publish("raw.result." + step["reply"], json.dumps({"n": len(step["p"])}).encode())
            await message.ack()
        finally:
            slots.release()

    print("ready", flush=True)
    while True:
        await slots.acquire()
        free = 1
        while not slots.locked() and free < SLOTS:
            await slots.acquire()
            free += 1
        try:
            messages = await subscription.fetch(free, timeout=5)
        except NatsTimeoutError:
            messages = []
        for message in messages:
            task = asyncio.create_task(run(message))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        for _ in range(free - len(messages)):
            slots.release()


class RawClient:
    """Calls by hand."""

    async def open(self, url: str) -> RawClient:
        self._connection = await nats.connect(url)
        self._jetstream = self._connection.jetstream()
        self._client = os.urandom(6).hex()
        self._count = 0
        self._waiting: dict[str, asyncio.Future[bytes]] = {}

        async def heard(message: Any) -> None:
            future = self._waiting.pop(message.subject.rsplit(".", 1)[1], None)
            if future is not None:
                future.set_result(message.data)

        await self._connection.subscribe(f"raw.result.{self._client}.*", cb=heard)
        return self

    async def call(self, payload: str) -> int:
        """One step, awaited."""
        self._count += 1
        name = str(self._count)
        future = self._waiting[name] = asyncio.get_running_loop().create_future()
        await self._jetstream.publish("raw.step", json.dumps({"p": payload, "reply": f"{self._client}.{name}"}).encode())
        n: int = json.loads(await future)["n"]
        return n

    async def close(self) -> None:
        await self._connection.close()


if __name__ == "__main__":
    uvloop.run(work(sys.argv[1]))
