"""The load: awaited calls one after the other, then 1,000 loops of them at once; and what each process spent on it."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from typing import Any

IN_FLIGHT = 1000
WARM_UP = 200


def cpu_s(pid: int) -> float:
    """CPU seconds of a process so far."""
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def measure(call: Callable[[], Awaitable[Any]], count: int, sequential: int, pids: dict[str, int]) -> dict[str, Any]:
    """Figures of one kind of call.

    Returns:
        per_s: calls a second with 1,000 in flight; p50_ms, p99_ms: of calls one after the other; us: CPU microseconds
        a call by process, while 1,000 were in flight.
    """
    for _ in range(WARM_UP):
        await call()
    latencies = []
    for _ in range(sequential):
        began = time.perf_counter()
        await call()
        latencies.append((time.perf_counter() - began) * 1000)
    left = iter(range(count))

    async def loop() -> None:
        for _ in left:
            await call()

    before = {name: cpu_s(pid) for name, pid in pids.items()}
    began = time.perf_counter()
    await asyncio.gather(*[loop() for _ in range(IN_FLIGHT)])
    took = time.perf_counter() - began
    spent = {name: (cpu_s(pid) - before[name]) / count * 1e6 for name, pid in pids.items()}
    latencies.sort()
    return {
        "per_s": count / took,
        "p50_ms": latencies[len(latencies) // 2],
        "p99_ms": latencies[int(len(latencies) * 0.99)],
        "us": spent,
    }
